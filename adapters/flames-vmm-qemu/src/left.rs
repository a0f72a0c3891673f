//! What a daemon leaves in a VM's run directory for the daemon that comes after it.

use flames_vmm::{HANDLE_FILE, VmHandle};
use serde::{Deserialize, Serialize};
use std::io;

/// The handle, as every driver leaves it, and what this driver alone must know again.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    #[serde(flatten)]
    handle: VmHandle,
    console_limit_bytes: u64,
}

/// The limit of a console whose VM left none.
const UNKNOWN_CONSOLE_LIMIT: u64 = 1 << 20;

impl Left {
    pub(crate) fn new(handle: VmHandle, console_limit_bytes: u64) -> Self {
        Self { handle, console_limit_bytes }
    }

    /// Writes it in one step: whoever reads finds all of it or nothing.
    pub(crate) async fn write(&self) -> io::Result<()> {
        let path = self.handle.run_dir.join(HANDLE_FILE);
        let unfinished = path.with_extension("json.new");
        tokio::fs::write(&unfinished, serde_json::to_vec(self)?).await?;
        tokio::fs::rename(&unfinished, &path).await
    }

    /// The limit of the console of the VM that `handle` names.
    pub(crate) async fn console_limit(handle: &VmHandle) -> u64 {
        match Self::read(handle).await {
            Ok(left) => left.console_limit_bytes,
            Err(error) => {
                tracing::warn!(vm = %handle.id, %error, "cannot read what an earlier daemon left");
                UNKNOWN_CONSOLE_LIMIT
            }
        }
    }

    async fn read(handle: &VmHandle) -> io::Result<Self> {
        let text = tokio::fs::read(handle.run_dir.join(HANDLE_FILE)).await?;
        Ok(serde_json::from_slice(&text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_vmm::VmId;

    #[tokio::test]
    async fn the_next_daemon_finds_the_handle_and_the_console_limit() {
        let folder = tempfile::tempdir().unwrap();
        let handle = VmHandle {
            id: VmId::parse("a").unwrap(),
            driver: "qemu".into(),
            pid: 1,
            start_ticks: 2,
            executable: "/usr/bin/qemu".into(),
            run_dir: folder.path().into(),
        };
        assert_eq!(Left::console_limit(&handle).await, UNKNOWN_CONSOLE_LIMIT);
        Left::new(handle.clone(), 4711).write().await.unwrap();
        assert_eq!(Left::console_limit(&handle).await, 4711);
        let stored = std::fs::read(folder.path().join(HANDLE_FILE)).unwrap();
        assert_eq!(serde_json::from_slice::<VmHandle>(&stored).unwrap(), handle);
    }
}
