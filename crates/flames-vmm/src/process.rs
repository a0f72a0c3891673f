//! A VMM's process as every driver has it: told from a later one with its pid, watched to its end by pidfd.

use crate::{VmHandle, VmId};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Gid, Uid};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};

/// A VMM's process. Dropping it kills it, unless [`Process::outlive_the_daemon`] was called.
#[derive(Debug)]
pub struct Process {
    identity: Identity,
    pidfd: Arc<OwnedFd>,
    ended: watch::Receiver<Option<Status>>,
    kill_on_drop: AtomicBool,
}

/// What tells a process from a later one with the same pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its process id.
    pub pid: u32,
    /// When it was started, in clock ticks since boot.
    pub start_ticks: u64,
    /// What `/proc/<pid>/exe` says.
    pub executable: PathBuf,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// It was not our child.
    Unknown,
}

impl Process {
    /// Takes over the process that `handle` names; `None` if that very process is gone.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn adopt(handle: &VmHandle, at_end: impl FnOnce() + Send + 'static) -> io::Result<Option<Self>> {
        Self::take_over(&Identity::of(handle), at_end)
    }

    /// Takes over a process of an earlier daemon; `None` if that very process is gone.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn take_over(
        expected: &Identity,
        at_end: impl FnOnce() + Send + 'static,
    ) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(expected.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Read after the pidfd was opened: from here on the pid cannot change its owner unnoticed.
        match Identity::read(expected.pid) {
            Ok(identity) if identity == *expected => {
                let process = Self::watch(identity, pidfd, at_end)?;
                process.outlive_the_daemon();
                Ok(Some(process))
            }
            _ => Ok(None),
        }
    }

    /// Watches a process; `at_end` runs once when it has ended, before anybody is told.
    ///
    /// # Errors
    /// When the descriptor cannot be watched.
    pub fn watch(
        identity: Identity,
        pidfd: OwnedFd,
        at_end: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let pidfd = Arc::new(pidfd);
        let (tell, ended) = watch::channel(None);
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the contract holds, the Arc owns one descriptor"
        )]
        let readable = AsyncFd::with_interest(pidfd.clone(), Interest::READABLE)?;
        tokio::spawn(async move {
            if let Some(status) = wait_for_end(&readable).await {
                at_end();
                tell.send_replace(Some(status));
            }
        });
        Ok(Self { identity, pidfd, ended, kill_on_drop: AtomicBool::new(true) })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// What a later daemon needs to adopt it.
    pub fn handle(&self, driver: &str, id: &VmId, run_dir: &Path) -> VmHandle {
        let Identity { pid, start_ticks, executable } = self.identity.clone();
        let (id, run_dir) = (id.clone(), run_dir.to_owned());
        VmHandle { id, driver: driver.to_owned(), pid, start_ticks, executable, run_dir }
    }

    /// From now on, dropping this leaves the process alone.
    pub fn outlive_the_daemon(&self) {
        self.kill_on_drop.store(false, Ordering::Release);
    }

    /// Ends it by force; its end is told by [`Process::ended`].
    pub fn kill(&self) {
        self.grip().kill();
    }

    /// Waits for the end, also one that has been. By then `at_end` has run.
    pub async fn ended(&self) -> Status {
        let mut ended = self.ended.clone();
        let status = ended.wait_for(Option::is_some).await.map(|status| *status);
        status.ok().flatten().unwrap_or(Status::Unknown)
    }

    /// A hold on it that neither keeps nor ends it when it is dropped.
    pub fn grip(&self) -> Grip {
        Grip { pidfd: self.pidfd.clone(), pid: self.identity.pid }
    }

    /// What tells it from a later one with its pid.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
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

/// A hold on a process.
#[derive(Clone, Debug)]
pub struct Grip {
    pidfd: Arc<OwnedFd>,
    pid: u32,
}

impl Grip {
    /// Ends it by force.
    pub fn kill(&self) {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::error!(pid = self.pid, %error, "cannot kill a VMM"),
        }
    }

    /// Whether it has ended by now, also where nobody was told yet.
    pub fn is_gone(&self) -> bool {
        let mut polled = [PollFd::new(&*self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(count) if count > 0)
    }
}

/// A child that runs and is not yet watched: what there is to be given back after it is being written down. Killed when
/// dropped.
#[derive(Debug)]
pub struct Started {
    identity: Identity,
    pidfd: OwnedFd,
    child: Option<Child>,
}

/// A VMM opens sockets, images, a TAP and event loops: a few dozen. With the half million that daemons often inherit,
/// API sockets have stalled for seconds.
pub const OPEN_FILES: u64 = 2048;

impl Started {
    /// Finds what is needed to watch a child. `executable` is what `/proc/<pid>/exe` will say, where it does not say so
    /// yet.
    ///
    /// # Errors
    /// When the child is gone. It is ended in any case.
    pub fn find(child: Child, executable: Option<PathBuf>) -> io::Result<Self> {
        match identify(&child, executable) {
            Ok((identity, pidfd)) => Ok(Self { identity, pidfd, child: Some(child) }),
            Err(error) => {
                end_orphan(child);
                Err(error)
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// A descriptor that becomes readable when it has ended, for another process to watch.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    /// `at_end` runs once when it has ended, before anybody is told.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn watch(mut self, at_end: impl FnOnce() + Send + 'static) -> io::Result<Process> {
        let process = Process::watch(self.identity.clone(), self.pidfd.try_clone()?, at_end)?;
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

fn identify(child: &Child, executable: Option<PathBuf>) -> io::Result<(Identity, OwnedFd)> {
    let pidfd = rustix::process::pidfd_open(pid_of(child)?, PidfdFlags::NONBLOCK)?;
    let identity = match executable {
        Some(executable) => {
            Identity { pid: child.id(), start_ticks: start_ticks_of(child.id())?, executable }
        }
        None => Identity::read(child.id())?,
    };
    Ok((identity, pidfd))
}

fn pid_of(child: &Child) -> io::Result<Pid> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("the process has no pid"))
}

/// Limits what a child may open, and its core dumps, on the thread that started it. A child that has become another user
/// may be limited by whoever is that user, too: without CAP_SYS_RESOURCE this thread takes its id, and does nothing else
/// any more.
///
/// # Errors
/// When the kernel refuses. The child is ended then.
pub fn limited(child: Child, user: Option<u32>) -> io::Result<Child> {
    match pid_of(&child).and_then(|pid| limit(pid, user)) {
        Ok(()) => Ok(child),
        Err(error) => {
            end_orphan(child);
            Err(error)
        }
    }
}

fn limit(pid: Pid, user: Option<u32>) -> io::Result<()> {
    match (set_limits(pid), user) {
        (Err(rustix::io::Errno::PERM), Some(user)) => {
            let (root, user, group) = (Uid::ROOT, Uid::from_raw(user), Gid::from_raw(user));
            rustix::thread::set_thread_res_gid(group, Gid::ROOT, Gid::ROOT)?;
            rustix::thread::set_thread_res_uid(user, root, root)?;
            Ok(set_limits(pid)?)
        }
        (limits, _) => Ok(limits?),
    }
}

fn set_limits(pid: Pid) -> rustix::io::Result<()> {
    let exactly = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    for (resource, most) in [(Resource::Nofile, OPEN_FILES), (Resource::Core, 0)] {
        rustix::process::prlimit(Some(pid), resource, exactly(most))?;
    }
    Ok(())
}

impl Identity {
    fn of(handle: &VmHandle) -> Self {
        let VmHandle { pid, start_ticks, executable, .. } = handle.clone();
        Self { pid, start_ticks, executable }
    }

    /// Reads `/proc`.
    ///
    /// # Errors
    /// When no such process runs (a zombie has no executable).
    pub fn read(pid: u32) -> io::Result<Self> {
        let executable = std::fs::read_link(format!("/proc/{pid}/exe"))?;
        Ok(Self { pid, start_ticks: start_ticks_of(pid)?, executable })
    }
}

/// When a process was started, in clock ticks since boot.
///
/// # Errors
/// When no such process runs.
pub fn start_ticks_of(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    start_ticks(&stat).ok_or_else(|| io::Error::other("cannot read /proc/<pid>/stat"))
}

/// Field 22.
fn start_ticks(stat: &str) -> Option<u64> {
    fields_from_third(stat)?.nth(22 - 3)?.parse().ok()
}

/// Field 2 is the program's name in parentheses and may hold anything, so fields are counted from its end.
fn fields_from_third(stat: &str) -> Option<std::str::SplitWhitespace<'_>> {
    let (_, after_name) = stat.rsplit_once(')')?;
    Some(after_name.split_whitespace())
}

/// How long a process has run on processors since it started, in clock ticks (100 a second on Linux).
///
/// # Errors
/// When no such process runs.
pub fn cpu_ticks_of(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    cpu_ticks(&stat).ok_or_else(|| io::Error::other("cannot read /proc/<pid>/stat"))
}

/// Fields 14 and 15: in the program, and in the kernel on its behalf.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let field = |number: usize| fields_from_third(stat)?.nth(number - 3)?.parse::<u64>().ok();
    field(14)?.checked_add(field(15)?)
}

/// The real path of a program that is named by its path, or by its name in `PATH`.
///
/// # Errors
/// When there is no such file.
pub fn find_program(name: &Path) -> io::Result<PathBuf> {
    let candidates: Vec<PathBuf> = match name.components().count() {
        1 if !name.is_absolute() => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|folder| folder.join(name)).collect()
        }
        _ => vec![name.to_owned()],
    };
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?.canonicalize()
}

/// Runs `spawn` on a thread of its own: namespaces, capabilities and `no_new_privs` belong to a thread and are inherited
/// by what it starts, so there they can be entered or given up for the child without touching the daemon. A child that
/// nobody waits for any more is ended.
///
/// # Errors
/// That of `spawn`, or of the thread.
pub async fn spawn_on_own_thread(
    spawn: impl FnOnce() -> io::Result<Child> + Send + 'static,
) -> io::Result<Child> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("start-vmm".into()).spawn(move || {
        if let Err(Ok(orphan)) = tell.send(spawn()) {
            end_orphan(orphan);
        }
    })?;
    told.await.map_err(|_| io::Error::other("the thread that starts VMMs panicked"))?
}

/// Ends a VMM that nobody waits for any more.
pub fn end_orphan(mut orphan: Child) {
    let ended = orphan.kill().and_then(|()| orphan.wait());
    tracing::debug!(?ended, "ended a VMM whose start was given up");
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
    fn the_start_time_is_found_behind_any_program_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(start_ticks(stat), Some(4242));
        assert_eq!(start_ticks(""), None);
    }

    #[test]
    fn time_on_a_processor_is_counted_for_the_program_and_for_the_kernel() {
        let stat = "7 (a) b (c) S 4 5 6 7 8 9 10 11 12 13 140 1500 16 17 18 19 20 21 22";
        assert_eq!(cpu_ticks(stat), Some(1640));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        assert!(cpu_ticks_of(std::process::id()).is_ok());
    }

    #[test]
    fn a_process_has_the_same_identity_every_time_it_is_read() {
        let own = std::process::id();
        assert_eq!(Identity::read(own).unwrap(), Identity::read(own).unwrap());
    }
}
