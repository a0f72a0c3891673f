//! File systems: from the agent's own read-only disk to the sandbox's root.
//!
//! ```text
//! /dev/vda  erofs, read-only   the agent alone; the kernel's root until the switch
//! /dev/vdb  read-only          the template image       -> /rom  lower directory
//! /dev/vdc  ext4, writable     this sandbox's own disk  -> /rw   upper and work directory
//! overlay of the two           -> /newroot, which becomes /
//! ```

use super::BootError;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::Path;

/// What reading the command line and opening the boot channel need.
pub(super) fn early() -> Result<(), BootError> {
    let hardened = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    attach("proc", "/proc", "proc", hardened, "")?;
    attach("sysfs", "/sys", "sysfs", hardened, "")?;
    attach("devtmpfs", "/dev", "devtmpfs", MsFlags::MS_NOSUID, "mode=0755")?;
    attach("tmpfs", "/run", "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=0755")
}

/// The sandbox's own disk, held by a descriptor: after the switch no path leads to it.
#[derive(Debug)]
pub(crate) struct OwnDisk(File);

impl OwnDisk {
    fn mount() -> Result<Self, BootError> {
        // A new disk reads as zeros: no thread needs to write inode tables or read bitmaps in the background, in every
        // clone of a young guest again.
        attach(
            "/dev/vdc",
            "/rw",
            "ext4",
            MsFlags::MS_NOATIME,
            "noinit_itable,no_prefetch_block_bitmaps,noauto_da_alloc",
        )?;
        File::open("/rw").map(Self).map_err(|error| BootError::new("open /rw", error))
    }

    /// The descriptor that stands for the file system.
    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// Writes everything out and makes the file system read-only, so that whoever mounts the disk next finds
    /// it clean and has no journal to replay. Refused while a file is open for writing.
    pub(crate) fn make_clean(&self) -> Result<(), BootError> {
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, path.as_str(), None::<&str>, flags, None::<&str>)
            .map_err(|error| BootError::new("make the sandbox's disk read-only", error))
    }
}

/// Builds the overlay and makes it `/`, with `/proc`, `/sys`, `/dev` and `/run` moved along.
pub(super) fn switch_root() -> Result<OwnDisk, BootError> {
    mount_image("/dev/vdb", "/rom")?;
    let disk = OwnDisk::mount()?;
    make_dir("/rw/upper", 0o755)?;
    make_dir("/rw/work", 0o700)?;
    attach(
        "overlay",
        "/newroot",
        "overlay",
        MsFlags::MS_NOATIME,
        "lowerdir=/rom,upperdir=/rw/upper,workdir=/rw/work,redirect_dir=on",
    )?;
    for name in ["proc", "sys", "dev", "run"] {
        let target = format!("/newroot/{name}");
        make_dir(&target, 0o755)?;
        move_mount(&format!("/{name}"), &target)?;
    }
    enter("/newroot")?;
    Ok(disk)
}

/// What a distribution's programs expect to find mounted.
pub(super) fn late() -> Result<(), BootError> {
    make_dir("/tmp", 0o1777)?;
    make_dir("/dev/pts", 0o755)?;
    make_dir("/dev/shm", 0o1777)?;
    let no_exec = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    attach("devpts", "/dev/pts", "devpts", no_exec, "gid=5,mode=0620,ptmxmode=0666")?;
    attach("tmpfs", "/dev/shm", "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777")?;
    control_groups(no_exec | MsFlags::MS_NODEV)?;
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        tolerate(symlink(target, link), &[io::ErrorKind::AlreadyExists])
            .map_err(|error| BootError::new(format!("link {link}"), error))?;
    }
    Ok(())
}

/// A kernel without control groups has no such directory, and nothing here depends on them.
fn control_groups(flags: MsFlags) -> Result<(), BootError> {
    if Path::new("/sys/fs/cgroup").exists() {
        return attach("cgroup2", "/sys/fs/cgroup", "cgroup2", flags, "");
    }
    Ok(())
}

/// The template image is whatever read-only format the builder chose.
fn mount_image(device: &str, target: &str) -> Result<(), BootError> {
    let mut last = Errno::EINVAL;
    for format in ["erofs", "squashfs", "ext4"] {
        match mount(
            Some(device),
            target,
            Some(format),
            MsFlags::MS_RDONLY | MsFlags::MS_NOATIME,
            None::<&str>,
        ) {
            Ok(()) => return Ok(()),
            // EINVAL: another format. ENODEV: the kernel does not have this one.
            Err(error @ (Errno::EINVAL | Errno::ENODEV)) => last = error,
            Err(error) => return Err(BootError::new(format!("mount {device} ({format})"), error)),
        }
    }
    Err(BootError::new(format!("mount {device}: no known image format"), last))
}

fn attach(source: &str, target: &str, format: &str, flags: MsFlags, options: &str) -> Result<(), BootError> {
    match mount(Some(source), target, Some(format), flags, Some(options)) {
        // The kernel may have mounted devtmpfs already.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(BootError::new(format!("mount {source} on {target}"), error)),
    }
}

fn move_mount(from: &str, to: &str) -> Result<(), BootError> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|error| BootError::new(format!("move {from} to {to}"), error))
}

/// Makes `root` the root of everything. The agent's disk stays mounted below it, out of anyone's reach.
fn enter(root: &str) -> Result<(), BootError> {
    let failed = |error: Errno| BootError::new(format!("switch root to {root}"), error);
    nix::unistd::chdir(root).map_err(failed)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(failed)?;
    nix::unistd::chroot(".").map_err(failed)?;
    nix::unistd::chdir("/").map_err(failed)
}

/// Makes a directory unless the image has it: then it stays as the image has it.
fn make_dir(path: &str, mode: u32) -> Result<(), BootError> {
    let failed = |error: io::Error| BootError::new(format!("make {path}"), error);
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed),
        made => tolerate(made, &[io::ErrorKind::AlreadyExists]).map_err(failed),
    }
}

fn tolerate(result: io::Result<()>, kinds: &[io::ErrorKind]) -> io::Result<()> {
    match result {
        Err(error) if kinds.contains(&error.kind()) => Ok(()),
        other => other,
    }
}
