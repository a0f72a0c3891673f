//! The machine's clock, randomness and names.
#![allow(unsafe_code, reason = "the random device's ioctls have no safe wrapper")]

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const NANOS: i64 = 1_000_000_000;
/// `RNDADDENTROPY`: `_IOW('R', 3, int[2])`.
const ADD_ENTROPY: libc::Ioctl = 0x4008_5203;
/// `RNDRESEEDCRNG`: `_IO('R', 7)`.
const RESEED: libc::Ioctl = 0x5207;
/// The kernel's `struct rand_pool_info` with room for this many bytes.
const POOL_BYTES: usize = 512;

/// The wall clock.
pub(crate) fn now_unix_nanos() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map(nanos).unwrap_or_default()
}

fn nanos(time: TimeSpec) -> i64 {
    time.tv_sec() * NANOS + time.tv_nsec()
}

/// Sets the wall clock; gives how far it moved, in nanoseconds.
pub(crate) fn step_clock(unix_nanos: i64) -> nix::Result<i64> {
    let before = nanos(clock_gettime(ClockId::CLOCK_REALTIME)?);
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(unix_nanos / NANOS, unix_nanos % NANOS))?;
    Ok(unix_nanos - before)
}

/// The kernel's `struct rand_pool_info`.
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    size_bytes: libc::c_int,
    pool: [u8; POOL_BYTES],
}

/// Mixes bytes into the kernel's pool with full credit and makes its generator reseed from it at once.
/// Writing to the device would mix without credit, and clones would go on with equal numbers.
pub(crate) fn credit_entropy(bytes: &[u8]) -> nix::Result<()> {
    let device = File::options().write(true).open("/dev/urandom").map_err(errno)?;
    for part in bytes.chunks(POOL_BYTES) {
        add_entropy(&device, part)?;
    }
    // SAFETY: the descriptor is open, and this call takes no argument.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), RESEED) }).map(drop)
}

fn add_entropy(device: &File, bytes: &[u8]) -> nix::Result<()> {
    let size = libc::c_int::try_from(bytes.len()).map_err(|_| Errno::EINVAL)?;
    let mut info = PoolInfo { entropy_bits: size * 8, size_bytes: size, pool: [0; POOL_BYTES] };
    info.pool[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: the descriptor is open; `info` has the kernel's layout, holds `size_bytes` bytes, and lives
    // through the call, which only reads it.
    let added = Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), ADD_ENTROPY, &info) }).map(drop);
    zeroize::Zeroize::zeroize(&mut info.pool);
    added
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Gives the system a new identity, and says which: 32 hexadecimal digits of a random UUID (version 4).
pub(crate) fn renew_machine_id(root: &Path) -> io::Result<String> {
    let mut id = [0; 16];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let text: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    write_own(&root.join("etc"), "machine-id", &format!("{text}\n"))?;
    Ok(text)
}

/// Writes `/etc/hostname`, and the name's line in `/etc/hosts`.
pub(crate) fn write_hostname(root: &Path, name: &str) -> io::Result<()> {
    let etc = root.join("etc");
    write_own(&etc, "hostname", &format!("{name}\n"))?;
    write_own(&etc, "hosts", &with_own_name(&read_or(&etc, "hosts", HOSTS)?, name))
}

const HOSTS: &str = "127.0.0.1 localhost\n";

/// Puts files of the sandbox's own in place of the image's, with the same content: done before a snapshot is
/// taken, so that none of its clones pays for it.
pub(crate) fn take_over_identity(root: &Path) -> io::Result<()> {
    let etc = root.join("etc");
    for (name, otherwise) in
        [("hostname", "localhost\n"), ("hosts", HOSTS), ("machine-id", "uninitialized\n")]
    {
        replace(&etc, name, &read_or(&etc, name, otherwise)?)?;
    }
    Ok(())
}

fn read_or(dir: &Path, name: &str, otherwise: &str) -> io::Result<String> {
    match std::fs::read_to_string(dir.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(otherwise.to_owned()),
        read => read,
    }
}

/// Overwrites a file that is there. A file made anew and renamed would cost five times as much.
fn write_own(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    // No link is followed, and a pipe nobody reads is not waited for.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = File::options().write(true).custom_flags(flags).open(dir.join(name));
    let Ok(mut file) = opened else { return replace(dir, name, text) };
    let found = file.metadata()?;
    if !found.is_file() {
        return replace(dir, name, text);
    }
    file.write_all(text.as_bytes())?;
    let length = u64::try_from(text.len()).map_err(io::Error::other)?;
    if found.len() > length { file.set_len(length) } else { Ok(()) }
}

/// Puts a new file in place of what was there. Writing into the image's own file would first copy it to the
/// sandbox's disk and wait for the disk.
fn replace(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = dir.join(format!(".{name}.new"));
    match std::fs::write(&new, text) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(dir)?;
            std::fs::write(&new, text)?;
        }
        written => written?,
    }
    std::fs::rename(new, dir.join(name))
}

/// Debian's convention: the machine's own name is the one on 127.0.1.1.
fn with_own_name(hosts: &str, name: &str) -> String {
    let others = hosts.lines().filter(|line| line.split_whitespace().next() != Some("127.0.1.1"));
    let mut text: String = others.flat_map(|line| [line, "\n"]).collect();
    text.push_str(&format!("127.0.1.1 {name}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_name_is_replaced_and_the_rest_of_hosts_is_kept() {
        let first = with_own_name("127.0.0.1 localhost\n127.0.1.1 old\n10.0.0.1 db", "new");
        assert_eq!(first, "127.0.0.1 localhost\n10.0.0.1 db\n127.0.1.1 new\n");
        assert_eq!(with_own_name(&first, "new"), first);
    }

    #[test]
    fn files_are_overwritten_whole_and_links_are_replaced_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(root.path().join(name)).unwrap();
        std::fs::write(root.path().join("long"), "a long line\n").unwrap();
        std::fs::write(root.path().join("target"), "kept").unwrap();
        std::os::unix::fs::symlink("target", root.path().join("link")).unwrap();
        for name in ["long", "link", "missing"] {
            write_own(root.path(), name, "new\n").unwrap();
            assert_eq!(read(name), "new\n");
        }
        assert_eq!(read("target"), "kept");
    }

    #[test]
    fn taking_over_keeps_what_the_image_says() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/hosts"), "10.0.0.1 db\n").unwrap();
        take_over_identity(root.path()).unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join("etc/hosts")).unwrap(), "10.0.0.1 db\n");
        assert!(root.path().join("etc/machine-id").exists());
    }

    #[test]
    fn machine_ids_are_well_formed_and_new_each_time() {
        let root = tempfile::tempdir().unwrap();
        let renew = || {
            renew_machine_id(root.path()).unwrap();
            std::fs::read_to_string(root.path().join("etc/machine-id")).unwrap()
        };
        let (first, second) = (renew(), renew());
        assert_ne!(first, second);
        assert_eq!(first.trim().len(), 32);
        assert_eq!(&first[12..13], "4");
    }
}
