//! Starts Firecracker's process with nothing of ours but what it needs.

use crate::files;
use crate::jail::{self, Mount};
use crate::left::Resources;
use flames_vmm::process::{Identity, Process, end_orphan, spawn_on_own_thread, start_ticks_of};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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

/// Starts the program.
pub(crate) async fn start(launch: Launch) -> io::Result<Started> {
    let executable = launch.executable.clone();
    let child = spawn_on_own_thread(move || spawn(launch)).await?;
    match limited(&child, executable) {
        Ok((identity, pidfd)) => Ok(Started { identity, pidfd, child: Some(child) }),
        Err(error) => {
            end_orphan(child);
            Err(error)
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
        let process =
            Process::watch(self.identity.clone(), self.pidfd.try_clone()?, move || resources.give_back())?;
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
