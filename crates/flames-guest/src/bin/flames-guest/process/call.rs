//! The methods of `process.Process`.

use super::events::{Item, keepalive_frame, start_frame};
use super::spawn::Plan;
use super::supervise::supervise;
use super::table::Process;
use crate::agent::Agent;
use crate::http::{
    Answer, Body, Failure, Messages, end_frame, json, message_frame, read_one_frame, read_unary, stream,
};
use crate::routes::named_user;
use crate::timing::{deadline_exceeded, deadline_of, keepalive_of, passed, timeout_of, within_deadline};
use bytes::Bytes;
use flames_guest::process::{
    CloseStdinRequest, ConnectRequest, Empty, ListResponse, ProcessInput, ProcessSelector, SendInputRequest,
    SendSignalRequest, Signal, StartRequest, StreamInputRequest, UpdateRequest,
};
use flames_guest::rpc::{Code, RpcError};
use futures_util::stream::unfold;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Request;
use hyper::body::{Frame, Incoming};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// How long a client that streams input may be silent: it sends keepalives of its own.
const INPUT_IDLE: Duration = Duration::from_secs(300);

/// Answers one call of the service.
pub(crate) async fn call(
    agent: Arc<Agent>,
    request: Request<Incoming>,
    method: &str,
) -> Result<Answer, Failure> {
    match method {
        "Start" => start(agent, request).await.map_err(Failure::Stream),
        "Connect" => connect(&agent, request).await.map_err(Failure::Stream),
        "StreamInput" => stream_input(&agent, request).await.map_err(Failure::Stream),
        _ => {
            let timeout = timeout_of(request.headers())?;
            Ok(within_deadline(timeout, unary(&agent, request, method)).await?)
        }
    }
}

async fn unary(agent: &Agent, request: Request<Incoming>, method: &str) -> Result<Answer, RpcError> {
    match method {
        "List" => list(agent, request).await,
        "Update" => update(agent, request).await,
        "SendInput" => send_input(agent, request).await,
        "SendSignal" => send_signal(agent, request).await,
        "CloseStdin" => close_stdin(agent, request).await,
        _ => Err(RpcError::new(Code::Unimplemented, format!("process.Process has no method {method}"))),
    }
}

async fn start(agent: Arc<Agent>, request: Request<Incoming>) -> Result<Answer, RpcError> {
    let user = named_user(request.headers()).and_then(|name| agent.user(name.as_deref()));
    let (deadline, keepalive) = (deadline_of(request.headers()), keepalive_of(request.headers()));
    // Before anything is refused: an answer to half a request may be lost with its connection.
    let message: StartRequest = read_one_frame(request).await?;
    let (user, deadline) = (user?, deadline?);
    let cwd = message.process.as_ref().and_then(|config| config.cwd.as_deref()).unwrap_or_default();
    let cwd = agent.resolve(cwd, &user)?;
    let plan = Plan::new(message, user, cwd, &agent.settings().clone())?;
    let mut output = None;
    let process = agent.processes.start(|| {
        let (process, pipes) = plan.spawn()?;
        output = Some(pipes);
        Ok(process)
    })?;
    let follower = Follower::new(&process, keepalive, deadline, Owner::Starter);
    if let Some(output) = output {
        tokio::spawn(supervise(agent, process, output, deadline));
    }
    Ok(stream(follower.into_body()))
}

async fn connect(agent: &Agent, request: Request<Incoming>) -> Result<Answer, RpcError> {
    let (deadline, keepalive) = (deadline_of(request.headers())?, keepalive_of(request.headers()));
    let message: ConnectRequest = read_one_frame(request).await?;
    let process = agent.processes.select(message.process.as_ref())?;
    Ok(stream(Follower::new(&process, keepalive, deadline, Owner::Other).into_body()))
}

async fn list(agent: &Agent, request: Request<Incoming>) -> Result<Answer, RpcError> {
    let _nothing: Empty = read_unary(request).await?;
    Ok(json(&ListResponse { processes: agent.processes.list() }))
}

async fn update(agent: &Agent, request: Request<Incoming>) -> Result<Answer, RpcError> {
    let message: UpdateRequest = read_unary(request).await?;
    let process = agent.processes.select_running(message.process.as_ref())?;
    if let Some(size) = message.pty.and_then(|pty| pty.size) {
        let terminal = process.terminal.as_ref().ok_or_else(|| no_terminal(&process))?;
        let failed = |error| RpcError::new(Code::Internal, format!("cannot change the size: {error}"));
        terminal.resize(size).map_err(failed)?;
    }
    Ok(json(&Empty {}))
}

async fn send_input(agent: &Agent, request: Request<Incoming>) -> Result<Answer, RpcError> {
    let message: SendInputRequest = read_unary(request).await?;
    write_input(agent, message.process.as_ref(), message.input).await?;
    Ok(json(&Empty {}))
}

async fn stream_input(agent: &Agent, request: Request<Incoming>) -> Result<Answer, RpcError> {
    let mut messages = Messages::of(request, INPUT_IDLE)?;
    let mut selected = None;
    while let Some(message) = messages.next::<StreamInputRequest>().await? {
        if let Some(start) = message.start {
            agent.processes.select_running(start.process.as_ref())?;
            selected = start.process;
        }
        if let Some(data) = message.data {
            write_input(agent, selected.as_ref(), data.input).await?;
        }
    }
    let mut answer = message_frame(&Empty {}).to_vec();
    answer.extend_from_slice(&end_frame(None));
    Ok(stream(crate::http::full(answer)))
}

/// Writes as fast as the process reads: a full pipe makes the caller wait.
async fn write_input(
    agent: &Agent,
    selector: Option<&ProcessSelector>,
    input: Option<ProcessInput>,
) -> Result<(), RpcError> {
    let process = agent.processes.select_running(selector)?;
    let bytes = match (input.unwrap_or_default(), &process.terminal) {
        (ProcessInput { stdin: Some(bytes), .. }, None)
        | (ProcessInput { pty: Some(bytes), stdin: None }, Some(_)) => bytes,
        (ProcessInput { pty: Some(_), .. }, None) => return Err(no_terminal(&process)),
        (ProcessInput { stdin: Some(_), .. }, Some(_)) => return Err(on_terminal(&process)),
        _ => return Err(RpcError::new(Code::InvalidArgument, "the input has neither stdin nor pty")),
    };
    let mut input = process.input.lock().await;
    let to = input.as_mut().ok_or_else(|| closed_stdin(&process))?;
    // The process closed its end, or ended.
    to.write_all(&bytes).await.map_err(|_| closed_stdin(&process))
}

async fn close_stdin(agent: &Agent, request: Request<Incoming>) -> Result<Answer, RpcError> {
    let message: CloseStdinRequest = read_unary(request).await?;
    let process = agent.processes.select_running(message.process.as_ref())?;
    if process.terminal.is_some() {
        return Err(on_terminal(&process));
    }
    process.input.lock().await.take();
    Ok(json(&Empty {}))
}

async fn send_signal(agent: &Agent, request: Request<Incoming>) -> Result<Answer, RpcError> {
    let message: SendSignalRequest = read_unary(request).await?;
    let process = agent.processes.select_running(message.process.as_ref())?;
    match message.signal {
        Signal::Unspecified => return Err(RpcError::new(Code::InvalidArgument, "the signal is missing")),
        Signal::Terminate => agent.processes.signal(&process, nix::sys::signal::Signal::SIGTERM)?,
        Signal::Kill => {
            agent.processes.signal(&process, nix::sys::signal::Signal::SIGKILL)?;
            // Callers look right afterwards whether it is gone, and a zombie would still be there.
            process.ended().await;
        }
    }
    Ok(json(&Empty {}))
}

/// Whose deadline a stream's deadline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Of `Start`: it is the process's own, and its end is never told as an `end`.
    Starter,
    /// Of `Connect`: it bounds the stream alone.
    Other,
}

/// The stream of one process to one client.
#[derive(Debug)]
struct Follower {
    process: Arc<Process>,
    items: mpsc::Receiver<Item>,
    keepalive: Duration,
    deadline: Option<Instant>,
    owner: Owner,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    Events,
    EndOfStream,
    Done,
}

impl Follower {
    fn new(process: &Arc<Process>, keepalive: Duration, deadline: Option<Instant>, owner: Owner) -> Self {
        let items = process.hub.subscribe();
        Self { process: Arc::clone(process), items, keepalive, deadline, owner, phase: Phase::Start }
    }

    fn into_body(self) -> Body {
        let frames = unfold(self, |mut follower| async move {
            let frame = follower.next().await?;
            Some((Ok(Frame::data(frame)), follower))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    async fn next(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::Start => {
                self.phase = Phase::Events;
                Some(start_frame(self.process.pid))
            }
            Phase::Events => Some(self.next_event().await),
            Phase::EndOfStream => {
                self.phase = Phase::Done;
                Some(end_frame(None))
            }
            Phase::Done => None,
        }
    }

    async fn next_event(&mut self) -> Bytes {
        tokio::select! {
            biased;
            () = passed(self.deadline) => self.timed_out(),
            item = self.items.recv() => match item {
                Some(Item::Data(frame)) => frame,
                Some(Item::End(_)) if self.ended_by_own_deadline() => self.timed_out(),
                Some(Item::End(frame)) => {
                    self.phase = Phase::EndOfStream;
                    frame
                }
                None => self.fail(RpcError::new(Code::ResourceExhausted, "this stream was not read and held up others")),
            },
            () = sleep(self.keepalive) => keepalive_frame(),
        }
    }

    fn ended_by_own_deadline(&self) -> bool {
        self.owner == Owner::Starter && self.process.timed_out.load(Ordering::Relaxed)
    }

    fn timed_out(&mut self) -> Bytes {
        self.fail(deadline_exceeded())
    }

    fn fail(&mut self, error: RpcError) -> Bytes {
        self.phase = Phase::Done;
        end_frame(Some(error))
    }
}

fn closed_stdin(process: &Process) -> RpcError {
    RpcError::new(Code::FailedPrecondition, format!("stdin of process {} is closed", process.pid))
}

fn no_terminal(process: &Process) -> RpcError {
    RpcError::new(Code::FailedPrecondition, format!("process {} has no terminal", process.pid))
}

fn on_terminal(process: &Process) -> RpcError {
    RpcError::new(
        Code::FailedPrecondition,
        format!("process {} is on a terminal: its input is pty, and ends with Ctrl-D", process.pid),
    )
}
