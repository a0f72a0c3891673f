//! What a daemon leaves in a VM's run directory for the daemon that comes after it.

use flames_vmm::jail::Held;
use flames_vmm::{HANDLE_FILE, VmHandle};
use serde::{Deserialize, Serialize};
use std::io;

/// The handle, as every driver leaves it, and what this driver alone must know again.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    #[serde(flatten)]
    pub(crate) handle: VmHandle,
    #[serde(default = "unknown_console_limit")]
    pub(crate) console_limit_bytes: u64,
    /// To be given back after it; none of a VM without a jail.
    #[serde(default)]
    pub(crate) held: Held,
}

/// The limit of a console whose VM left none.
fn unknown_console_limit() -> u64 {
    1 << 20
}

impl Left {
    /// Writes it in one step: whoever reads finds all of it or nothing.
    pub(crate) async fn write(&self) -> io::Result<()> {
        let path = self.handle.run_dir.join(HANDLE_FILE);
        let unfinished = path.with_extension("json.new");
        tokio::fs::write(&unfinished, serde_json::to_vec(self)?).await?;
        tokio::fs::rename(&unfinished, &path).await
    }

    /// What was left for the VM that `handle` names.
    pub(crate) async fn read(handle: &VmHandle) -> io::Result<Self> {
        let text = tokio::fs::read(handle.run_dir.join(HANDLE_FILE)).await?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// The same, or what can be known without it.
    pub(crate) async fn read_or_guess(handle: &VmHandle) -> Self {
        Self::read(handle).await.unwrap_or_else(|error| {
            tracing::warn!(vm = %handle.id, %error, "cannot read what an earlier daemon left");
            Self {
                handle: handle.clone(),
                console_limit_bytes: unknown_console_limit(),
                held: Held::default(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_vmm::VmId;

    #[tokio::test]
    async fn the_next_daemon_finds_the_handle_and_what_there_is_to_give_back() {
        let folder = tempfile::tempdir().unwrap();
        let handle = VmHandle {
            id: VmId::parse("a").unwrap(),
            driver: "qemu".into(),
            pid: 1,
            start_ticks: 2,
            executable: "/usr/bin/qemu".into(),
            run_dir: folder.path().into(),
        };
        assert_eq!(Left::read_or_guess(&handle).await.console_limit_bytes, unknown_console_limit());
        let held = Held { cgroups: vec!["/sys/fs/cgroup/x".into()], ..Held::default() };
        let left = Left { handle: handle.clone(), console_limit_bytes: 4711, held };
        left.write().await.unwrap();
        assert_eq!(Left::read_or_guess(&handle).await, left);
        let stored = std::fs::read(folder.path().join(HANDLE_FILE)).unwrap();
        assert_eq!(serde_json::from_slice::<VmHandle>(&stored).unwrap(), handle);
    }
}
