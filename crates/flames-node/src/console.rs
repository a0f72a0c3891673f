//! The newest of a console, and when its lines came.

use bytes::Bytes;
use flames_vmm::log::Times;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The newest of a console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Console {
    /// What was printed.
    pub text: Bytes,
    /// When, by runs of lines, from the first line on.
    pub times: Vec<LinesAt>,
}

/// Some lines that came at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinesAt {
    /// How many.
    pub lines: usize,
    /// Milliseconds of Unix time, if somebody knows.
    pub at_ms: Option<i64>,
}

impl Console {
    /// What a driver keeps at `path`, at most `limit` bytes; nothing while there is none.
    pub(crate) fn read(path: &Path, limit: usize) -> Self {
        let Ok((start, text)) = tail(path, limit as u64) else { return Self::default() };
        let kept = Times::read(path);
        let mut times: Vec<LinesAt> = Vec::new();
        let mut offset = start;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let at_ms = kept.at(offset);
            match times.last_mut() {
                Some(last) if last.at_ms == at_ms => last.lines += 1,
                _ => times.push(LinesAt { lines: 1, at_ms }),
            }
            offset += line.len() as u64;
        }
        Self { text: text.into(), times }
    }

    /// Its newest bytes, at most `limit`.
    #[must_use]
    pub fn newest(mut self, limit: usize) -> Self {
        let cut = self.text.split_to(self.text.len().saturating_sub(limit));
        let mut lines = cut.iter().filter(|byte| **byte == b'\n').count();
        for run in &mut self.times {
            let fewer = lines.min(run.lines);
            run.lines -= fewer;
            lines -= fewer;
        }
        self.times.retain(|run| run.lines > 0);
        self
    }

    /// Its lines and when each came, in milliseconds of Unix time.
    pub fn lines(&self) -> impl Iterator<Item = (Option<i64>, Cow<'_, str>)> {
        let times = self.times.iter().flat_map(|run| std::iter::repeat_n(run.at_ms, run.lines));
        let times = times.chain(std::iter::repeat(None));
        let lines = self.text.split_inclusive(|byte| *byte == b'\n');
        times.zip(lines).map(|(at, line)| (at, String::from_utf8_lossy(line)))
    }
}

/// The end of a file, and where it begins.
fn tail(path: &Path, limit: u64) -> io::Result<(u64, Vec<u8>)> {
    let mut file = File::open(path)?;
    let start = file.seek(SeekFrom::End(0))?.saturating_sub(limit);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok((start, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_vmm::log::Log;

    fn lines(console: &Console) -> Vec<(Option<i64>, String)> {
        console.lines().map(|(at, line)| (at, line.into_owned())).collect()
    }

    #[test]
    fn cutting_a_console_leaves_each_line_its_time() {
        let times = [(2, Some(1)), (1, None), (2, Some(3))];
        let times = times.map(|(lines, at_ms)| LinesAt { lines, at_ms }).to_vec();
        let console = Console { text: Bytes::from_static(b"a\nb\nc\nd\ne"), times };
        let all = [(Some(1), "a\n"), (Some(1), "b\n"), (None, "c\n"), (Some(3), "d\n"), (Some(3), "e")];
        let all = all.map(|(at, line)| (at, line.to_owned()));
        assert_eq!(lines(&console), all);
        assert_eq!(lines(&console.clone().newest(7)), all[1..]);
        assert_eq!(lines(&console.clone().newest(1)), all[4..]);
        assert_eq!(lines(&console.newest(0)), []);
    }

    #[test]
    fn lines_that_nobody_timed_have_no_time() {
        let console = Console { text: Bytes::from_static(b"a\nb\n"), times: Vec::new() };
        assert_eq!(lines(&console), [(None, "a\n".to_owned()), (None, "b\n".to_owned())]);
    }

    #[tokio::test]
    async fn what_a_driver_keeps_is_read_with_its_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        assert_eq!(Console::read(&path, 100), Console::default());
        let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let began = now();
        let mut log = Log::open(path.clone(), 1000).await.unwrap().with_times().await.unwrap();
        log.append(b"one\ntwo\n").await.unwrap();
        let console = Console::read(&path, 5);
        assert_eq!(&console.text[..], b"\ntwo\n");
        assert!(
            console.lines().all(|(at, _)| (began..=now()).contains(&u128::try_from(at.unwrap()).unwrap()))
        );
        assert_eq!(console.lines().count(), 2);
    }
}
