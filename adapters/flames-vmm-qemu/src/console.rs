//! The guest's console, kept in a file that never grows beyond its limit.

use crate::files;
use flames_vmm::CONSOLE_FILE;
use flames_vmm::log::{self, Log};
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Copies the console into its file until the VMM is gone. Stops when dropped; the VM goes on, and what its
/// guest prints meanwhile is lost. A line that this cuts in two is not continued by half of a later one.
#[derive(Debug)]
pub(crate) struct Console {
    path: PathBuf,
    copier: JoinHandle<()>,
    /// Closed when the copier has written all there will ever be.
    finished: watch::Receiver<()>,
}

/// Read at once.
const CHUNK: usize = 16 * 1024;

impl Console {
    pub(crate) async fn attach(run_dir: &Path, limit: u64) -> io::Result<Self> {
        let socket = UnixStream::connect(run_dir.join(files::CONSOLE)).await?;
        let path = run_dir.join(CONSOLE_FILE);
        let mut log = Log::open(path.clone(), limit).await?.with_times().await?;
        log.end_line().await?;
        let (finish, finished) = watch::channel(());
        let copier = tokio::spawn(async move {
            if let Err(error) = copy(socket, log).await {
                tracing::warn!(%error, "a console is no longer kept");
            }
            drop(finish);
        });
        Ok(Self { path, copier, finished })
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

impl Drop for Console {
    fn drop(&mut self) {
        self.copier.abort();
    }
}

async fn copy(mut socket: UnixStream, mut log: Log) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = match socket.read(&mut chunk).await {
            Ok(0) => return Ok(()),
            // A VMM that is killed with unread input resets the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            read => read?,
        };
        log.append(&chunk[..length]).await?;
    }
}
