//! QEMU's control protocol: one JSON object per line over a unix socket.
//!
//! The protocol is small and this driver uses a dozen commands, so this is a client of its own. The `qapi` crate
//! generates types for a thousand commands of one QEMU version, and its last release is older than the
//! versions driven here.

use futures::{SinkExt, StreamExt};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::codec::{Framed, LinesCodec};

/// A connection to QEMU's control socket. Closed when dropped, so that the next daemon can have it.
#[derive(Debug)]
pub(crate) struct Qmp {
    requests: mpsc::Sender<Request>,
    seen: watch::Receiver<Seen>,
    connection: JoinHandle<()>,
    version: String,
    timeout: Duration,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    #[error("cannot reach QEMU's control socket")]
    Connect(#[source] std::io::Error),
    #[error("QEMU closed its control socket")]
    Closed,
    #[error("QEMU's control socket said something that is no QMP: {0}")]
    Protocol(String),
    #[error("QEMU refused `{command}`: {reason}")]
    Refused { command: &'static str, reason: String },
    #[error("QEMU did not answer `{command}` within {} ms", .after.as_millis())]
    Timeout { command: &'static str, after: Duration },
}

/// What QEMU told without being asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// `reason` of the last SHUTDOWN event.
    pub(crate) shutdown_reason: Option<String>,
    /// `status` of the last MIGRATION event.
    pub(crate) migration: Option<String>,
}

/// Whether virtual CPUs run, and what else QEMU calls a state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RunState {
    Running,
    Paused,
    #[serde(other)]
    Other,
}

#[derive(Debug)]
struct Request {
    command: Value,
    file: Option<OwnedFd>,
    answer: oneshot::Sender<Result<Value, String>>,
}

type Lines = Framed<UnixStream, LinesCodec>;

/// Longest line that is read; the longest answer to the commands used here is under 1 KiB.
const MAX_LINE: usize = 64 * 1024;

impl Qmp {
    /// Connects, reads the greeting and leaves the negotiation mode. `timeout` bounds each answer.
    pub(crate) async fn connect(socket: &Path, timeout: Duration) -> Result<Self, QmpError> {
        let greeted = tokio::time::timeout(timeout, Self::greet(socket)).await;
        let (lines, version) =
            greeted.map_err(|_| QmpError::Timeout { command: "greeting", after: timeout })??;
        let (requests, inbox) = mpsc::channel(8);
        let (tell, seen) = watch::channel(Seen::default());
        let connection = tokio::spawn(Connection::new(lines, inbox, tell).run());
        let qmp = Self { requests, seen, connection, version, timeout };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    async fn greet(socket: &Path) -> Result<(Lines, String), QmpError> {
        let stream = UnixStream::connect(socket).await.map_err(QmpError::Connect)?;
        let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(MAX_LINE));
        let line = lines.next().await.ok_or(QmpError::Closed)?;
        let line = line.map_err(|_| QmpError::Closed)?;
        let version = greeting_version(&line).ok_or_else(|| QmpError::Protocol(line.clone()))?;
        Ok((lines, version))
    }

    /// QEMU's version as its greeting gives it, for example `7.2.22`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Lets the virtual CPUs run.
    pub(crate) async fn cont(&self) -> Result<(), QmpError> {
        self.execute("cont", json!({})).await.map(drop)
    }

    /// Stops the virtual CPUs.
    pub(crate) async fn stop(&self) -> Result<(), QmpError> {
        self.execute("stop", json!({})).await.map(drop)
    }

    /// Writes what the devices hold, and nothing of the memory, into an empty file. The virtual CPUs must be stopped.
    pub(crate) async fn save_devices(&self, file: OwnedFd) -> Result<(), QmpError> {
        let added = self.execute_with("add-fd", json!({}), Some(file)).await?;
        let set = added["fdset-id"].as_u64().ok_or_else(|| QmpError::Protocol(added.to_string()))?;
        let arguments = json!({"filename": format!("/dev/fdset/{set}"), "live": false});
        let saved = self.execute("xen-save-devices-state", arguments).await.map(drop);
        self.execute("remove-fd", json!({"fdset-id": set})).await?;
        saved
    }

    /// Puts the devices into the state that is read from an open descriptor of QEMU's. A QEMU that cannot do it
    /// ends. The virtual CPUs stay stopped.
    pub(crate) async fn load_devices(&self, descriptor: i32) -> Result<(), QmpError> {
        let events = json!({"capabilities": [{"capability": "events", "state": true}]});
        self.execute("migrate-set-capabilities", events).await?;
        let command = "migrate-incoming";
        self.execute(command, json!({"uri": format!("fd:{descriptor}")})).await?;
        let loaded = tokio::time::timeout(self.timeout, self.migrated()).await;
        loaded.map_err(|_| QmpError::Timeout { command, after: self.timeout })?
    }

    async fn migrated(&self) -> Result<(), QmpError> {
        let mut seen = self.seen.clone();
        let over = |seen: &Seen| matches!(seen.migration.as_deref(), Some("completed" | "failed"));
        let last = seen.wait_for(over).await.map_err(|_| QmpError::Closed)?;
        if last.migration.as_deref() == Some("completed") {
            return Ok(());
        }
        let reason = "the device state cannot be loaded".to_owned();
        Err(QmpError::Refused { command: "migrate-incoming", reason })
    }

    pub(crate) async fn run_state(&self) -> Result<RunState, QmpError> {
        let mut answer = self.execute("query-status", json!({})).await?;
        let status = answer["status"].take();
        RunState::deserialize(&status).map_err(|_| QmpError::Protocol(status.to_string()))
    }

    /// Runs one command.
    pub(crate) async fn execute(&self, command: &'static str, arguments: Value) -> Result<Value, QmpError> {
        self.execute_with(command, arguments, None).await
    }

    /// Runs one command that is given an open file.
    async fn execute_with(
        &self,
        command: &'static str,
        arguments: Value,
        file: Option<OwnedFd>,
    ) -> Result<Value, QmpError> {
        let (answer, answered) = oneshot::channel();
        let request = Request { command: json!({"execute": command, "arguments": arguments}), file, answer };
        self.requests.send(request).await.map_err(|_| QmpError::Closed)?;
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(reason))) => Err(QmpError::Refused { command, reason }),
            Ok(Err(_)) => Err(QmpError::Closed),
            Err(_) => Err(QmpError::Timeout { command, after: self.timeout }),
        }
    }

    /// Everything QEMU told until it closed the connection: complete once its process is gone.
    pub(crate) async fn seen_to_the_end(&self) -> Seen {
        let mut seen = self.seen.clone();
        while seen.changed().await.is_ok() {}
        seen.borrow().clone()
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// One side of the socket: sends requests, gives answers to who asked, and remembers events.
struct Connection {
    lines: Lines,
    inbox: mpsc::Receiver<Request>,
    tell: watch::Sender<Seen>,
    waiting: HashMap<u64, oneshot::Sender<Result<Value, String>>>,
    next_id: u64,
}

impl Connection {
    fn new(lines: Lines, inbox: mpsc::Receiver<Request>, tell: watch::Sender<Seen>) -> Self {
        Self { lines, inbox, tell, waiting: HashMap::new(), next_id: 0 }
    }

    /// Ends when QEMU closes the connection; whoever still waits then learns it by the dropped sender.
    async fn run(mut self) {
        loop {
            let goes_on = tokio::select! {
                Some(request) = self.inbox.recv() => self.send(request).await,
                line = self.lines.next() => self.receive(line),
            };
            if !goes_on {
                return;
            }
        }
    }

    async fn send(&mut self, Request { mut command, file, answer }: Request) -> bool {
        self.next_id += 1;
        command["id"] = json!(self.next_id);
        self.waiting.insert(self.next_id, answer);
        if let Some(file) = file {
            // A descriptor travels with a byte; one that means nothing, before the command that takes it.
            if send_file(self.lines.get_ref(), &file).await.is_err() {
                return false;
            }
        }
        self.lines.send(command.to_string()).await.is_ok()
    }

    fn receive(&mut self, line: Option<Result<String, tokio_util::codec::LinesCodecError>>) -> bool {
        let Some(Ok(line)) = line else { return false };
        match parse(&line) {
            Some(Message::Answer { id, result }) => self.answer(id, result),
            Some(Message::Shutdown { reason }) => {
                self.tell.send_modify(|seen| seen.shutdown_reason = Some(reason));
            }
            Some(Message::Migration { status }) => {
                self.tell.send_modify(|seen| seen.migration = Some(status));
            }
            Some(Message::OtherEvent) => {}
            None => tracing::warn!(line, "QEMU's control socket said something that is no QMP"),
        }
        true
    }

    fn answer(&mut self, id: u64, result: Result<Value, String>) {
        if let Some(waiting) = self.waiting.remove(&id) {
            // Whoever gave up waiting has dropped the receiver.
            let _ = waiting.send(result);
        }
    }
}

async fn send_file(socket: &UnixStream, file: &OwnedFd) -> std::io::Result<()> {
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&files));
        let blank = [IoSlice::new(b" ")];
        Ok(rustix::net::sendmsg(socket, &blank, &mut control, SendFlags::NOSIGNAL).map(drop)?)
    };
    socket.async_io(Interest::WRITABLE, send).await
}

#[derive(Debug, PartialEq)]
enum Message {
    Answer { id: u64, result: Result<Value, String> },
    Shutdown { reason: String },
    Migration { status: String },
    OtherEvent,
}

fn parse(line: &str) -> Option<Message> {
    let mut message: Value = serde_json::from_str(line).ok()?;
    if let Some(event) = message["event"].as_str() {
        let data = |name: &str| message["data"][name].as_str().unwrap_or_default().to_owned();
        return Some(match event {
            "SHUTDOWN" => Message::Shutdown { reason: data("reason") },
            "MIGRATION" => Message::Migration { status: data("status") },
            _ => Message::OtherEvent,
        });
    }
    let id = message["id"].as_u64()?;
    let result = match message.get("error") {
        Some(error) => Err(error["desc"].as_str().unwrap_or("no reason given").to_owned()),
        None => Ok(message.get_mut("return")?.take()),
    };
    Some(Message::Answer { id, result })
}

fn greeting_version(line: &str) -> Option<String> {
    let greeting: Value = serde_json::from_str(line).ok()?;
    let qemu = &greeting["QMP"]["version"]["qemu"];
    let part = |name: &str| qemu[name].as_u64();
    Some(format!("{}.{}.{}", part("major")?, part("minor")?, part("micro")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_errors_and_events_are_told_apart() {
        let refused = r#"{"id": 7, "error": {"class": "GenericError", "desc": "no"}}"#;
        assert_eq!(parse(refused), Some(Message::Answer { id: 7, result: Err("no".into()) }));
        let event =
            r#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
        assert_eq!(parse(event), Some(Message::Shutdown { reason: "guest-reset".into() }));
        let migration = r#"{"event": "MIGRATION", "data": {"status": "completed"}}"#;
        assert_eq!(parse(migration), Some(Message::Migration { status: "completed".into() }));
        assert_eq!(parse(r#"{"event": "STOP"}"#), Some(Message::OtherEvent));
        assert_eq!(parse("{"), None);
    }

    #[test]
    fn the_greeting_names_the_version() {
        let greeting =
            r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}}}"#;
        assert_eq!(greeting_version(greeting).as_deref(), Some("7.2.22"));
        assert_eq!(greeting_version("SSH-2.0"), None);
    }
}
