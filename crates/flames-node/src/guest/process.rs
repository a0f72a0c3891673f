//! Processes: start, follow, feed, signal, list.

use super::transport::{from_json, full, rpc_error, to_json, within};
use super::types::{
    GuestError, GuestErrorKind, GuestResult, ProcessEnd, ProcessEvent, ProcessInfo, Signal, StartProcess,
    Stdin, TerminalSize,
};
use super::{CALL_DEADLINE, GuestClient};
use bytes::Bytes;
use flames_guest::frame::{Frame, FrameDecoder, FrameError, MAX_PAYLOAD, MESSAGE, encode};
use flames_guest::process::{
    self, CloseStdinRequest, ConnectRequest, DataEvent, Empty, EndEvent, EventResponse, ListResponse,
    ProcessConfig, ProcessInput, ProcessSelector, SendInputRequest, SendSignalRequest, StartRequest,
    UpdateRequest,
};
use flames_guest::rpc::EndOfStream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
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
        self.stream("/process.Process/Connect", None, &ConnectRequest { process: select(pid) }, None).await
    }

    /// Writes to a process' standard input.
    ///
    /// # Errors
    /// `NotFound` without such a process; `InvalidArgument` if its input is not open.
    pub async fn send_input(&self, pid: u32, input: &[u8]) -> GuestResult<()> {
        let input = Some(ProcessInput { stdin: Some(input.to_vec()), pty: None });
        self.done("/process.Process/SendInput", &SendInputRequest { process: select(pid), input }).await
    }

    /// Types into a process' terminal.
    ///
    /// # Errors
    /// `NotFound` without such a process; `InvalidArgument` if it has no terminal.
    pub async fn send_keys(&self, pid: u32, keys: &[u8]) -> GuestResult<()> {
        let input = Some(ProcessInput { stdin: None, pty: Some(keys.to_vec()) });
        self.done("/process.Process/SendInput", &SendInputRequest { process: select(pid), input }).await
    }

    /// Changes the size of a process' terminal.
    ///
    /// # Errors
    /// `NotFound` without such a process; `InvalidArgument` if it has no terminal.
    pub async fn resize(&self, pid: u32, size: TerminalSize) -> GuestResult<()> {
        let message = UpdateRequest { process: select(pid), pty: Some(size.wire()) };
        self.done("/process.Process/Update", &message).await
    }

    /// Closes a process' standard input.
    ///
    /// # Errors
    /// `NotFound` without such a process.
    pub async fn close_stdin(&self, pid: u32) -> GuestResult<()> {
        self.done("/process.Process/CloseStdin", &CloseStdinRequest { process: select(pid) }).await
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `NotFound` without such a process.
    pub async fn signal(&self, pid: u32, signal: Signal) -> GuestResult<()> {
        let message = SendSignalRequest { process: select(pid), signal: signal.wire() };
        self.done("/process.Process/SendSignal", &message).await
    }

    /// The processes that the agent started and that have not ended.
    ///
    /// # Errors
    /// `Unavailable` when the agent does not answer.
    pub async fn processes(&self) -> GuestResult<Vec<ProcessInfo>> {
        let listed: ListResponse = self.call("/process.Process/List", None, &Empty {}).await?;
        Ok(listed.processes.into_iter().map(info_of).collect())
    }

    async fn done(&self, method: &'static str, message: &impl Serialize) -> GuestResult<()> {
        self.call::<serde::de::IgnoredAny>(method, None, message).await.map(drop)
    }

    async fn stream(
        &self,
        method: &'static str,
        user: Option<&str>,
        message: &impl Serialize,
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
        let body = full(encode(MESSAGE, &to_json(message)?));
        let response = self.transport.send(request, body, CALL_DEADLINE).await?;
        within(CALL_DEADLINE, ProcessEvents::open(response.into_body())).await
    }
}

/// What a process does, as it happens.
#[derive(Debug)]
pub struct ProcessEvents {
    pid: u32,
    body: Incoming,
    frames: FrameDecoder,
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
        let mut events = Self { pid: 0, body, frames: FrameDecoder::new(MAX_PAYLOAD), ended: false };
        loop {
            if let Some(start) = events.next_wire().await?.start {
                events.pid = start.pid;
                return Ok(events);
            }
        }
    }

    async fn next_output(&mut self) -> GuestResult<ProcessEvent> {
        loop {
            if let Some(event) = event_of(self.next_wire().await?) {
                return Ok(event);
            }
        }
    }

    async fn next_wire(&mut self) -> GuestResult<process::ProcessEvent> {
        let frame = self.next_frame().await?;
        if frame.is_end() {
            return Err(end_error(&frame.payload));
        }
        Ok(from_json::<EventResponse>(&frame.payload)?.event.unwrap_or_default())
    }

    async fn next_frame(&mut self) -> GuestResult<Frame> {
        loop {
            if let Some(frame) = self.frames.next_frame().map_err(bad_frame)? {
                return Ok(frame);
            }
            let piece = within(SILENCE, next_piece(&mut self.body)).await?;
            self.frames.push(&piece);
        }
    }
}

fn bad_frame(error: FrameError) -> GuestError {
    GuestError::new(GuestErrorKind::Internal, "the agent's stream makes no sense").with_source(error)
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
    match serde_json::from_slice::<EndOfStream>(end).unwrap_or_default().error {
        Some(error) => rpc_error(error),
        None => GuestError::new(GuestErrorKind::Internal, "the stream ended before the process"),
    }
}

fn start_message(process: &StartProcess) -> StartRequest {
    let config = ProcessConfig {
        cmd: process.command.clone(),
        args: process.args.clone(),
        envs: process.env.clone(),
        cwd: process.cwd.clone(),
    };
    StartRequest {
        process: Some(config),
        pty: process.terminal.map(TerminalSize::wire),
        tag: process.tag.clone(),
        stdin: Some(process.stdin == Stdin::Open),
    }
}

fn select(pid: u32) -> Option<ProcessSelector> {
    Some(ProcessSelector::pid(pid))
}

/// `None` for what has no meaning for the caller (start, keep-alive).
fn event_of(event: process::ProcessEvent) -> Option<ProcessEvent> {
    if let Some(EndEvent { exit_code, exited, status, .. }) = event.end {
        return Some(ProcessEvent::End(ProcessEnd { exit_code, exited, status }));
    }
    let DataEvent { stdout, stderr, pty } = event.data?;
    let of =
        |output: Option<Vec<u8>>, event: fn(Bytes) -> ProcessEvent| output.map(|bytes| event(bytes.into()));
    of(stdout, ProcessEvent::Stdout).or(of(stderr, ProcessEvent::Stderr)).or(of(pty, ProcessEvent::Pty))
}

fn info_of(process: process::ProcessInfo) -> ProcessInfo {
    let ProcessConfig { cmd, args, cwd, .. } = process.config.unwrap_or_default();
    ProcessInfo { pid: process.pid, tag: process.tag, command: cmd, args, cwd }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_ends_before_the_process_carries_the_agents_words() {
        let error = end_error(br#"{"error":{"code":"not_found","message":"no such program"}}"#);
        assert_eq!((error.kind(), error.message()), (GuestErrorKind::NotFound, "no such program"));
        assert_eq!(end_error(b"{}").kind(), GuestErrorKind::Internal);
    }

    #[test]
    fn keepalives_and_starts_are_not_events_and_output_is() {
        assert_eq!(event_of(process::ProcessEvent::default()), None);
        let data = DataEvent { stderr: Some(b"oops".to_vec()), ..Default::default() };
        let event = process::ProcessEvent { data: Some(data), ..Default::default() };
        assert_eq!(event_of(event), Some(ProcessEvent::Stderr(Bytes::from_static(b"oops"))));
    }
}
