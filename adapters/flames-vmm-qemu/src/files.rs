//! The names in a VM's run directory.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The sockets, in the order of the descriptors that QEMU finds them at.
pub(crate) const SOCKETS: [&str; 3] = [QMP, BOOT, CONSOLE];

/// QEMU's control protocol.
pub(crate) const QMP: &str = "qmp.sock";
/// The boot channel to the agent.
pub(crate) const BOOT: &str = "boot.sock";
/// The guest's console.
pub(crate) const CONSOLE: &str = "console.sock";
/// What QEMU prints.
pub(crate) const VMM_LOG: &str = "vmm.log";

/// Descriptor of the first socket inside QEMU; the others follow, and then the device state.
pub(crate) const FIRST_SOCKET_FD: i32 = 3;

/// Descriptor of the device state inside a QEMU that restores.
pub(crate) const DEVICE_STATE_FD: i32 = 6;

/// Descriptor of the first disk inside QEMU; the others follow.
pub(crate) const FIRST_DISK_FD: i32 = 7;

/// Longest path of a unix socket that Linux takes, without the closing zero.
const MAX_SOCKET_PATH: usize = 107;

/// True if the sockets of this run directory can be bound.
pub(crate) fn fits_sockets(run_dir: &Path) -> bool {
    run_dir.join(CONSOLE).as_os_str().len() <= MAX_SOCKET_PATH
}

/// Binds the sockets that QEMU will serve. Left-overs of a VM that is gone are replaced.
pub(crate) fn bind_sockets(run_dir: &Path) -> io::Result<Vec<UnixListener>> {
    SOCKETS.iter().map(|name| bind(run_dir.join(name))).collect()
}

fn bind(path: PathBuf) -> io::Result<UnixListener> {
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

/// Removes what only a living VMM may have in its run directory; the logs stay.
pub(crate) fn remove_live_files(run_dir: &Path) {
    for name in SOCKETS.iter().chain([&flames_vmm::HANDLE_FILE]) {
        if let Err(error) = std::fs::remove_file(run_dir.join(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(run_dir = %run_dir.display(), name, %error, "cannot remove a file of a VM that is gone");
        }
    }
}
