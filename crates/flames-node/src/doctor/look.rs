//! Looking at the machine, without judging.

use nix::libc;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// What a program says of its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProgramVersion {
    pub(super) line: String,
    major: u32,
    minor: u32,
}

impl ProgramVersion {
    /// The first `N.N` of the first line.
    pub(super) fn parse(output: &str) -> Option<Self> {
        let line = output.lines().next()?.trim();
        let pairs = line.split(|c: char| !(c.is_ascii_digit() || c == '.')).filter(|word| word.contains('.'));
        let (major, minor) = pairs.into_iter().find_map(|word| {
            let mut numbers = word.split('.');
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        })?;
        Some(Self { line: line.to_owned(), major, minor })
    }

    pub(super) fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

/// The version of a program; `None` if it does not start.
pub(super) async fn version(program: &str, argument: &str) -> Option<ProgramVersion> {
    let output =
        Command::new(program).arg(argument).stdin(Stdio::null()).kill_on_drop(true).output().await.ok()?;
    // Some programs tell their version on standard error.
    let both = [output.stdout, output.stderr].concat();
    ProgramVersion::parse(&String::from_utf8_lossy(&both))
}

pub(super) fn exists_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Why a device does not open for reading and writing; `None` if it does.
pub(super) fn open_error(path: &Path) -> Option<String> {
    OpenOptions::new().read(true).write(true).open(path).err().map(|error| error.to_string())
}

/// Free bytes where a path is or would be.
pub(super) fn available_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// How many files this process may have open.
pub(super) fn file_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Which page faults this process may handle itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UserFaults {
    All,
    UserOnly,
    None,
}

pub(super) fn user_faults() -> UserFaults {
    const USER_MODE_ONLY: libc::c_int = 1;
    if userfaultfd_opens(0) {
        return UserFaults::All;
    }
    if userfaultfd_opens(USER_MODE_ONLY) { UserFaults::UserOnly } else { UserFaults::None }
}

#[allow(unsafe_code)]
fn userfaultfd_opens(flags: libc::c_int) -> bool {
    // SAFETY: the call takes flags alone and touches no memory of ours.
    let descriptor = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | flags) };
    let Ok(descriptor @ 0..) = libc::c_int::try_from(descriptor) else { return false };
    // SAFETY: the descriptor was opened above and belongs to nobody else.
    unsafe { libc::close(descriptor) == 0 }
}

/// The switch that lets a host forward.
pub(super) fn forwards() -> Option<String> {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (line, major, minor) in [
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", 7, 2),
            ("nftables v1.0.6 (Lester Gooch #5)", 1, 0),
            ("mke2fs 1.47.0 (5-Feb-2023)", 1, 47),
        ] {
            let version = ProgramVersion::parse(line).unwrap();
            assert_eq!((version.major, version.minor), (major, minor), "{line}");
        }
        assert_eq!(ProgramVersion::parse("no version"), None);
    }
}
