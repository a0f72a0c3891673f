//! The private way to the node before TCP: one line in, one line out, over a virtio-serial port.

use super::BootError;
use flames_guest::control::{BOOT_PORT, BootReport, Greeting};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use zeroize::Zeroize as _;

/// The port, before the greeting.
#[derive(Debug)]
pub(crate) struct BootChannel {
    port: File,
}

/// The port, after the greeting: one report is due.
#[derive(Debug)]
pub(crate) struct Greeted {
    port: File,
    /// What the node said.
    pub(crate) greeting: Greeting,
}

/// A greeting longer than this is none.
const MAX_LINE: usize = 4096;
/// The node writes the greeting before the guest starts: it never takes long.
const PATIENCE: Duration = Duration::from_secs(10);

impl BootChannel {
    pub(super) fn open() -> Result<Self, BootError> {
        let path =
            find_port().map_err(|error| BootError::new(format!("find the port {BOOT_PORT}"), error))?;
        let port = OpenOptions::new().read(true).write(true).open(&path);
        Ok(Self { port: port.map_err(|error| BootError::new(format!("open {}", path.display()), error))? })
    }

    /// Waits for the node's line.
    pub(crate) fn greet(mut self) -> Result<Greeted, BootError> {
        match self.read_greeting() {
            Ok(greeting) => Ok(Greeted { port: self.port, greeting }),
            Err(error) => Err(self.fail(BootError::new("read the greeting", error))),
        }
    }

    /// Tells the node why there will be no agent, and gives the error back.
    pub(crate) fn fail(mut self, error: BootError) -> BootError {
        report_failure(&mut self.port, &error);
        error
    }

    fn read_greeting(&mut self) -> io::Result<Greeting> {
        let mut line = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            match self.port.read(&mut byte)? {
                0 => wait_for_host(&self.port, deadline)?,
                _ if line.len() == MAX_LINE => return Err(io::Error::other("the line is too long")),
                _ => line.extend_from_slice(&byte),
            }
        }
        let greeting = serde_json::from_slice(&line).map_err(|_| io::Error::other("the line is no greeting"));
        line.zeroize();
        greeting.and_then(checked)
    }
}

impl Greeted {
    /// Tells the node that the agent serves.
    pub(crate) fn ready(&mut self, started_ms: u64) -> Result<(), BootError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let report = BootReport::Ready { ready: true, version, started_ms, ready_ms: crate::uptime_ms() };
        write_line(&mut self.port, &report)
            .map_err(|error| BootError::new("report that the agent serves", error))
    }

    /// Tells the node why there will be no agent, and gives the error back.
    pub(crate) fn fail(mut self, error: BootError) -> BootError {
        report_failure(&mut self.port, &error);
        error
    }
}

fn checked(greeting: Greeting) -> io::Result<Greeting> {
    if greeting.control_token.len() < 16 {
        return Err(io::Error::other("the control token is shorter than 16 characters"));
    }
    Ok(greeting)
}

/// While nobody holds the host side, reads answer "end of file" at once and no event tells when that changes:
/// look again after a moment.
fn wait_for_host(port: &File, deadline: Instant) -> io::Result<()> {
    if Instant::now() > deadline {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut watched = [PollFd::new(port.as_fd(), PollFlags::POLLIN)];
    poll(&mut watched, PollTimeout::ZERO)?;
    if watched[0].any() != Some(true)
        || watched[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
    {
        poll(&mut [], PollTimeout::from(5u8))?;
    }
    Ok(())
}

/// The kernel numbers ports by device order, so only the name tells which one it is.
fn find_port() -> io::Result<PathBuf> {
    for entry in std::fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == BOOT_PORT {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Best effort: the channel itself may be what is broken, and the machine ends either way.
fn report_failure(port: &mut File, error: &BootError) {
    let report = BootReport::Failed { error: error.to_string() };
    if let Err(unsaid) = write_line(port, &report) {
        eprintln!("flames-guest: cannot report: {unsaid}");
    }
}

fn write_line(port: &mut File, report: &BootReport) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    port.write_all(&line)
}
