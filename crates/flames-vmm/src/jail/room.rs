//! A jail that waits for its VM: namespaces and a furnished root directory, on a thread that is in them already.
//!
//! What is the VM's own (its network, its files, its devices) comes in when it is started, as open descriptors: in the
//! room no path of the host's means anything any more.

use super::cage::{Access, Cage, Mount, Net, read_only_root, remount};
use super::lease::Lease;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, FileType, Gid, Mode, Uid, chownat, mknodat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::thread::LinkNameSpaceType;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Child;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::oneshot;

/// A jail that waits. Gone when dropped.
#[derive(Debug)]
pub struct Room {
    lease: Lease,
    orders: SyncSender<Order>,
}

/// What a VM brings into its room.
#[derive(Debug)]
pub struct Belongings {
    network: Network,
    files: Vec<(OwnedFd, Mount)>,
    devices: Vec<(PathBuf, u64)>,
    owner: u32,
}

#[derive(Debug)]
enum Network {
    Own,
    Host,
    Of(File),
}

struct Order {
    belongings: Belongings,
    spawn: Box<dyn FnOnce() -> io::Result<Child> + Send>,
    answer: oneshot::Sender<io::Result<Child>>,
}

impl Room {
    /// Makes one. Blocks for one or two milliseconds.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make(lease: Lease, cage: Cage) -> io::Result<Self> {
        let (orders, inbox) = sync_channel(1);
        let (made, is_made) = sync_channel(1);
        std::thread::Builder::new().name("jail".into()).spawn(move || live(&cage, &made, &inbox))?;
        is_made.recv().map_err(|_| io::Error::other("the thread that makes jails panicked"))??;
        Ok(Self { lease, orders })
    }

    /// Whose it is.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Brings the VM's own in, and starts it with `spawn`, which runs inside. A child that nobody waits for any more is
    /// ended.
    ///
    /// # Errors
    /// When the kernel refuses, or that of `spawn`.
    pub async fn start(
        self,
        belongings: Belongings,
        spawn: impl FnOnce() -> io::Result<Child> + Send + 'static,
    ) -> io::Result<(Child, Lease)> {
        let gone = || io::Error::other("the thread of a jail is gone");
        let (answer, answered) = oneshot::channel();
        let order = Order { belongings, spawn: Box::new(spawn), answer };
        self.orders.send(order).map_err(|_| gone())?;
        let child = answered.await.map_err(|_| gone())??;
        Ok((child, self.lease))
    }
}

impl Belongings {
    /// Opens them, where they still have names.
    ///
    /// # Errors
    /// When one does not exist.
    pub fn gather(net: &Net, files: &[Mount], devices: &[PathBuf], owner: u32) -> io::Result<Self> {
        let network = match net {
            Net::Own => Network::Own,
            Net::Host => Network::Host,
            Net::Named(path) => Network::Of(File::open(path)?),
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let opened = |mount: &Mount| {
            let tree = open_tree(CWD, &mount.from, flags).map_err(|error| {
                io::Error::other(format!("cannot mount {} into the jail: {error}", mount.from.display()))
            })?;
            Ok((tree, mount.clone()))
        };
        let files = files.iter().map(opened).collect::<io::Result<_>>()?;
        let number = |device: &PathBuf| Ok((device.clone(), std::fs::metadata(device)?.rdev()));
        let devices = devices.iter().map(number).collect::<io::Result<_>>()?;
        Ok(Self { network, files, devices, owner })
    }

    fn bring_in(self) -> io::Result<()> {
        match self.network {
            Network::Own => unshare(CloneFlags::CLONE_NEWNET)?,
            Network::Host => {}
            Network::Of(namespace) => rustix::thread::move_into_link_name_space(
                namespace.as_fd(),
                Some(LinkNameSpaceType::Network),
            )?,
        }
        for (tree, Mount { to, access, .. }) in self.files {
            // Never opened: a child that another thread starts would have it open for writing for a moment, and the
            // root could not be made read-only.
            mknodat(CWD, &to, FileType::RegularFile, Mode::RUSR, 0)?;
            move_mount(tree.as_fd(), "", CWD, &to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            remount(&to, access)?;
        }
        let owner = (Some(Uid::from_raw(self.owner)), Some(Gid::from_raw(self.owner)));
        for (device, number) in self.devices {
            if let Some(folder) = device.parent() {
                std::fs::create_dir_all(folder)?;
            }
            mknodat(CWD, &device, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, number)?;
            chownat(CWD, &device, owner.0, owner.1, rustix::fs::AtFlags::empty())?;
        }
        read_only_root()
    }
}

/// The life of a room's thread: one VM at most.
fn live(cage: &Cage, made: &SyncSender<io::Result<()>>, inbox: &Receiver<Order>) {
    if made.send(cage.enter()).is_err() {
        return;
    }
    let Ok(Order { belongings, spawn, answer }) = inbox.recv() else { return };
    let child = belongings.bring_in().and_then(|()| spawn());
    if let Err(Ok(orphan)) = answer.send(child) {
        crate::process::end_orphan(orphan);
    }
}

/// What a file of a VM may be used for.
impl Mount {
    /// One that is seen under another name.
    pub fn new(from: impl Into<PathBuf>, to: impl Into<PathBuf>, access: Access) -> Self {
        Self { from: from.into(), to: to.into(), access }
    }
}
