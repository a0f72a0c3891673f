//! Namespaces, and a root directory that holds only what a VMM needs.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::pivot_root;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::thread::LinkNameSpaceType;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A root directory in memory, which only its VM sees.
#[derive(Clone, Debug)]
pub struct Cage {
    /// An existing folder that is hidden by it, for this VM alone.
    pub over: PathBuf,
    /// What it holds of the host.
    pub mounts: Vec<Mount>,
}

/// A file of the host that is seen in a cage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The host's file.
    pub from: PathBuf,
    /// Its absolute path.
    pub to: PathBuf,
    /// What may be done with it.
    pub access: Access,
}

/// What a VMM may do with what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Shared with others: the mount itself forbids more.
    Read,
    /// Also to write.
    Write,
    /// To read it and to run it.
    Execute,
}

/// Which network namespace a VMM is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    /// One of its own, with nothing in it.
    Own,
    /// That with this path.
    Named(PathBuf),
    /// The daemon's: for a VMM that forwards a port of the host's.
    Host,
}

/// Brings this thread, and what it starts, into namespaces of its own. Mounts that are made from here on are seen
/// nowhere else.
///
/// # Errors
/// When the kernel refuses, or there is no such network namespace.
pub fn enter_namespaces(net: &Net) -> io::Result<()> {
    let mut own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    own |= CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if *net == Net::Own {
        own |= CloneFlags::CLONE_NEWNET;
    }
    enter_network(net)?;
    unshare(own)?;
    let nothing = None::<&Path>;
    mount(nothing, Path::new("/"), nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    Ok(())
}

/// Enters a network namespace, if one is named.
///
/// # Errors
/// When there is none of that name, or the kernel refuses.
pub fn enter_network(net: &Net) -> io::Result<()> {
    let Net::Named(path) = net else { return Ok(()) };
    let namespace = File::open(path)?;
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Mounts a file over another, which must exist.
///
/// # Errors
/// When the kernel refuses; it names the file.
pub fn bind(from: &Path, over: &Path, access: Access) -> io::Result<()> {
    let nothing = None::<&Path>;
    let named = |error: nix::Error| {
        io::Error::other(format!("cannot mount {} into the jail: {error}", from.display()))
    };
    mount(Some(from), over, nothing, MsFlags::MS_BIND, nothing).map_err(named)?;
    remount(over, access).map_err(|error| io::Error::other(format!("{}: {error}", from.display())))
}

/// What may be done with what is mounted there.
pub(super) fn remount(at: &Path, access: Access) -> io::Result<()> {
    let nothing = None::<&Path>;
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    if access != Access::Execute {
        flags |= MsFlags::MS_NOEXEC;
    }
    if access != Access::Write {
        flags |= MsFlags::MS_RDONLY;
    }
    Ok(mount(nothing, at, nothing, flags, nothing)?)
}

/// Lets the users of other VMs read a file of the daemon's, or also write it: each VM has its own. Who may reach it at
/// all is said by the folder that holds it.
///
/// # Errors
/// When the file is gone, or not the daemon's.
pub fn open_to_others(file: &Path, access: Access) -> io::Result<()> {
    let wanted = if access == Access::Write { 0o666 } else { 0o644 };
    let mode = std::fs::metadata(file)?.permissions().mode();
    if mode & wanted == wanted {
        return Ok(());
    }
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode | wanted))
}

impl Cage {
    /// Makes it in namespaces of its own, and makes it the root directory of this thread and of what it starts. It can be
    /// added to until [`read_only_root`].
    pub(super) fn enter(&self) -> io::Result<()> {
        enter_namespaces(&Net::Host)?;
        mount(Some("cage"), &self.over, Some("tmpfs"), ROOT, Some("mode=755,size=1m"))?;
        self.mounts.iter().try_for_each(|item| self.furnish(item))?;
        leave_the_old_root(&self.over)
    }

    fn furnish(&self, item: &Mount) -> io::Result<()> {
        let over = self.inside(&item.to)?;
        // Never opened: a child that another thread starts would have it open for writing for a moment, and the root
        // could not be made read-only.
        mknodat(CWD, &over, FileType::RegularFile, Mode::RUSR, 0)?;
        bind(&item.from, &over, item.access)
    }

    /// Where a path of the cage is before it is the root; its folder is made.
    fn inside(&self, path: &Path) -> io::Result<PathBuf> {
        let path = self.over.join(path.strip_prefix("/").unwrap_or(path));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(path)
    }
}

/// Gives this process an empty root directory that nothing can be added to. It must be in a mount namespace of its own
/// already; `over` is an existing folder of it, which need not be empty.
///
/// # Errors
/// When the kernel refuses.
pub fn leave_the_host(over: &Path) -> io::Result<()> {
    mount(Some("nothing"), over, Some("tmpfs"), ROOT, Some("mode=755,size=4k"))?;
    leave_the_old_root(over)?;
    read_only_root()
}

const ROOT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);

/// From here on nothing can be added to the root directory.
pub(super) fn read_only_root() -> io::Result<()> {
    let flags = ROOT | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    let nothing = None::<&Path>;
    Ok(mount(nothing, Path::new("/"), nothing, flags, nothing)?)
}

/// Both roots are mounted at one place for a moment; the old one, on top, is taken away.
fn leave_the_old_root(new: &Path) -> io::Result<()> {
    nix::unistd::chdir(new)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(nix::unistd::chdir("/")?)
}
