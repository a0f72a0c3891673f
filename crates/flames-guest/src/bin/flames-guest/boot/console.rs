//! Where the agent's own messages go.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::thread;

/// Makes the console the agent's input and output where the kernel could not: a virtio console comes when the VMM has
/// answered, and on a busy host that may be after the kernel started the agent ("unable to open an initial console").
/// Rust's runtime gave it `/dev/null` then. Does not wait: a machine may have no console at all.
pub(super) fn take_when_it_comes() {
    if is_null(io::stderr()) {
        thread::spawn(|| {
            // There is nobody to tell.
            let _untold = wait().and_then(|()| take());
        });
    }
}

fn is_null(stream: impl std::os::fd::AsFd) -> bool {
    let device = |file: File| file.metadata().map(|metadata| metadata.rdev());
    let stream = stream.as_fd().try_clone_to_owned().map(File::from).and_then(device);
    matches!((stream, File::open("/dev/null").and_then(device)), (Ok(one), Ok(other)) if one == other)
}

/// Until the kernel has a console: it says so to those who poll this file (`console_sysfs_notify`).
fn wait() -> io::Result<()> {
    let mut active = File::open("/sys/class/tty/console/active")?;
    loop {
        let mut names = String::new();
        active.rewind()?;
        active.read_to_string(&mut names)?;
        if !names.trim().is_empty() {
            return Ok(());
        }
        poll(&mut [PollFd::new(active.as_fd(), PollFlags::POLLPRI)], PollTimeout::NONE)?;
    }
}

fn take() -> io::Result<()> {
    let no_terminal_of_ours = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
    let console =
        OpenOptions::new().read(true).write(true).custom_flags(no_terminal_of_ours).open("/dev/console")?;
    dup2_stdin(&console)?;
    dup2_stdout(&console)?;
    dup2_stderr(&console)?;
    println!("the console came after flames-guest");
    Ok(())
}
