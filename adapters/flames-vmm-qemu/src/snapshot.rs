//! Snapshots: the device state is QEMU's to write and to load; the memory is copied, and mapped, past it.

use crate::driver::NAME;
use crate::files;
use crate::memory::{CopyError, GuestMemory};
use crate::qmp::{QmpError, RunState};
use crate::vm::Vm;
use flames_vmm::jail::open_to_others;
use flames_vmm::log;
use flames_vmm::{Error, ErrorKind, Result, SnapshotParts, UnfinishedParts, VmSpec};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// At the start of every state that QEMU writes: its mark, and the version of the format.
const MAGIC: [u8; 8] = *b"QEVM\0\0\0\x03";

impl Vm {
    /// Writes memory and device state of this VM, which must be paused, into `into`.
    pub(crate) async fn write_snapshot(&self, into: &Path) -> Result<SnapshotParts> {
        // Nobody may let the virtual CPUs run meanwhile.
        let _holds_still = self.switch.lock().await;
        self.must_be_paused().await?;
        let parts = UnfinishedParts::create(into)?;
        self.save_devices(&parts).await?;
        let parts = self.copy_memory(parts).await?;
        if let Some(access) = self.clones {
            // Now and not when the first clone is made: whoever keeps a hash of it watches for changes.
            let shared = open_to_others(parts.memory(), access);
            shared.map_err(|error| UnfinishedParts::cannot_write(parts.memory(), error))?;
        }
        Ok(parts.finish(self.qmp.version()))
    }

    async fn must_be_paused(&self) -> Result<()> {
        match self.checked("snapshot", self.qmp.run_state().await).await? {
            RunState::Paused => Ok(()),
            RunState::Running | RunState::Other => {
                Err(self.error(ErrorKind::Conflict, "snapshot").detail("it is not paused; pause it first"))
            }
        }
    }

    /// QEMU gets the open file: it sees no folder of the host's, and may write to none.
    async fn save_devices(&self, parts: &UnfinishedParts) -> Result<()> {
        let file = File::options().write(true).open(parts.device_state());
        let file = file.map_err(|error| UnfinishedParts::cannot_write(parts.device_state(), error))?;
        match self.qmp.save_devices(file.into()).await {
            Err(QmpError::Refused { reason, .. }) => {
                Err(UnfinishedParts::cannot_write(parts.device_state(), reason))
            }
            outcome => self.checked("snapshot", outcome).await,
        }
    }

    /// The parts go along, so that they are removed only when nobody writes to them any more.
    async fn copy_memory(&self, parts: UnfinishedParts) -> Result<UnfinishedParts> {
        let pid = self.process.pid();
        let copying = tokio::task::spawn_blocking(move || (copy_memory(pid, parts.memory()), parts));
        let (copied, parts) = copying
            .await
            .map_err(|error| self.error(ErrorKind::Internal, "snapshot").detail(error.to_string()))?;
        copied.map_err(|error| self.not_copied(&parts, error))?;
        Ok(parts)
    }

    fn not_copied(&self, parts: &UnfinishedParts, error: CopyError) -> Error {
        let kind = match &error {
            CopyError::Write(reason) => {
                return UnfinishedParts::cannot_write(parts.memory(), reason).source(error);
            }
            CopyError::Read(reason) if reason.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::PermissionDenied
            }
            CopyError::Read(reason) if reason.kind() == io::ErrorKind::NotFound => ErrorKind::Unavailable,
            CopyError::Read(_) | CopyError::NoMemory => ErrorKind::Internal,
        };
        let mend = match kind {
            ErrorKind::PermissionDenied => "; run the daemon as root, or set kernel.yama.ptrace_scope to 0",
            _ => "",
        };
        self.error(kind, "snapshot").detail(format!("{error}{mend}")).source(error)
    }

    /// Loads the device state that QEMU was started with. A QEMU that cannot do it is ended.
    pub(crate) async fn load_devices(&self, parts: &SnapshotParts) -> Result<()> {
        match self.qmp.load_devices(files::DEVICE_STATE_FD).await {
            Err(error @ (QmpError::Closed | QmpError::Refused { .. })) => {
                self.process.kill();
                self.process.ended().await;
                let said = log::tail(&self.run_dir().join(files::VMM_LOG)).await;
                Err(corrupt(&parts.device_state, format!("QEMU cannot load it: {said}")).source(error))
            }
            outcome => self.checked("prepare", outcome).await,
        }
    }
}

fn copy_memory(pid: u32, into: &Path) -> Result<(), CopyError> {
    let target = File::options().write(true).open(into).map_err(CopyError::Write)?;
    GuestMemory::find(pid)?.copy_to(&target)
}

/// Opens the device state, if a QEMU of this version can go on from the parts with the spec's machine.
pub(crate) async fn open(parts: &SnapshotParts, spec: &VmSpec, version: &str) -> Result<File> {
    parts.check(spec.memory, version).await?;
    let path = &parts.device_state;
    let unreadable = |error: io::Error| corrupt(path, format!("cannot be read: {error}")).source(error);
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?.into_std().await;
    let mut start = [0; MAGIC.len()];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) if start == MAGIC => Ok(file),
        Ok(()) => Err(corrupt(path, "is no device state of QEMU's".into())),
        Err(error) => Err(unreadable(error)),
    }
}

fn corrupt(path: &Path, detail: String) -> Error {
    Error::new(ErrorKind::Corrupt, "snapshot part", path.display().to_string())
        .adapter(NAME)
        .operation("prepare")
        .detail(format!("{detail}; boot instead"))
}
