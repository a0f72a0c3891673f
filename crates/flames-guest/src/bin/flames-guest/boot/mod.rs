//! From the kernel's first instruction of user space to a root file system, a network and a listening port.
//!
//! Every step that fails is reported over the boot channel, and the machine ends.

mod channel;
mod cmdline;
mod console;
mod mounts;
mod network;
mod uevents;

pub(crate) use channel::BootChannel;
pub(crate) use mounts::OwnDisk;
pub(crate) use network::socket_address;

use cmdline::CommandLine;
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::resource::{Resource, setrlimit};
use std::io;
use std::path::Path;

/// What a booted guest has: the way back to the host, and a disk to leave in order.
#[derive(Debug)]
pub(crate) struct Booted {
    pub(crate) channel: BootChannel,
    pub(crate) disk: OwnDisk,
}

pub(crate) fn boot() -> Result<Booted, BootError> {
    mounts::early()?;
    console::take_when_it_comes();
    let channel = BootChannel::open()?;
    match set_up() {
        Ok(disk) => Ok(Booted { channel, disk }),
        Err(error) => Err(channel.fail(error)),
    }
}

/// A step of the boot that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct BootError {
    step: String,
    source: io::Error,
}

impl BootError {
    pub(crate) fn new(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { step: step.into(), source: source.into() }
    }
}

/// Ends the machine. A restart and not a power-off: without ACPI a power-off only halts, and every VMM is
/// started so that a restart ends it.
pub(crate) fn end_machine() -> ! {
    nix::unistd::sync();
    let refused = reboot(RebootMode::RB_AUTOBOOT);
    eprintln!("flames-guest: cannot restart the machine: {refused:?}");
    std::process::exit(1) // PID 1 gone: the kernel panics, which ends the VM too
}

fn set_up() -> Result<OwnDisk, BootError> {
    let command_line = CommandLine::read()?;
    let disk = mounts::switch_root()?;
    mounts::late()?;
    crate::system::take_over_identity(Path::new("/"))
        .map_err(|error| BootError::new("make the files in /etc that name the guest", error))?;
    network::up(command_line.network())?;
    limits()?;
    writeback()?;
    Ok(disk)
}

/// Processes may open many files; ctrl-alt-del asks the agent instead of restarting at once. Nothing need protect the agent
/// when memory is short: the kernel never takes its first process (`oom_unkillable_task`), and children inherit nothing.
fn limits() -> Result<(), BootError> {
    setrlimit(Resource::RLIMIT_NOFILE, 1 << 16, 1 << 20)
        .map_err(|error| BootError::new("set the limit of open files", error))?;
    set_cad_enabled(false).map_err(|error| BootError::new("take ctrl-alt-del", error))
}

/// Written files may wait in memory until they fill more of it than the kernel's own fifth.
///
/// The defaults are for disks that are slow and outlive a crash. This one is a file in the host's memory for the most part
/// and ends with the machine: making writers wait for it, and sharing the processor with what writes it out, halves
/// the speed of an upload.
fn writeback() -> Result<(), BootError> {
    for (name, percent) in [("dirty_background_ratio", "40"), ("dirty_ratio", "60")] {
        let setting = format!("/proc/sys/vm/{name}");
        std::fs::write(&setting, percent).map_err(|error| BootError::new(format!("set {setting}"), error))?;
    }
    Ok(())
}
