//! QEMU's process: started with nothing of ours but what it needs, watched to its end by pidfd.

use crate::driver::NAME;
use crate::files;
use command_fds::{CommandFdExt, FdMapping};
use flames_vmm::{VmHandle, VmId};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions};
use rustix::thread::{CapabilitySet, LinkNameSpaceType};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};

/// A VMM's process. Dropping it kills it, unless [`Process::outlive_the_daemon`] was called.
#[derive(Debug)]
pub(crate) struct Process {
    identity: Identity,
    pidfd: Arc<OwnedFd>,
    ended: watch::Receiver<Option<Status>>,
    kill_on_drop: AtomicBool,
}

/// What tells a process from a later one with the same pid.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    pid: u32,
    start_ticks: u64,
    executable: PathBuf,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Exited(i32),
    Signalled(i32),
    /// It was not our child.
    Unknown,
}

/// What to start, and with what.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) binary: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) run_dir: PathBuf,
    /// Network namespace to start it in.
    pub(crate) netns: Option<PathBuf>,
    /// Given to it from descriptor 3 on.
    pub(crate) sockets: Vec<UnixListener>,
    /// Given to it as [`files::DEVICE_STATE_FD`].
    pub(crate) device_state: Option<File>,
}

/// QEMU opens sockets, images, a TAP and event loops: a few dozen. With the half million that daemons often
/// inherit, programs that walk all possible descriptors have stalled for seconds.
const OPEN_FILES: u64 = 2048;

impl Process {
    /// Starts the program and watches it.
    pub(crate) async fn start(launch: Launch) -> io::Result<Self> {
        let run_dir = launch.run_dir.clone();
        let child = spawn_on_own_thread(launch).await?;
        match limited(&child).and_then(|(identity, pidfd)| Self::watch(identity, pidfd, run_dir)) {
            Ok(process) => Ok(process),
            Err(error) => {
                end_orphan(child);
                Err(error)
            }
        }
    }

    /// Takes over the process that `handle` names; `None` if that very process is gone.
    pub(crate) fn adopt(handle: &VmHandle) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(handle.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Read after the pidfd was opened: from here on the pid cannot change its owner unnoticed.
        match Identity::read(handle.pid) {
            Ok(identity) if identity == Identity::of(handle) => {
                let process = Self::watch(identity, pidfd, handle.run_dir.clone())?;
                process.outlive_the_daemon();
                Ok(Some(process))
            }
            _ => Ok(None),
        }
    }

    fn watch(identity: Identity, pidfd: OwnedFd, run_dir: PathBuf) -> io::Result<Self> {
        let pidfd = Arc::new(pidfd);
        let (tell, ended) = watch::channel(None);
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the contract holds, the Arc owns one descriptor"
        )]
        let readable = AsyncFd::with_interest(pidfd.clone(), Interest::READABLE)?;
        tokio::spawn(async move {
            if let Some(status) = wait_for_end(&readable).await {
                files::remove_live_files(&run_dir);
                tell.send_replace(Some(status));
            }
        });
        Ok(Self { identity, pidfd, ended, kill_on_drop: AtomicBool::new(true) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// What a later daemon needs to adopt it.
    pub(crate) fn handle(&self, id: &VmId, run_dir: &Path) -> VmHandle {
        let Identity { pid, start_ticks, executable } = self.identity.clone();
        let (id, run_dir) = (id.clone(), run_dir.to_owned());
        VmHandle { id, driver: NAME.to_owned(), pid, start_ticks, executable, run_dir }
    }

    /// From now on, dropping this leaves the process alone.
    pub(crate) fn outlive_the_daemon(&self) {
        self.kill_on_drop.store(false, Ordering::Release);
    }

    pub(crate) fn kill(&self) {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::error!(pid = self.identity.pid, %error, "cannot kill a VMM"),
        }
    }

    /// Waits for the end, also one that has been. By then its sockets are gone from the run directory.
    pub(crate) async fn ended(&self) -> Status {
        let mut ended = self.ended.clone();
        let status = ended.wait_for(Option::is_some).await.map(|status| *status);
        status.ok().flatten().unwrap_or(Status::Unknown)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.kill_on_drop.load(Ordering::Acquire) {
            self.kill();
        }
    }
}

impl Identity {
    fn of(handle: &VmHandle) -> Self {
        let VmHandle { pid, start_ticks, executable, .. } = handle.clone();
        Self { pid, start_ticks, executable }
    }

    /// Reads `/proc`; an error means that no such process runs (a zombie has no executable).
    fn read(pid: u32) -> io::Result<Self> {
        let folder = Path::new("/proc").join(pid.to_string());
        let stat = std::fs::read_to_string(folder.join("stat"))?;
        let start_ticks =
            start_ticks(&stat).ok_or_else(|| io::Error::other("cannot read /proc/<pid>/stat"))?;
        Ok(Self { pid, start_ticks, executable: std::fs::read_link(folder.join("exe"))? })
    }
}

/// Field 22. Field 2 is the program's name in parentheses and may hold anything, so fields are counted from
/// its end.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// Namespace, capabilities and `no_new_privs` belong to a thread and are inherited by what it starts, so a
/// thread of its own can give them up for the child without touching the daemon.
async fn spawn_on_own_thread(launch: Launch) -> io::Result<Child> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("start-vmm".into()).spawn(move || {
        if let Err(Ok(orphan)) = tell.send(spawn(launch)) {
            end_orphan(orphan);
        }
    })?;
    told.await.map_err(|_| io::Error::other("the thread that starts VMMs panicked"))?
}

/// Nobody waits for this VM any more.
fn end_orphan(mut orphan: Child) {
    let ended = orphan.kill().and_then(|()| orphan.wait());
    tracing::debug!(?ended, "ended a VMM whose start was given up");
}

fn spawn(launch: Launch) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(launch.run_dir.join(files::VMM_LOG))?;
    let mut command = Command::new(&launch.binary);
    command
        .args(&launch.arguments)
        .env_clear()
        .current_dir(&launch.run_dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: Ctrl-C at the daemon's terminal is not for its VMs.
        .process_group(0)
        .fd_mappings(mappings(launch.sockets, launch.device_state))
        .map_err(io::Error::other)?;
    // Ours are all close-on-exec already; this is for what the daemon itself was started with.
    close_fds::set_fds_cloexec(3, &[]);
    give_up_rights(launch.netns.as_deref())?;
    command.spawn()
}

fn mappings(sockets: Vec<UnixListener>, device_state: Option<File>) -> Vec<FdMapping> {
    let map = |(parent_fd, child_fd): (OwnedFd, i32)| FdMapping { parent_fd, child_fd };
    let sockets = sockets.into_iter().map(OwnedFd::from).zip(files::FIRST_SOCKET_FD..);
    let device_state = device_state.map(|file| (OwnedFd::from(file), files::DEVICE_STATE_FD));
    sockets.chain(device_state).map(map).collect()
}

/// Enters the namespace, then gives up what root could do: QEMU only opens files and a TAP that root owns.
fn give_up_rights(netns: Option<&Path>) -> io::Result<()> {
    if let Some(netns) = netns {
        let namespace = File::open(netns)?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    rustix::thread::set_no_new_privs(true)?;
    if rustix::process::geteuid().is_root() {
        drop_capabilities();
    }
    Ok(())
}

/// Removes each from the bounding set, so that not even root gets one back by executing a program. Where this
/// daemon is root without the right to do so (a container), there is nothing to give up.
fn drop_capabilities() {
    for capability in CapabilitySet::all() {
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
}

/// Sets the child's limits, and finds what is needed to watch it.
fn limited(child: &Child) -> io::Result<(Identity, OwnedFd)> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the process has no pid"))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    let exactly = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    rustix::process::prlimit(Some(pid), Resource::Nofile, exactly(OPEN_FILES))?;
    rustix::process::prlimit(Some(pid), Resource::Core, exactly(0))?;
    Ok((Identity::read(child.id())?, pidfd))
}

/// A pidfd becomes readable when its process ends. A child is reaped here; a stranger's status nobody gets.
/// `None` if this daemon ends first.
async fn wait_for_end(pidfd: &AsyncFd<Arc<OwnedFd>>) -> Option<Status> {
    let _ready = pidfd.readable().await.ok()?;
    match rustix::process::waitid(WaitId::PidFd(pidfd.get_ref().as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) => status
            .exit_status()
            .map(Status::Exited)
            .or_else(|| status.terminating_signal().map(Status::Signalled))
            .or(Some(Status::Unknown)),
        Ok(None) | Err(_) => Some(Status::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_hostile_process_name() {
        let stat = "42 (a) 1 (b) R) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 0 0";
        assert_eq!(start_ticks(stat), Some(987_654));
    }

    #[test]
    fn a_process_has_the_same_identity_every_time_it_is_read() {
        let own = std::process::id();
        assert_eq!(Identity::read(own).unwrap(), Identity::read(own).unwrap());
    }
}
