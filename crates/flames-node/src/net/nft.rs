//! Runs `nft` in the namespace of the calling thread. Whatever it is given is one transaction: all of it is
//! applied, or nothing.
//!
//! A transaction is in force long before its program has ended: on its way out that one waits for the kernel to free
//! what was replaced, two thirds of its time. So what counts is the kernel's own word that the process has made a
//! new generation of the rules. A program that ends without it is judged by how it ended.

use super::nfnetlink::{Firewall, aside};
use flames_vmm::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};

/// Applies a ruleset in nft's own language.
pub(super) fn apply(ruleset: &str) -> Result<()> {
    let changes = Firewall::listen().map_err(|error| failed("listen", error))?;
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = nft.spawn().map_err(|error| not_run("start", error))?;
    if let Some(mut input) = child.stdin.take() {
        // A ruleset that is refused half way closes the pipe; what nft says about it counts.
        let _ = input.write_all(ruleset.as_bytes());
    }
    match wait(&changes, &child) {
        Seen::Generation => {
            aside(move || drop(child.wait()));
            Ok(())
        }
        Seen::End => judge(child.wait_with_output()),
    }
}

/// What came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The kernel told of a transaction that the process made.
    Generation,
    /// The process ends, or nothing can be told before it does: with a number of its own for processes (a PID
    /// namespace) the kernel's number is another.
    End,
}

fn wait(changes: &Firewall, child: &Child) -> Seen {
    let Some(complaints) = &child.stderr else { return Seen::End };
    loop {
        let mut events = [changes.as_fd(), complaints.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut events, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(_) => return Seen::End,
        }
        match changes.heard_of(child.id()) {
            Ok(true) => return Seen::Generation,
            Ok(false) => {}
            Err(_) => return Seen::End, // more than there was room for: the end tells, too
        }
        if events[1].any().unwrap_or(true) {
            return Seen::End;
        }
    }
}

fn judge(output: std::io::Result<Output>) -> Result<()> {
    let output = output.map_err(|error| not_run("apply", error))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(ErrorKind::Unavailable, "firewall", "nft")
        .operation("apply")
        .detail(told.trim().to_owned()))
}

fn not_run(operation: &'static str, error: std::io::Error) -> Error {
    let detail = format!("nft does not run: {error}; `apt install nftables`");
    Error::new(ErrorKind::Unavailable, "firewall", "nft").operation(operation).detail(detail).source(error)
}

fn failed(operation: &'static str, error: std::io::Error) -> Error {
    let detail = error.to_string();
    Error::new(ErrorKind::Unavailable, "firewall", "").operation(operation).detail(detail).source(error)
}
