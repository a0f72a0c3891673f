//! VMMs that no handle names.
//!
//! A daemon that is killed between starting a VMM and writing its handle leaves a process that no file leads to. It is
//! found by its output: every driver leads that to a file of the run directory before the VMM's program begins, and no
//! change of root, namespace or user takes it away.

use crate::disk::blocking;
use crate::paths::io_error;
use flames_vmm::{Error, ErrorKind, Result, VmId};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A process that writes to a run directory.
#[derive(Clone, Debug)]
pub(super) struct Stray {
    pub(super) machine: VmId,
    pid: i32,
    /// The folder of run directories, without links in its path.
    vms: PathBuf,
}

/// The kernel takes this long at most to end a process that has been killed.
const END_AT_MOST: Duration = Duration::from_secs(10);

/// All processes that write to a folder of run directories, whoever owns them.
pub(super) fn writers(vms: &Path) -> Result<Vec<Stray>> {
    let entries =
        std::fs::read_dir("/proc").map_err(|error| io_error("process list", "/proc", "list", error))?;
    let vms = vms.canonicalize().map_err(|error| io_error("run directory", vms, "resolve", error))?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let stray = |pid| Some(Stray { machine: machine_of(pid, &vms)?, pid, vms: vms.clone() });
    Ok(pids.filter_map(stray).collect())
}

/// Ends what writes to one machine's directory, and waits for its end.
pub(super) async fn end_of(vms: PathBuf, machine: VmId) -> Result<()> {
    blocking("vm", move || {
        let mut writers = writers(&vms)?.into_iter();
        writers.try_for_each(|stray| if stray.machine == machine { stray.end() } else { Ok(()) })
    })
    .await
}

impl Stray {
    /// Ends it by force and waits for that.
    fn end(&self) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        // Looked at again: from here on the pid cannot change its owner unnoticed.
        if machine_of(self.pid, &self.vms).as_ref() != Some(&self.machine) {
            return Ok(());
        }
        tracing::info!(machine = %self.machine, pid = self.pid, "ending whatever still writes to a run directory");
        let outcome = match pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) => wait_for_end(&pidfd),
            Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        };
        outcome.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "vm", self.machine.as_str())
                .operation("end")
                .detail(format!("process {} resists: {error}", self.pid))
                .source(error)
        })
    }
}

/// A pidfd becomes readable when its process ends.
fn wait_for_end(pidfd: &OwnedFd) -> std::io::Result<()> {
    let deadline = Instant::now() + END_AT_MOST;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) => return Err(std::io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The machine whose directory a process' output leads to.
fn machine_of(pid: i32, vms: &Path) -> Option<VmId> {
    if u32::try_from(pid).ok()? == std::process::id() {
        return None;
    }
    let output = |fd: u8| std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok();
    [1, 2].into_iter().filter_map(output).find_map(|file| machine_in(&file, vms))
}

/// The run directory that a file lies in.
fn machine_in(file: &Path, vms: &Path) -> Option<VmId> {
    let inside = file.strip_prefix(vms).ok()?;
    VmId::parse(inside.components().next()?.as_os_str().to_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_the_folder_below_the_run_directories_and_nothing_else() {
        let vms = Path::new("/data/vms");
        let of = |file: &str| machine_in(Path::new(file), vms).map(|id| id.to_string());
        assert_eq!(of("/data/vms/run-0a/vmm.log").as_deref(), Some("run-0a"));
        assert_eq!(of("/data/vms/run-0a/vmm.log (deleted)").as_deref(), Some("run-0a"));
        assert_eq!(of("/data/vms-2/run-0a/vmm.log"), None);
        assert_eq!(of("pipe:[4711]"), None);
    }

    #[test]
    fn this_process_is_never_a_stray() {
        assert_eq!(machine_of(i32::try_from(std::process::id()).unwrap(), Path::new("/")), None);
    }
}
