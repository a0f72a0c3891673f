//! Processes: start, follow, feed, signal, list.

use super::frame::{Frame, encode, take_frame};
use super::transport::{error_from_body, from_json, full, to_json, within};
use super::types::{
    GuestError, GuestErrorKind, GuestResult, ProcessEnd, ProcessEvent, ProcessInfo, Signal, StartProcess,
    Stdin,
};
use super::{CALL_DEADLINE, GuestClient};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The agent says something at least this often on a quiet stream.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A stream that is silent for longer than this has lost its guest.
const SILENCE: Duration = Duration::from_secs(120);

impl GuestClient {
    /// Starts a process and follows it from its first byte of output. Dropping what is returned does not
    /// end the process.
    ///
    /// # Errors
    /// `NotFound` for a program that does not exist; `InvalidArgument` for a working directory that does
    /// not; `Unauthenticated` for an unknown user.
    pub async fn start(&self, process: &StartProcess) -> GuestResult<ProcessEvents> {
        let message = start_message(process);
        self.stream("/process.Process/Start", process.user.as_deref(), &message, process.timeout).await
    }

    /// Follows a process that runs already; what it wrote before is not repeated.
    ///
    /// # Errors
    /// `NotFound` without such a process.
    pub async fn attach(&self, pid: u32) -> GuestResult<ProcessEvents> {
        self.stream("/process.Process/Connect", None, &select(pid), None).await
    }

    /// Writes to a process' standard input.
    ///
    /// # Errors
    /// `NotFound` without such a process; `InvalidArgument` if its input is not open.
    pub async fn send_input(&self, pid: u32, input: &[u8]) -> GuestResult<()> {
        let mut message = select(pid);
        message["input"] = json!({ "stdin": BASE64.encode(input) });
        self.done("/process.Process/SendInput", &message).await
    }

    /// Closes a process' standard input.
    ///
    /// # Errors
    /// `NotFound` without such a process.
    pub async fn close_stdin(&self, pid: u32) -> GuestResult<()> {
        self.done("/process.Process/CloseStdin", &select(pid)).await
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `NotFound` without such a process.
    pub async fn signal(&self, pid: u32, signal: Signal) -> GuestResult<()> {
        let mut message = select(pid);
        message["signal"] = signal.wire().into();
        self.done("/process.Process/SendSignal", &message).await
    }

    /// The processes that the agent started and that have not ended.
    ///
    /// # Errors
    /// `Unavailable` when the agent does not answer.
    pub async fn processes(&self) -> GuestResult<Vec<ProcessInfo>> {
        let listed: WireList = self.call("/process.Process/List", None, &json!({})).await?;
        Ok(listed.processes.into_iter().map(WireProcess::into_info).collect())
    }

    async fn done(&self, method: &'static str, message: &Value) -> GuestResult<()> {
        self.call::<serde::de::IgnoredAny>(method, None, message).await.map(drop)
    }

    async fn stream(
        &self,
        method: &'static str,
        user: Option<&str>,
        message: &Value,
        timeout: Option<Duration>,
    ) -> GuestResult<ProcessEvents> {
        let mut request = self
            .transport
            .request(method, user)
            .header(http::header::CONTENT_TYPE, "application/connect+json")
            .header("Keepalive-Ping-Interval", KEEPALIVE.as_secs().to_string());
        if let Some(timeout) = timeout {
            request = request.header("Connect-Timeout-Ms", timeout.as_millis().to_string());
        }
        let body = full(encode(&to_json(message)?)?);
        let response = self.transport.send(request, body, CALL_DEADLINE).await?;
        within(CALL_DEADLINE, ProcessEvents::open(response.into_body())).await
    }
}

/// What a process does, as it happens.
#[derive(Debug)]
pub struct ProcessEvents {
    pid: u32,
    body: Incoming,
    buffer: BytesMut,
    ended: bool,
}

impl ProcessEvents {
    /// The process' id inside the guest.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The next event; `None` after the end. Safe to drop and call again.
    ///
    /// # Errors
    /// `Unavailable` when the guest is gone; `DeadlineExceeded` when the process outlived its timeout and
    /// was killed.
    pub async fn next(&mut self) -> Option<GuestResult<ProcessEvent>> {
        if self.ended {
            return None;
        }
        let next = self.next_output().await;
        self.ended = !matches!(next, Ok(ref event) if !matches!(event, ProcessEvent::End(_)));
        Some(next)
    }

    /// Waits for the first event, which names the process: until then it has not started.
    async fn open(body: Incoming) -> GuestResult<Self> {
        let mut events = Self { pid: 0, body, buffer: BytesMut::new(), ended: false };
        loop {
            if let Some(start) = events.next_wire().await?.start {
                events.pid = start.pid;
                return Ok(events);
            }
        }
    }

    async fn next_output(&mut self) -> GuestResult<ProcessEvent> {
        loop {
            if let Some(event) = self.next_wire().await?.into_event()? {
                return Ok(event);
            }
        }
    }

    async fn next_wire(&mut self) -> GuestResult<WireEvent> {
        match self.next_frame().await? {
            Frame::Message(message) => Ok(from_json::<WireMessage>(&message)?.event),
            Frame::End(end) => Err(end_error(&end)),
        }
    }

    async fn next_frame(&mut self) -> GuestResult<Frame> {
        loop {
            if let Some(frame) = take_frame(&mut self.buffer)? {
                return Ok(frame);
            }
            let piece = within(SILENCE, next_piece(&mut self.body)).await?;
            self.buffer.extend_from_slice(&piece);
        }
    }
}

async fn next_piece(body: &mut Incoming) -> GuestResult<Bytes> {
    let gone = |message| GuestError::new(GuestErrorKind::Unavailable, message);
    match body.frame().await {
        Some(Ok(frame)) => Ok(frame.into_data().unwrap_or_default()),
        Some(Err(error)) => Err(gone("the connection to the guest broke").with_source(error)),
        None => Err(gone("the guest closed the stream before the process ended")),
    }
}

/// What the last frame means when the process has not ended.
fn end_error(end: &[u8]) -> GuestError {
    let json: Value = serde_json::from_slice(end).unwrap_or_default();
    match json.get("error") {
        Some(error) => error_from_body(500, error.to_string().as_bytes()),
        None => GuestError::new(GuestErrorKind::Internal, "the stream ended before the process"),
    }
}

fn start_message(process: &StartProcess) -> Value {
    let mut config = json!({ "cmd": process.command, "args": process.args, "envs": process.env });
    if let Some(cwd) = &process.cwd {
        config["cwd"] = cwd.as_str().into();
    }
    let mut message = json!({ "process": config, "stdin": process.stdin == Stdin::Open });
    if let Some(tag) = &process.tag {
        message["tag"] = tag.as_str().into();
    }
    message
}

fn select(pid: u32) -> Value {
    json!({ "process": { "pid": pid } })
}

#[derive(Deserialize)]
struct WireMessage {
    #[serde(default)]
    event: WireEvent,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireEvent {
    start: Option<WireStart>,
    data: Option<WireData>,
    end: Option<WireEnd>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireStart {
    pid: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireData {
    stdout: Option<String>,
    stderr: Option<String>,
    pty: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireEnd {
    exit_code: i32,
    exited: bool,
    status: String,
}

impl WireEvent {
    /// `None` for what has no meaning for the caller (start, keep-alive).
    fn into_event(self) -> GuestResult<Option<ProcessEvent>> {
        if let Some(end) = self.end {
            let WireEnd { exit_code, exited, status } = end;
            return Ok(Some(ProcessEvent::End(ProcessEnd { exit_code, exited, status })));
        }
        let Some(data) = self.data else { return Ok(None) };
        let output = [
            data.stdout.map(|text| decode(&text).map(ProcessEvent::Stdout)),
            data.stderr.map(|text| decode(&text).map(ProcessEvent::Stderr)),
            data.pty.map(|text| decode(&text).map(ProcessEvent::Pty)),
        ];
        output.into_iter().flatten().next().transpose()
    }
}

fn decode(text: &str) -> GuestResult<Bytes> {
    let decoded = BASE64.decode(text);
    decoded.map(Bytes::from).map_err(|error| {
        GuestError::new(GuestErrorKind::Internal, "the agent's output is not base64").with_source(error)
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireList {
    processes: Vec<WireProcess>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireProcess {
    pid: u32,
    tag: Option<String>,
    config: WireConfig,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireConfig {
    cmd: String,
    args: Vec<String>,
    cwd: Option<String>,
}

impl WireProcess {
    fn into_info(self) -> ProcessInfo {
        let WireConfig { cmd, args, cwd } = self.config;
        ProcessInfo { pid: self.pid, tag: self.tag, command: cmd, args, cwd }
    }
}
