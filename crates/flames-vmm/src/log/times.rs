//! When each part of a log came, in a small file beside it.
//!
//! Offsets count from the first byte that the log ever got, so that they stay right when its older half goes. The first
//! line says how many bytes went; each other line is a mark: an offset, and milliseconds of Unix time.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// When the parts of a log came, as its reader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Bytes that the log got and no longer has.
    gone: u64,
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    offset: u64,
    at_ms: i64,
}

/// Marks that are kept; of more, every second goes.
const MAX_MARKS: usize = 4096;
/// What comes sooner after a mark belongs to it.
const CLOSE_MS: i64 = 10;

impl Times {
    /// Those of the log at `log`; none where they were not kept.
    pub fn read(log: &Path) -> Self {
        std::fs::read_to_string(beside(log)).map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// When the byte at `offset` of the log, as it is now, came: milliseconds of Unix time.
    pub fn at(&self, offset: u64) -> Option<i64> {
        let offset = self.gone + offset;
        let after = self.marks.partition_point(|mark| mark.offset <= offset);
        Some(self.marks[after.checked_sub(1)?].at_ms)
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let gone = lines.next().and_then(|line| line.parse().ok()).unwrap_or_default();
        let marks = lines.filter_map(Mark::parse).collect();
        Self { gone, marks }
    }

    /// A mark for what comes now, unless the last one is as good.
    fn mark(&mut self, offset: u64, now_ms: i64) -> Option<Mark> {
        if self.marks.last().is_some_and(|last| (last.at_ms..last.at_ms + CLOSE_MS).contains(&now_ms)) {
            return None;
        }
        let mark = Mark { offset, at_ms: now_ms };
        self.marks.push(mark);
        Some(mark)
    }

    /// Forgets what is about bytes that went, but for the mark that the first byte left belongs to.
    fn forget(&mut self, gone: u64) {
        self.gone = gone;
        let first = self.marks.partition_point(|mark| mark.offset <= gone).saturating_sub(1);
        self.marks.drain(..first);
    }

    fn thin(&mut self) {
        let mut keep = false;
        self.marks.retain(|_| {
            keep = !keep;
            keep
        });
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.gone);
        self.marks.iter().for_each(|mark| text.push_str(&mark.line()));
        text
    }
}

impl Mark {
    fn parse(line: &str) -> Option<Self> {
        let (offset, at_ms) = line.split_once(' ')?;
        Some(Self { offset: offset.parse().ok()?, at_ms: at_ms.parse().ok()? })
    }

    fn line(self) -> String {
        let mut line = String::new();
        let _never = writeln!(line, "{} {}", self.offset, self.at_ms);
        line
    }
}

/// Keeps the times of a log that is written.
#[derive(Debug)]
pub(super) struct TimesFile {
    path: PathBuf,
    file: File,
    times: Times,
}

impl TimesFile {
    /// Goes on with those of the log at `log`.
    pub(super) async fn open(log: &Path) -> io::Result<Self> {
        let path = beside(log);
        let times = match tokio::fs::read_to_string(&path).await {
            Ok(text) => Times::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Times::default(),
            Err(error) => return Err(error),
        };
        tokio::fs::write(&path, times.text()).await?;
        let file = File::options().append(true).open(&path).await?;
        Ok(Self { path, file, times })
    }

    /// The log gets bytes now, behind `length` that it has.
    pub(super) async fn mark(&mut self, length: u64) -> io::Result<()> {
        if self.times.marks.len() >= MAX_MARKS {
            self.times.thin();
            self.rewrite().await?;
        }
        let Some(mark) = self.times.mark(self.times.gone + length, now_ms()) else { return Ok(()) };
        self.file.write_all(mark.line().as_bytes()).await?;
        self.file.flush().await
    }

    /// The log's oldest `bytes` went.
    pub(super) async fn forget(&mut self, bytes: u64) -> io::Result<()> {
        self.times.forget(self.times.gone + bytes);
        self.rewrite().await
    }

    async fn rewrite(&mut self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        tokio::fs::write(&new, self.times.text()).await?;
        tokio::fs::rename(&new, &self.path).await?;
        self.file = File::options().append(true).open(&self.path).await?;
        Ok(())
    }
}

/// The name of the file beside a log.
fn beside(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".times");
    PathBuf::from(name)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_nobody_wrote_has_no_times() {
        assert_eq!(Times::parse("").at(0), None);
        assert_eq!(Times::parse("half a li").at(7), None);
        assert_eq!(Times::parse("0\n5 100\nrubbish\n9 2").at(4), None);
        assert_eq!(Times::parse("0\n5 100\nrubbish\n9 2").at(9), Some(2));
    }

    proptest! {
        #[test]
        fn a_byte_keeps_its_time_when_older_ones_go(
            chunks in prop::collection::vec((1u64..50, 0i64..40), 1..60), cut in 0u64..3000,
        ) {
            let (mut times, mut written, mut now) = (Times::default(), 0, 0);
            let mut came = Vec::new();
            for (length, wait) in chunks {
                now += wait;
                times.mark(written, now);
                came.extend((0..length).map(|_| now));
                written += length;
            }
            times.forget(cut.min(written));
            let read = Times::parse(&times.text());
            prop_assert_eq!(&read, &times);
            for (offset, came) in came.into_iter().skip(usize::try_from(times.gone).unwrap()).enumerate() {
                let at = read.at(offset as u64).unwrap();
                prop_assert!(at <= came && came - at < CLOSE_MS, "{at} of {came}");
            }
        }
    }
}
