//! Starts QEMU's process with nothing of ours but what it needs.

use crate::files;
use command_fds::{CommandFdExt, FdMapping};
use flames_vmm::jail::{self, Cage, Enforcement, Net, Openable};
use flames_vmm::process::{Started, limited, spawn_on_own_thread};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Once;

/// What to start, and with what.
#[derive(Debug)]
pub(crate) struct Launch {
    /// Its absolute path.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) run_dir: PathBuf,
    /// Given to it from [`files::FIRST_SOCKET_FD`] on.
    pub(crate) sockets: Vec<UnixListener>,
    /// Given to it as [`files::DEVICE_STATE_FD`].
    pub(crate) device_state: Option<File>,
    /// Given to it from [`files::FIRST_DISK_FD`] on.
    pub(crate) disks: Vec<File>,
    pub(crate) net: Net,
    /// Its root directory and its user; the daemon's, if there is none.
    pub(crate) cage: Option<Cage>,
    pub(crate) openable: Openable,
}

/// Starts the program.
pub(crate) async fn start(launch: Launch) -> io::Result<Started> {
    let child = spawn_on_own_thread(move || spawn(launch)).await?;
    Started::find(child, None)
}

fn spawn(launch: Launch) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(launch.run_dir.join(files::VMM_LOG))?;
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        .env_clear()
        // Opened here: there is none in a cage before QEMU's own user is in it.
        .stdin(File::open("/dev/null")?)
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: Ctrl-C at the daemon's terminal is not for its VMs.
        .process_group(0)
        .fd_mappings(mappings(launch.sockets, launch.device_state, launch.disks))
        .map_err(io::Error::other)?;
    // Ours are all close-on-exec already; this is for what the daemon itself was started with.
    close_fds::set_fds_cloexec(3, &[]);
    match &launch.cage {
        Some(cage) => {
            jail::enter_namespaces(&launch.net)?;
            cage.enter()?;
            // The last act before the program: without supplementary groups, which the standard library sees to.
            command.current_dir("/").uid(cage.owner).gid(cage.owner);
        }
        None => {
            jail::enter_network(&launch.net)?;
            command.current_dir(&launch.run_dir);
        }
    }
    jail::give_up_rights()?;
    restrict(&launch.openable, &launch.run_dir)?;
    limited(command.spawn()?, launch.cage.map(|cage| cage.owner))
}

fn restrict(openable: &Openable, run_dir: &Path) -> io::Result<()> {
    static TOLD: Once = Once::new();
    if jail::restrict(openable)? == Enforcement::Lacking {
        TOLD.call_once(|| {
            tracing::warn!(run_dir = %run_dir.display(), "this kernel has no landlock: VMs go without that layer");
        });
    }
    Ok(())
}

fn mappings(sockets: Vec<UnixListener>, device_state: Option<File>, disks: Vec<File>) -> Vec<FdMapping> {
    let map = |(parent_fd, child_fd): (OwnedFd, i32)| FdMapping { parent_fd, child_fd };
    let sockets = sockets.into_iter().map(OwnedFd::from).zip(files::FIRST_SOCKET_FD..);
    let device_state = device_state.map(|file| (OwnedFd::from(file), files::DEVICE_STATE_FD));
    let disks = disks.into_iter().map(OwnedFd::from).zip(files::FIRST_DISK_FD..);
    sockets.chain(device_state).chain(disks).map(map).collect()
}
