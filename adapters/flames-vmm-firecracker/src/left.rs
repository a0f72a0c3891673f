//! What a daemon leaves in a VM's run directory for the daemon that comes after it.

use crate::faults::LeftHandler;
use crate::files;
use flames_vmm::jail::Held;
use flames_vmm::{HANDLE_FILE, VmHandle};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// The handle, as every driver leaves it, and what this driver alone must know again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    #[serde(flatten)]
    pub(crate) handle: VmHandle,
    pub(crate) console_limit_bytes: u64,
    pub(crate) resources: Resources,
}

/// What a VM has on its host, to be given back when its process is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resources {
    pub(crate) run_dir: PathBuf,
    /// Where its Firecracker works.
    pub(crate) cage: PathBuf,
    /// None of a VM without a jail.
    pub(crate) held: Held,
    /// Its page-fault handler, which gives back its own.
    pub(crate) handler: Option<LeftHandler>,
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
}

impl Resources {
    /// Gives all of it back. The user id goes last: whoever gets it next finds nothing of this VM.
    pub(crate) fn give_back(&self) {
        files::remove_live_files(&self.run_dir);
        self.held.give_back();
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
            driver: "firecracker".into(),
            pid: 1,
            start_ticks: 2,
            executable: "/firecracker".into(),
            run_dir: folder.path().into(),
        };
        let resources = Resources { run_dir: folder.path().into(), ..Resources::default() };
        let left = Left { handle: handle.clone(), console_limit_bytes: 4711, resources };
        left.write().await.unwrap();
        assert_eq!(Left::read(&handle).await.unwrap(), left);
        let stored = std::fs::read(folder.path().join(HANDLE_FILE)).unwrap();
        assert_eq!(serde_json::from_slice::<VmHandle>(&stored).unwrap(), handle);
    }

    #[test]
    fn giving_back_twice_is_fine_and_leaves_the_logs() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().to_owned();
        std::fs::create_dir_all(run_dir.join("jail/firecracker/a/root")).unwrap();
        std::fs::write(run_dir.join("console.log"), "bye").unwrap();
        let resources = Resources { run_dir: run_dir.clone(), ..Resources::default() };
        resources.give_back();
        resources.give_back();
        let left: Vec<_> =
            std::fs::read_dir(run_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["console.log"]);
    }
}
