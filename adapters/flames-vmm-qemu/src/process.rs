//! Starts QEMU's process with nothing of ours but what it needs.

use crate::files;
use command_fds::{CommandFdExt, FdMapping};
use flames_vmm::process::{Identity, Process, end_orphan, spawn_on_own_thread};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit};
use rustix::thread::{CapabilitySet, LinkNameSpaceType};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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

/// Starts the program and watches it. When it has ended, its sockets go from the run directory.
pub(crate) async fn start(launch: Launch) -> io::Result<Process> {
    let run_dir = launch.run_dir.clone();
    let child = spawn_on_own_thread(move || spawn(launch)).await?;
    let at_end = move || files::remove_live_files(&run_dir);
    match limited(&child).and_then(|(identity, pidfd)| Process::watch(identity, pidfd, at_end)) {
        Ok(process) => Ok(process),
        Err(error) => {
            end_orphan(child);
            Err(error)
        }
    }
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
