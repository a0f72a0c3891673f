//! Starts QEMU's process with nothing of ours but what it needs.

use crate::files;
use command_fds::{CommandFdExt, FdMapping};
use flames_vmm::jail::{self, Belongings, Enforcement, Lease, Net, Openable, Room};
use flames_vmm::process::{Started, limited, spawn_on_own_thread};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
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
    pub(crate) place: Place,
    pub(crate) openable: Openable,
}

/// Where to start it.
#[derive(Debug)]
pub(crate) enum Place {
    /// In a jail, with what is the VM's own.
    Jail(Room, Belongings),
    /// In the daemon's own namespaces but for the network.
    Open(Net),
}

/// Starts the program. A jailed one has the lease of its jail.
pub(crate) async fn start(launch: Launch) -> io::Result<(Started, Option<Lease>)> {
    let (run_dir, openable) = (launch.run_dir.clone(), launch.openable.clone());
    let (mut command, place) = command(launch)?;
    // Ours are all close-on-exec already; this is for what the daemon itself was started with.
    close_fds::set_fds_cloexec(3, &[]);
    let (child, lease) = match place {
        Place::Jail(room, belongings) => {
            let owner = room.lease().uid();
            // The last act before the program: without supplementary groups, which the standard library sees to.
            command.current_dir("/").uid(owner).gid(owner);
            let spawn = move || spawn(command, &openable, Some(owner));
            let (child, lease) = room.start(belongings, spawn).await?;
            (child, Some(lease))
        }
        Place::Open(net) => {
            command.current_dir(run_dir);
            let spawn = move || jail::enter_network(&net).and_then(|()| spawn(command, &openable, None));
            (spawn_on_own_thread(spawn).await?, None)
        }
    };
    Ok((Started::find(child, None)?, lease))
}

/// Everything is opened here: where it is started, paths may mean something else.
fn command(launch: Launch) -> io::Result<(Command, Place)> {
    let log = File::options().create(true).append(true).open(launch.run_dir.join(files::VMM_LOG))?;
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        .env_clear()
        .stdin(File::open("/dev/null")?)
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: Ctrl-C at the daemon's terminal is not for its VMs.
        .process_group(0)
        .fd_mappings(mappings(launch.sockets, launch.device_state, launch.disks))
        .map_err(io::Error::other)?;
    Ok((command, launch.place))
}

/// On the thread that is where the VM belongs.
fn spawn(mut command: Command, openable: &Openable, owner: Option<u32>) -> io::Result<Child> {
    jail::give_up_rights()?;
    restrict(openable)?;
    limited(command.spawn()?, owner)
}

fn restrict(openable: &Openable) -> io::Result<()> {
    static TOLD: Once = Once::new();
    if jail::restrict(openable)? == Enforcement::Lacking {
        TOLD.call_once(|| {
            tracing::warn!("this kernel has no landlock: VMs go without that layer");
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
