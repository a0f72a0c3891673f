//! Commands in a sandbox: start and follow, feed, signal.

use crate::Api;
use crate::extract::{Json, Path};
use crate::model::{ExecEvent, ExecRequest, ProcessView, SignalName, SignalRequest, StdinMode, TerminalSize};
use crate::problem::Problem;
use axum::body::Body;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flames_core::SandboxId;
use flames_core::activity::Work;
use flames_node::{GuestResult, ProcessEvent, ProcessEvents, Signal, StartProcess, Stdin};
use std::convert::Infallible;
use std::time::{Duration, Instant};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(exec))
        .routes(routes!(list))
        .routes(routes!(send_input, close_input))
        .routes(routes!(type_keys, resize))
        .routes(routes!(signal))
}

/// Run a command and follow it. A client that goes away does not end it.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/exec", tag = "processes", params(("id" = String, Path)),
    request_body = ExecRequest,
    responses(
        (status = 200, description = "one event a line", content_type = "application/x-ndjson", body = ExecEvent),
        (status = 400, description = "unknown user, or a working directory that does not exist", body = Problem),
        (status = 404, description = "no such sandbox, or no such command in it", body = Problem),
        (status = 409, description = "the sandbox does not run", body = Problem),
    ),
)]
async fn exec(
    State(api): State<Api>,
    Path(id): Path<String>,
    Json(request): Json<ExecRequest>,
) -> Result<Response, Problem> {
    let asked = Instant::now();
    let id = SandboxId::parse(&id)?;
    let process = to_process(request)?;
    let guest = api.plane.guest(&id).await?;
    let events = guest.start(&process).await?;
    let follow = Follow {
        api,
        id,
        events,
        asked,
        first_output_ms: None,
        phase: Phase::Starting,
        _work: guest.into_work(),
    };
    Ok(ndjson(follow.lines()))
}

/// The processes that were started through the API and have not ended.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/processes", tag = "processes", params(("id" = String, Path)),
    responses((status = 200, body = Vec<ProcessView>), (status = 404, body = Problem)),
)]
async fn list(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<axum::Json<Vec<ProcessView>>, Problem> {
    let processes = api.plane.guest(&SandboxId::parse(&id)?).await?.processes().await?;
    Ok(axum::Json(processes.into_iter().map(ProcessView::from).collect()))
}

/// Write to a process' standard input.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/processes/{pid}/stdin", tag = "processes",
    params(("id" = String, Path), ("pid" = u32, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "at most 1 MiB"),
    responses(
        (status = 204), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 413, description = "more than 1 MiB at once", body = Problem),
    ),
)]
async fn send_input(
    State(api): State<Api>,
    Path((id, pid)): Path<(String, u32)>,
    input: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let input = input?;
    api.plane.guest(&SandboxId::parse(&id)?).await?.send_input(pid, &input).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Close a process' standard input.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/processes/{pid}/stdin", tag = "processes",
    params(("id" = String, Path), ("pid" = u32, Path)),
    responses((status = 204), (status = 404, body = Problem)),
)]
async fn close_input(
    State(api): State<Api>,
    Path((id, pid)): Path<(String, u32)>,
) -> Result<StatusCode, Problem> {
    api.plane.guest(&SandboxId::parse(&id)?).await?.close_stdin(pid).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Type into a process' terminal.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/processes/{pid}/terminal", tag = "processes",
    params(("id" = String, Path), ("pid" = u32, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "at most 1 MiB"),
    responses(
        (status = 204), (status = 400, description = "it has no terminal", body = Problem),
        (status = 404, body = Problem), (status = 413, description = "more than 1 MiB at once", body = Problem),
    ),
)]
async fn type_keys(
    State(api): State<Api>,
    Path((id, pid)): Path<(String, u32)>,
    keys: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let keys = keys?;
    api.plane.guest(&SandboxId::parse(&id)?).await?.send_keys(pid, &keys).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change the size of a process' terminal.
#[utoipa::path(
    put, path = "/v1/sandboxes/{id}/processes/{pid}/terminal", tag = "processes",
    params(("id" = String, Path), ("pid" = u32, Path)), request_body = TerminalSize,
    responses(
        (status = 204), (status = 400, description = "it has no terminal", body = Problem),
        (status = 404, body = Problem),
    ),
)]
async fn resize(
    State(api): State<Api>,
    Path((id, pid)): Path<(String, u32)>,
    Json(size): Json<TerminalSize>,
) -> Result<StatusCode, Problem> {
    let size = to_size(size)?;
    api.plane.guest(&SandboxId::parse(&id)?).await?.resize(pid, size).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Send a signal to a process.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/processes/{pid}/signal", tag = "processes",
    params(("id" = String, Path), ("pid" = u32, Path)), request_body = SignalRequest,
    responses((status = 204), (status = 404, body = Problem)),
)]
async fn signal(
    State(api): State<Api>,
    Path((id, pid)): Path<(String, u32)>,
    Json(request): Json<SignalRequest>,
) -> Result<StatusCode, Problem> {
    let signal = match request.signal {
        SignalName::Term => Signal::Term,
        SignalName::Kill => Signal::Kill,
    };
    api.plane.guest(&SandboxId::parse(&id)?).await?.signal(pid, signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn to_process(request: ExecRequest) -> Result<StartProcess, Problem> {
    let mut words = request.command.into_iter();
    let command = words.next().filter(|command| !command.is_empty());
    Ok(StartProcess {
        command: command.ok_or_else(|| Problem::invalid("command", "must name a program"))?,
        args: words.collect(),
        env: request.env,
        cwd: request.cwd,
        user: request.user,
        tag: None,
        stdin: match request.stdin {
            StdinMode::Null => Stdin::Null,
            StdinMode::Open => Stdin::Open,
        },
        timeout: request.timeout_s.filter(|seconds| *seconds > 0).map(Duration::from_secs),
        terminal: request.terminal.map(to_size).transpose()?,
    })
}

fn to_size(size: TerminalSize) -> Result<flames_node::TerminalSize, Problem> {
    if size.columns == 0 || size.rows == 0 {
        return Err(Problem::invalid("terminal", "must have at least one column and one row"));
    }
    Ok(flames_node::TerminalSize { columns: size.columns, rows: size.rows })
}

/// A process' events as lines.
struct Follow {
    api: Api,
    id: SandboxId,
    events: ProcessEvents,
    asked: Instant,
    first_output_ms: Option<f64>,
    phase: Phase,
    /// As long as somebody follows it the sandbox is in use.
    _work: Work,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Ended,
}

impl Follow {
    fn lines(self) -> impl futures::Stream<Item = ExecEvent> + Send {
        futures::stream::unfold(self, |mut follow| async move { Some((follow.step().await?, follow)) })
    }

    async fn step(&mut self) -> Option<ExecEvent> {
        match self.phase {
            Phase::Starting => {
                self.phase = Phase::Running;
                Some(ExecEvent::Started { pid: self.events.pid() })
            }
            Phase::Running => {
                let event = self.events.next().await?;
                Some(self.line(event))
            }
            Phase::Ended => None,
        }
    }

    fn line(&mut self, event: GuestResult<ProcessEvent>) -> ExecEvent {
        match event {
            Ok(ProcessEvent::Stdout(data) | ProcessEvent::Pty(data)) => {
                self.note_output();
                ExecEvent::Stdout { data: STANDARD.encode(data) }
            }
            Ok(ProcessEvent::Stderr(data)) => {
                self.note_output();
                ExecEvent::Stderr { data: STANDARD.encode(data) }
            }
            Ok(ProcessEvent::End(end)) => {
                self.phase = Phase::Ended;
                let first_output_ms = self.note_output();
                ExecEvent::Exit { exit_code: end.exit_code, status: end.status, first_output_ms }
            }
            Err(error) => {
                self.phase = Phase::Ended;
                ExecEvent::Error { problem: Box::new(error.into()) }
            }
        }
    }

    /// Remembers the moment of the first output, here and, off the stream's path, in the record.
    fn note_output(&mut self) -> f64 {
        *self.first_output_ms.get_or_insert_with(|| {
            let took_ms = self.asked.elapsed().as_secs_f64() * 1000.0;
            let (api, id) = (self.api.clone(), self.id.clone());
            tokio::spawn(async move {
                if let Err(error) = api.plane.record_first_command(&id, took_ms).await {
                    tracing::debug!(sandbox = %id, %error, "the first command's time was not recorded");
                }
            });
            took_ms
        })
    }
}

/// A response with one JSON document a line, sent as they come.
pub(crate) fn ndjson<T: serde::Serialize>(
    events: impl futures::Stream<Item = T> + Send + 'static,
) -> Response {
    let lines = futures::StreamExt::map(events, |event| {
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

impl From<flames_node::ProcessInfo> for ProcessView {
    fn from(process: flames_node::ProcessInfo) -> Self {
        let command = std::iter::once(process.command).chain(process.args).collect();
        Self { pid: process.pid, command, cwd: process.cwd }
    }
}
