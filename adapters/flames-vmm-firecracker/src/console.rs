//! The pipes that a VMM writes to, each kept in a file with a limit: the guest's console, the log, the metrics.

use crate::demux::Demux;
use flames_vmm::log::{self, Log};
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Copies a pipe into its file until the VMM is gone. Stops when dropped; the VM goes on, and what it writes
/// meanwhile waits in the pipe or is lost.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    copier: JoinHandle<()>,
    /// Closed when the copier has written all there will ever be.
    finished: watch::Receiver<()>,
}

/// Whether it is kept when each part of a file came.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Times {
    /// Yes.
    Kept,
    /// No: its lines have their own, or nobody asks.
    Not,
}

/// What Firecracker's log told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The API answers.
    pub(crate) serving: bool,
    /// It ends because its guest did.
    pub(crate) guest_ended: bool,
}

/// Firecracker's words once its socket listens and its API thread serves it.
const SERVING: &[u8] = b"API server started.";
/// Its words when the guest has reset or powered off the machine, and only then.
const GUEST_ENDED: &[u8] = b"Firecracker exiting successfully";
/// Read at once.
const CHUNK: usize = 16 * 1024;
/// Records that wait to be read. A guest that sends more after its report is not listened to.
const RECORDS: usize = 8;

impl Kept {
    /// Keeps what comes out of `pipe` in `file`. `pass` sees each chunk and says what of it is kept.
    pub(crate) async fn attach(
        pipe: &Path,
        file: PathBuf,
        limit: u64,
        times: Times,
        mut pass: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Self> {
        let mut source = pipe::OpenOptions::new().open_receiver(pipe)?;
        let log = Log::open(file.clone(), limit).await?;
        let mut log = match times {
            Times::Kept => log.with_times().await?,
            Times::Not => log,
        };
        let (finish, finished) = watch::channel(());
        let copier = tokio::spawn(async move {
            if let Err(error) = copy(&mut source, &mut log, &mut pass).await {
                tracing::warn!(%error, "a pipe of a VM is no longer kept");
            }
            drop(pass);
            drop(finish);
        });
        Ok(Self { path: file, copier, finished })
    }

    /// Waits until nothing more can come: returns soon after the VMM is gone, and not before.
    pub(crate) async fn finished(&self) {
        let _closed = self.finished.clone().changed().await;
    }

    /// The newest lines, for a person.
    pub(crate) async fn tail(&self) -> String {
        log::tail(&self.path).await
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.copier.abort();
    }
}

async fn copy(
    source: &mut pipe::Receiver,
    log: &mut Log,
    pass: &mut (impl FnMut(&[u8]) -> Vec<u8> + Send),
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = source.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        let kept = pass(&chunk[..length]);
        if !kept.is_empty() {
            log.append(&kept).await?;
        }
    }
}

/// Takes the agent's records out of the guest's console.
pub(crate) fn records() -> (impl FnMut(&[u8]) -> Vec<u8> + Send + 'static, mpsc::Receiver<Vec<u8>>) {
    let (tell, told) = mpsc::channel(RECORDS);
    let mut demux = Demux::default();
    let pass = move |chunk: &[u8]| {
        let parts = demux.feed(chunk);
        for record in parts.records {
            let _ = tell.try_send(record); // nobody listens any more
        }
        parts.console
    };
    (pass, told)
}

/// Listens for the words in Firecracker's log that mean something to the driver.
pub(crate) fn told() -> (impl FnMut(&[u8]) -> Vec<u8> + Send + 'static, watch::Receiver<Told>) {
    let (tell, told) = watch::channel(Told::default());
    let mut line = Vec::new();
    let pass = move |chunk: &[u8]| {
        for &byte in chunk {
            line.push(byte);
            if byte == b'\n' {
                hear(&line, &tell);
                line.clear();
            }
            line.truncate(CHUNK);
        }
        chunk.to_vec()
    };
    (pass, told)
}

fn hear(line: &[u8], tell: &watch::Sender<Told>) {
    let says = |words: &[u8]| line.windows(words.len()).any(|window| window == words);
    let (serving, guest_ended) = (says(SERVING), says(GUEST_ENDED));
    if serving || guest_ended {
        tell.send_modify(|told| {
            told.serving |= serving;
            told.guest_ended |= guest_ended;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_understood_however_it_is_cut() {
        let (mut pass, told) = told();
        pass(b"2026 [vm:fc_api] API server sta");
        assert_eq!(*told.borrow(), Told::default());
        pass(b"rted.\n");
        assert!(told.borrow().serving && !told.borrow().guest_ended);
        pass(b"x\n[vm:main] Firecracker exiting successfully. exit_code=0\n");
        assert!(told.borrow().guest_ended);
    }
}
