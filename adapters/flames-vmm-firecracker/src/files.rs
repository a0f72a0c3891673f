//! The names in a VM's run directory, and in the directory that Firecracker works in (its cage).
//!
//! Firecracker is told relative names only, and they are the same for every VM: a snapshot holds the names of
//! its disks, and so a clone finds its own.

use std::io;
use std::path::{Path, PathBuf};

/// In the run directory: what the guest reads from its serial console.
pub(crate) const CONSOLE_IN: &str = "console.in";
/// In the run directory: what the guest writes to it.
pub(crate) const CONSOLE_OUT: &str = "console.out";
/// In the run directory: what Firecracker logs.
pub(crate) const VMM_LOG: &str = "vmm.log";
/// In the run directory: what the jailer or Firecracker print when they fail.
pub(crate) const STDERR: &str = "vmm.stderr";
/// In the run directory: the newest metrics, one JSON object a line.
pub(crate) const METRICS_LOG: &str = "metrics.log";
/// In the run directory: what holds the cage of a jailed VM.
pub(crate) const JAIL: &str = "jail";
/// In the run directory: the cage of a VM without a jail.
pub(crate) const OPEN_CAGE: &str = "cage";

/// In the cage, and by a link of the same name in the run directory: Firecracker's API.
pub(crate) const API: &str = "api.sock";
/// In the cage: where Firecracker's log comes from.
pub(crate) const LOG_PIPE: &str = "log.pipe";
/// In the cage: where its metrics come from.
pub(crate) const METRICS_PIPE: &str = "metrics.pipe";
/// In the cage: the guest's kernel.
pub(crate) const KERNEL: &str = "kernel";
/// In the cage: the seccomp filter, if one is given.
pub(crate) const SECCOMP: &str = "seccomp.bpf";
/// In the cage: device state of the snapshot to restore.
pub(crate) const STATE: &str = "state";
/// In the cage: memory of the snapshot to restore.
pub(crate) const MEMORY: &str = "memory";
/// In the cage: device state of a snapshot in the making.
pub(crate) const NEW_STATE: &str = "new.state";
/// In the cage: memory of a snapshot in the making.
pub(crate) const NEW_MEMORY: &str = "new.memory";

/// In the cage: where Firecracker hands over its memory to a page-fault handler.
pub(crate) const FAULTS: &str = "faults.sock";
/// In the run directory: what the page-fault handler says.
pub(crate) const FAULTS_LOG: &str = "faults.log";
/// In the run directory: an empty folder, in whose place the handler's root directory is.
pub(crate) const NOTHING: &str = "nothing";

/// Longest path of a unix socket that Linux takes, without the closing zero.
const MAX_SOCKET_PATH: usize = 107;

/// In the cage: a disk of the guest.
pub(crate) fn disk(index: usize) -> String {
    format!("disk-{index}")
}

/// True if the API can be reached through this run directory.
pub(crate) fn fits_socket(run_dir: &Path) -> bool {
    run_dir.join(API).as_os_str().len() <= MAX_SOCKET_PATH
}

/// Where a VM's Firecracker works.
pub(crate) fn cage(run_dir: &Path, jailed_as: Option<(&Path, &str)>) -> PathBuf {
    match jailed_as {
        // The jailer's own rule.
        Some((program, id)) => {
            let name = program.file_name().unwrap_or_default();
            run_dir.join(JAIL).join(name).join(id).join("root")
        }
        None => run_dir.join(OPEN_CAGE),
    }
}

/// Removes what only a living VMM may have in its run directory; the logs stay. Nothing is mounted in the
/// cage as this process sees it: the mounts are in the VMM's own namespace and went with it.
pub(crate) fn remove_live_files(run_dir: &Path) {
    for name in [API, CONSOLE_IN, CONSOLE_OUT, flames_vmm::HANDLE_FILE] {
        told(run_dir, name, std::fs::remove_file(run_dir.join(name)));
    }
    for name in [JAIL, OPEN_CAGE, NOTHING] {
        told(run_dir, name, std::fs::remove_dir_all(run_dir.join(name)));
    }
}

fn told(run_dir: &Path, name: &str, removed: io::Result<()>) {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(run_dir = %run_dir.display(), name, %error, "cannot remove what a VM left");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cage_is_where_the_jailer_puts_it() {
        let run_dir = Path::new("/run/vm");
        let jailed = cage(run_dir, Some((Path::new("/usr/bin/firecracker"), "vm-1")));
        assert_eq!(jailed, Path::new("/run/vm/jail/firecracker/vm-1/root"));
        assert_eq!(cage(run_dir, None), Path::new("/run/vm/cage"));
    }
}
