//! A file of the newest bytes: what a driver keeps of a console, and what it quotes of it.

mod times;

pub use times::Times;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use times::TimesFile;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// A file that never grows beyond its limit: when that is reached, the older half goes.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    length: u64,
    limit: u64,
    /// No other log of this process has it. One that was dropped may still be at work on the same file, and would take
    /// away what this one is about to put in its place.
    number: u64,
    times: Option<TimesFile>,
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// How much of a log an error or an exit quotes.
const QUOTED_BYTES: u64 = 2048;

impl Log {
    /// Opens the file at `path`, which keeps at most `limit` bytes, and goes on at its end.
    ///
    /// # Errors
    /// That of the file system.
    pub async fn open(path: PathBuf, limit: u64) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(&path).await?;
        let length = file.metadata().await?.len();
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { path, file, length, limit, number, times: None })
    }

    /// Keeps beside it when each part came ([`Times`]).
    ///
    /// # Errors
    /// That of the file system.
    pub async fn with_times(mut self) -> io::Result<Self> {
        self.times = Some(TimesFile::open(&self.path).await?);
        Ok(self)
    }

    /// Adds to its end.
    ///
    /// # Errors
    /// That of the file system.
    pub async fn append(&mut self, chunk: &[u8]) -> io::Result<()> {
        let plan = plan(self.length, chunk.len(), self.limit);
        if plan.keep < self.length {
            self.shorten(plan.keep).await?;
        }
        if let Some(times) = &mut self.times {
            times.mark(plan.keep).await?;
        }
        let newest = &chunk[chunk.len() - plan.take..];
        self.file.write_all(newest).await?;
        self.file.flush().await?;
        self.length = plan.keep + u64::try_from(newest.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Ends the last line if it is not ended: what comes next does not continue it, something was lost between.
    ///
    /// # Errors
    /// That of the file system.
    pub async fn end_line(&mut self) -> io::Result<()> {
        match newest(&self.path, 1).await?.as_slice() {
            [] | [b'\n'] => Ok(()),
            _ => self.append(b"\n").await,
        }
    }

    /// Replaces the file by its newest `keep` bytes, in one step for whoever reads it.
    async fn shorten(&mut self, keep: u64) -> io::Result<()> {
        let kept = newest(&self.path, keep).await?;
        let shorter = self.path.with_extension(format!("log.new{}", self.number));
        tokio::fs::write(&shorter, &kept).await?;
        tokio::fs::rename(&shorter, &self.path).await?;
        self.file = File::options().append(true).open(&self.path).await?;
        match &mut self.times {
            Some(times) => times.forget(self.length - keep).await,
            None => Ok(()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Bytes of the file that stay, from its end.
    keep: u64,
    /// Bytes of the chunk that are written, from its end.
    take: usize,
}

fn plan(length: u64, chunk: usize, limit: u64) -> Plan {
    let take = chunk.min(usize::try_from(limit).unwrap_or(usize::MAX));
    let added = u64::try_from(take).unwrap_or(u64::MAX);
    if length.saturating_add(added) <= limit {
        return Plan { keep: length, take };
    }
    Plan { keep: (limit / 2).min(limit - added).min(length), take }
}

/// The end of a log for a person: whole characters, nothing that would steer a terminal.
pub async fn tail(path: &Path) -> String {
    let bytes = newest(path, QUOTED_BYTES).await.unwrap_or_default();
    printable(&bytes)
}

async fn newest(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path).await?;
    let length = file.metadata().await?.len();
    file.seek(io::SeekFrom::Start(length.saturating_sub(most))).await?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let harmless = |character: &char| *character == '\n' || *character == '\t' || !character.is_control();
    text.chars().filter(harmless).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_for_a_person_steers_no_terminal() {
        assert_eq!(printable(b"\x1b[2Ja\r\nb\x07\tc\xff\n"), "[2Ja\nb\tc\u{fffd}");
    }

    #[tokio::test]
    async fn the_file_keeps_the_newest_bytes_and_never_exceeds_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let mut log = Log::open(path.clone(), 100).await.unwrap();
        for number in 0..1000 {
            log.append(format!("line {number}\n").as_bytes()).await.unwrap();
            assert!(tokio::fs::metadata(&path).await.unwrap().len() <= 100);
        }
        let text = tokio::fs::read_to_string(&path).await.unwrap();
        assert!(text.ends_with("line 998\nline 999\n") && text.len() >= 50, "{text:?}");
    }

    #[tokio::test]
    async fn a_line_that_was_cut_is_ended_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let mut log = Log::open(path.clone(), 100).await.unwrap();
        log.end_line().await.unwrap();
        log.append(b"tick 1").await.unwrap();
        for _ in 0..2 {
            log.end_line().await.unwrap();
        }
        log.append(b"2\n").await.unwrap();
        assert_eq!(tokio::fs::read(&path).await.unwrap(), b"tick 1\n2\n");
    }

    #[tokio::test]
    async fn each_line_has_the_time_that_it_came_at_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let began = i64::try_from(began).unwrap();
        for _ in 0..3 {
            let mut log = Log::open(path.clone(), 200).await.unwrap().with_times().await.unwrap();
            for number in 0..20 {
                log.append(format!("line {number}\n").as_bytes()).await.unwrap();
            }
        }
        let (times, length) = (Times::read(&path), tokio::fs::metadata(&path).await.unwrap().len());
        let of_all: Vec<_> = (0..length).map(|offset| times.at(offset).unwrap()).collect();
        assert!(of_all.is_sorted() && of_all[0] >= began, "{began} {of_all:?}");
    }

    proptest::proptest! {
        #[test]
        fn a_plan_fits_the_limit_and_keeps_as_much_as_half_of_it(
            length in 0u64..300, chunk in 0usize..300, limit in 0u64..300,
        ) {
            let length = length.min(limit);
            let plan = plan(length, chunk, limit);
            let after = plan.keep + plan.take as u64;
            proptest::prop_assert!(after <= limit && plan.keep <= length && plan.take <= chunk);
            proptest::prop_assert!(after >= (length + chunk as u64).min(limit / 2));
        }
    }
}
