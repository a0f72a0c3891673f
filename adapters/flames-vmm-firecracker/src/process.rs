//! Firecracker's process: started with nothing of ours but what it needs, watched to its end by pidfd.

use crate::driver::NAME;
use crate::files;
use crate::jail::{self, Mount};
use crate::left::Resources;
use flames_vmm::{VmHandle, VmId};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
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
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) run_dir: PathBuf,
    /// Where it starts; the jailer changes that to the cage itself.
    pub(crate) folder: PathBuf,
    /// What `/proc/<pid>/exe` says once Firecracker runs: the jailer becomes Firecracker in its own time.
    pub(crate) executable: PathBuf,
    pub(crate) confinement: Confinement,
}

/// What the process is started inside of.
#[derive(Debug)]
pub(crate) enum Confinement {
    /// The daemon's own namespaces but for the network, if one is named.
    Open {
        /// Path of a network namespace.
        netns: Option<PathBuf>,
    },
    /// Namespaces of its own. The jailer does the rest.
    Jail {
        /// Path of a network namespace; one without any interface, if there is none.
        netns: Option<PathBuf>,
        /// What the cage gets from outside.
        mounts: Vec<Mount>,
    },
}

/// Firecracker opens sockets, images, a TAP and event loops: a few dozen. With the half million that daemons
/// often inherit, API sockets have stalled for seconds.
pub(crate) const OPEN_FILES: u64 = 2048;

impl Process {
    /// Starts the program and watches it; `resources` are given back when it has ended.
    pub(crate) async fn start(launch: Launch) -> io::Result<Started> {
        let executable = launch.executable.clone();
        let child = spawn_on_own_thread(launch).await?;
        match limited(&child, executable) {
            Ok((identity, pidfd)) => Ok(Started { identity, pidfd, child: Some(child) }),
            Err(error) => {
                end_orphan(child);
                Err(error)
            }
        }
    }

    /// Takes over the process that `handle` names; `None` if that very process is gone.
    pub(crate) fn adopt(handle: &VmHandle, resources: Resources) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(handle.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Read after the pidfd was opened: from here on the pid cannot change its owner unnoticed.
        match Identity::read(handle.pid) {
            Ok(identity) if identity == Identity::of(handle) => {
                let process = Self::watch(identity, pidfd, resources)?;
                process.outlive_the_daemon();
                Ok(Some(process))
            }
            _ => Ok(None),
        }
    }

    fn watch(identity: Identity, pidfd: OwnedFd, resources: Resources) -> io::Result<Self> {
        let pidfd = Arc::new(pidfd);
        let (tell, ended) = watch::channel(None);
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the contract holds, the Arc owns one descriptor"
        )]
        let readable = AsyncFd::with_interest(pidfd.clone(), Interest::READABLE)?;
        tokio::spawn(async move {
            if let Some(status) = wait_for_end(&readable).await {
                resources.give_back();
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
        kill(&self.pidfd, self.identity.pid);
    }

    /// Waits for the end, also one that has been. By then its resources are given back.
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

/// A process that runs and is not yet watched: its resources are being written down. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Started {
    identity: Identity,
    pidfd: OwnedFd,
    child: Option<Child>,
}

impl Started {
    pub(crate) fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// From here on its resources are given back when it ends.
    pub(crate) fn watch(mut self, resources: Resources) -> io::Result<Process> {
        let process = Process::watch(self.identity.clone(), self.pidfd.try_clone()?, resources)?;
        self.child = None;
        Ok(process)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            end_orphan(child);
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
        let executable = std::fs::read_link(format!("/proc/{pid}/exe"))?;
        Ok(Self { pid, start_ticks: start_ticks_of(pid)?, executable })
    }
}

/// When a process was started, in clock ticks since boot.
pub(crate) fn start_ticks_of(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    start_ticks(&stat).ok_or_else(|| io::Error::other("cannot read /proc/<pid>/stat"))
}

/// Field 22. Field 2 is the program's name in parentheses and may hold anything, so fields are counted from
/// its end.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

fn kill(pidfd: &OwnedFd, pid: u32) {
    match rustix::process::pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => tracing::error!(pid, %error, "cannot kill a VMM"),
    }
}

/// Namespaces and `no_new_privs` belong to a thread and are inherited by what it starts, so a thread of its
/// own can enter them for the child without touching the daemon.
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
    let run_dir = &launch.run_dir;
    let stderr = File::options().create(true).append(true).open(run_dir.join(files::STDERR))?;
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        .env_clear()
        .current_dir(&launch.folder)
        // Held open for reading and writing by Firecracker itself: neither end of its console ever closes, and
        // a daemon may come and go.
        .stdin(Stdio::from(open_pipe(&run_dir.join(files::CONSOLE_IN))?))
        .stdout(Stdio::from(open_pipe(&run_dir.join(files::CONSOLE_OUT))?))
        .stderr(stderr)
        // A group of its own: Ctrl-C at the daemon's terminal is not for its VMs.
        .process_group(0);
    // Ours are all close-on-exec already; this is for what the daemon itself was started with.
    close_fds::set_fds_cloexec(3, &[]);
    jail::enter(&launch.confinement)?;
    command.spawn()
}

fn open_pipe(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// Sets the child's limits, and finds what is needed to watch it.
fn limited(child: &Child, executable: PathBuf) -> io::Result<(Identity, OwnedFd)> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the process has no pid"))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    let exactly = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    for (resource, most) in [(Resource::Nofile, OPEN_FILES), (Resource::Core, 0)] {
        match rustix::process::prlimit(Some(pid), resource, exactly(most)) {
            // It is another user's by now. The jailer has limited the files; whoever is root without
            // CAP_SYS_RESOURCE may be too late for the core dumps.
            Err(rustix::io::Errno::PERM) => {
                tracing::warn!(pid = child.id(), ?resource, "cannot limit a VMM without CAP_SYS_RESOURCE");
            }
            limited => drop(limited?),
        }
    }
    let start_ticks = start_ticks_of(child.id())?;
    Ok((Identity { pid: child.id(), start_ticks, executable }, pidfd))
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
