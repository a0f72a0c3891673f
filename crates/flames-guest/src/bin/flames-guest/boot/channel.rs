//! The private way to the node: one line in and one line out before TCP, and later the node's word that the
//! guest shall end.
//!
//! It is a virtio-serial port where the VMM has one. Where it has none (Firecracker), the kernel command line
//! names the serial console (`flames.boot=ttyS0`). What the guest says there lies among the console's text, so
//! each line is marked, and the node takes it out; what the node says before anybody listens is lost in the
//! UART, so the agent says hello first, again and again until it is heard.

use super::BootError;
use super::uevents::Uevents;
use crate::agent::Agent;
use flames_guest::control::{BOOT_PORT, BootReport, Greeting, HostCommand, MIN_CONTROL_TOKEN};
use nix::sys::termios::{InputFlags, LocalFlags, SetArg, tcgetattr, tcsetattr};
use rustix::event::epoll;
use rustix::fs::Timespec;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zeroize::{Zeroize as _, Zeroizing};

/// The port, before the greeting.
#[derive(Debug)]
pub(crate) struct BootChannel {
    port: Port,
}

/// The port, after the greeting: one report is due.
#[derive(Debug)]
pub(crate) struct Greeted {
    port: Port,
    /// What the node said.
    pub(crate) greeting: Greeting,
}

/// The port, after the report: the node may speak at any time, also another node process than the first.
#[derive(Debug)]
pub(crate) struct HostLine {
    port: AsyncFd<Port>,
}

/// The node writes the greeting before the guest starts, or when it hears a hello: it never takes long.
const PATIENCE: Duration = Duration::from_secs(10);
/// After that long a hello, or the answer to it, was lost.
const HELLO_AGAIN: Duration = Duration::from_secs(1);
/// What begins a line of ours on the serial console: no program prints it by accident.
const MARK: &[u8] = b"\x1eflames ";

impl BootChannel {
    pub(super) fn open() -> Result<Self, BootError> {
        let (path, medium) =
            find().map_err(|error| BootError::new(format!("find the port {BOOT_PORT}"), error))?;
        let port = Port::open(&path, medium);
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
        self.port.report_failure(&error);
        error
    }

    fn read_greeting(&mut self) -> io::Result<Greeting> {
        let deadline = Instant::now() + PATIENCE;
        let mut said_hello = None;
        loop {
            if let Some(line) = self.port.read_line()? {
                let greeting = serde_json::from_slice(&line);
                return greeting.map_err(|_| io::Error::other("the line is no greeting")).and_then(checked);
            }
            match self.port.medium {
                Medium::VirtioPort => self.port.wait_until(deadline)?,
                Medium::SerialConsole => self.say_hello(&mut said_hello, deadline)?,
            }
        }
    }

    /// Waits until something comes or it is time for the next hello.
    fn say_hello(&mut self, said: &mut Option<Instant>, deadline: Instant) -> io::Result<()> {
        let due = said.is_none_or(|said| said.elapsed() >= HELLO_AGAIN);
        if due {
            self.port.write_line(&serde_json::json!({ "hello": true }))?;
            *said = Some(Instant::now());
        }
        let next = said.map_or(deadline, |said| said + HELLO_AGAIN);
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match self.port.wait_until(next.min(deadline)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()), // the next hello is due
            waited => waited,
        }
    }
}

impl Greeted {
    /// Tells the node that the agent serves.
    pub(crate) fn ready(mut self, started_ms: u64) -> Result<HostLine, BootError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let report = BootReport::Ready { ready: true, version, started_ms, ready_ms: crate::uptime_ms() };
        self.port
            .write_line(&report)
            .and_then(|()| HostLine::new(self.port))
            .map_err(|error| BootError::new("report that the agent serves", error))
    }

    /// Tells the node why there will be no agent, and gives the error back.
    pub(crate) fn fail(mut self, error: BootError) -> BootError {
        self.port.report_failure(&error);
        error
    }
}

impl HostLine {
    #[expect(deprecated, reason = "its successor is unsafe; the contract holds, a port keeps its descriptor")]
    fn new(port: Port) -> io::Result<Self> {
        Ok(Self { port: AsyncFd::with_interest(port, Interest::READABLE)? })
    }

    /// Rings for the agent's end when the node asks for it.
    pub(crate) async fn obey(mut self, agent: Arc<Agent>) {
        match self.shutdown_asked().await {
            Ok(()) => agent.shutdown.notify_one(),
            // The node can still ask over TCP, or end the machine.
            Err(error) => eprintln!("flames-guest: the boot channel is no longer read: {error}"),
        }
    }

    async fn shutdown_asked(&mut self) -> io::Result<()> {
        loop {
            self.port.readable().await?.clear_ready();
            let port = self.port.get_mut();
            port.take_events()?;
            while let Some(line) = port.read_line()? {
                if asks_for_shutdown(&line) {
                    return Ok(());
                }
            }
        }
    }
}

/// A line of another meaning may come from a newer node, and is none of ours.
fn asks_for_shutdown(line: &[u8]) -> bool {
    serde_json::from_slice::<HostCommand>(line).is_ok_and(|command| command.shutdown)
}

fn checked(greeting: Greeting) -> io::Result<Greeting> {
    if greeting.control_token.len() < MIN_CONTROL_TOKEN {
        return Err(io::Error::other("the control token is shorter than 16 characters"));
    }
    Ok(greeting)
}

/// The device, with a way to wait for it.
///
/// While nobody holds the host side, reads answer "end of file" and poll reports a hang-up, again and again:
/// whoever waits for readiness as such would spin. So it is watched for edges: the kernel gives one whenever
/// bytes arrive or the host side changes hands, and none while nothing happens. It sits in an epoll of its own,
/// since a runtime takes a hang-up for the final word of a descriptor.
#[derive(Debug)]
struct Port {
    device: File,
    medium: Medium,
    edges: OwnedFd,
    /// The beginning of a line.
    line: Zeroizing<Vec<u8>>,
}

/// What the channel goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    /// Ours alone.
    VirtioPort,
    /// Shared with the console's text.
    SerialConsole,
}

/// What is longer is no line of the node's.
const MAX_LINE: usize = 4096;

impl Port {
    fn open(path: &std::path::Path, medium: Medium) -> io::Result<Self> {
        let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits().cast_signed();
        let device = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        if medium == Medium::SerialConsole {
            make_raw(&device)?;
        }
        let edges = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wanted = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&edges, &device, epoll::EventData::new_u64(0), wanted)?;
        Ok(Self { device, medium, edges, line: Zeroizing::default() })
    }

    /// A whole line, if there is one by now. What a host left unfinished when it went away is dropped.
    fn read_line(&mut self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let mut chunk = Zeroizing::new([0; 512]);
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let rest = Zeroizing::new(self.line.split_off(end + 1));
                return Ok(Some(std::mem::replace(&mut self.line, rest)));
            }
            if self.line.len() > MAX_LINE {
                return Err(io::Error::other("the line is too long"));
            }
            match self.device.read(&mut chunk[..]) {
                Ok(0) => {
                    self.line.zeroize();
                    return Ok(None);
                }
                Ok(length) => self.line.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn wait_until(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.wait(&Timespec::try_from(left).map_err(io::Error::other)?)
    }

    /// Forgets what was reported: the next event is news.
    fn take_events(&self) -> io::Result<()> {
        self.wait(&Timespec { tv_sec: 0, tv_nsec: 0 })
    }

    fn wait(&self, most: &Timespec) -> io::Result<()> {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        Ok(epoll::wait(&self.edges, &mut events[..], Some(most)).map(drop)?)
    }

    /// Best effort: the channel itself may be what is broken, and the machine ends either way.
    fn report_failure(&mut self, error: &BootError) {
        let report = BootReport::Failed { error: error.to_string() };
        if let Err(unsaid) = self.write_line(&report) {
            eprintln!("flames-guest: cannot report: {unsaid}");
        }
    }

    fn write_line(&mut self, report: &impl serde::Serialize) -> io::Result<()> {
        let mut line = match self.medium {
            Medium::VirtioPort => Vec::new(),
            Medium::SerialConsole => MARK.to_vec(),
        };
        serde_json::to_writer(&mut line, report)?;
        line.push(b'\n');
        self.device.write_all(&line)
    }
}

impl AsRawFd for Port {
    fn as_raw_fd(&self) -> RawFd {
        self.edges.as_raw_fd()
    }
}

/// The port, or what stands for it.
fn find() -> io::Result<(PathBuf, Medium)> {
    if let Ok(port) = find_port() {
        return Ok((port, Medium::VirtioPort));
    }
    let command_line = std::fs::read_to_string("/proc/cmdline")?;
    match named_console(&command_line) {
        Some(path) => Ok((path, Medium::SerialConsole)),
        None => await_port().map(|path| (path, Medium::VirtioPort)),
    }
}

/// Ports have their names when the VMM has answered the kernel, on a busy host maybe after the kernel started the agent.
fn await_port() -> io::Result<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    let news = Uevents::open()?;
    loop {
        match find_port() {
            Ok(port) => return Ok(port),
            Err(no_port) => news.wait_until(deadline).map_err(|_| no_port)?,
        }
    }
}

/// `flames.boot=ttyS0`
fn named_console(command_line: &str) -> Option<PathBuf> {
    let name = command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("flames.boot="))?;
    name.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| PathBuf::from("/dev").join(name))
}

/// The terminal is only a wire: nothing is echoed (the greeting is a secret), nothing has a meaning.
fn make_raw(terminal: &File) -> io::Result<()> {
    let mut settings = tcgetattr(terminal)?;
    settings
        .local_flags
        .remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG | LocalFlags::IEXTEN);
    settings.input_flags.remove(InputFlags::ICRNL | InputFlags::IXON);
    Ok(tcsetattr(terminal, SetArg::TCSANOW, &settings)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_that_carries_the_channel_is_named_on_the_command_line() {
        let named = named_console("quiet flames.boot=ttyS0 root=/dev/vda");
        assert_eq!(named, Some(PathBuf::from("/dev/ttyS0")));
        for other in ["quiet", "flames.boot=../sda", "xflames.boot=ttyS0"] {
            assert_eq!(named_console(other), None, "{other}");
        }
    }

    #[test]
    fn only_a_line_that_says_so_ends_the_guest() {
        assert!(asks_for_shutdown(b"{\"shutdown\":true}\n"));
        for other in [&b"{\"shutdown\":false}\n"[..], b"{}\n", b"{\"later\":1}\n", b"shutdown\n", b"\n"] {
            assert!(!asks_for_shutdown(other), "{other:?}");
        }
    }
}
