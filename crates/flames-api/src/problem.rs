//! Errors as clients see them: RFC 9457 problem details.

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flames_core::pools::PoolError;
use flames_core::rate::TooMany;
use flames_core::sandbox::error::{
    CreateSandboxError, ForkError, GuestCallError, InvalidRequest, LifecycleError, ResumeError, SnapshotError,
};
use flames_core::sandbox::room::NoRoom;
use flames_core::sandbox::state::State;
use flames_core::{InvalidName, SandboxId};
use flames_egress::InvalidPolicy;
use flames_node::{CreateError, CreateStep, GuestError, GuestErrorKind};
use flames_provider::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::error::Error as StdError;
use utoipa::ToSchema;

/// What went wrong, with whom, and how to mend it. Sent as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:flames:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:flames:problem:sandbox_not_found")]
    pub type_uri: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong, for a person.
    pub detail: String,
    /// What to branch on.
    #[schema(example = "sandbox_not_found")]
    pub code: String,
    /// What it is about, for example `sandbox`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// Seconds after which another try makes sense; also in the header `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem with a code to branch on and a detail for a person.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            type_uri: format!("urn:flames:problem:{code}"),
            title: code.replace('_', " "),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.to_owned(),
            resource: None,
            id: None,
            mend: None,
            retry_after_s: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        }
    }

    /// Says what it is about.
    #[must_use]
    pub fn about(mut self, resource: &str, id: impl Into<String>) -> Self {
        self.resource = Some(resource.to_owned());
        self.id = Some(id.into()).filter(|id: &String| !id.is_empty());
        self
    }

    /// Says how to mend it.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    pub(crate) fn invalid(field: &str, problem: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", problem).about("field", field)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::error!(code = %self.code, id = self.id, detail = %self.detail, "request failed");
        }
        let retry_after = self.retry_after_s;
        let mut response = (status, Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<CreateSandboxError> for Problem {
    fn from(error: CreateSandboxError) -> Self {
        match error {
            CreateSandboxError::Invalid(invalid) => invalid.into(),
            CreateSandboxError::Start(error) => from_node_create(&error),
            CreateSandboxError::FromSnapshot { id, source } => not_restored(&source, "snapshot", id.as_str()),
            CreateSandboxError::Snapshot(error) => error.into(),
            CreateSandboxError::NoRoom(full) => full.into(),
            CreateSandboxError::Record(error) | CreateSandboxError::HandOut(error) => error.into(),
            CreateSandboxError::InProgress => {
                Self::new(StatusCode::CONFLICT, "in_progress", error.to_string())
                    .mend("send it again a little later: it will get the sandbox that is being made")
            }
            CreateSandboxError::ShuttingDown => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", error.to_string())
                    .mend("try again when the daemon is up")
            }
        }
    }
}

fn from_node_create(error: &CreateError) -> Problem {
    let mut problem = from_provider(error.cause());
    problem.detail = format!("{error}: {}", problem.detail);
    match (error.step(), error.kind()) {
        (CreateStep::Template, ErrorKind::NotFound) => {
            problem.code = "template_not_found".to_owned();
            problem.mend("`flames template ls` lists what there is; `flames template build` makes one")
        }
        (CreateStep::Boot | CreateStep::AgentInit, _) => {
            problem.mend("`flames doctor` checks this host; the detail holds the last lines of the console")
        }
        (CreateStep::StartUp, _) => problem.mend(
            "the detail says what the start command wrote; `flames template build` takes another, and `sandbox.boot_deadline_s` \
             is how long it may take",
        ),
        _ => problem,
    }
}

/// A snapshot that the host refused, or could not start from now.
fn not_restored(error: &CreateError, resource: &str, id: &str) -> Problem {
    let mut problem = from_node_create(error).about(resource, id);
    let refused = matches!(
        error.kind(),
        ErrorKind::Corrupt
            | ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::InvalidInput
            | ErrorKind::Unsupported
    );
    if error.step() == CreateStep::Template && refused {
        problem = Problem::new(StatusCode::CONFLICT, "snapshot_unusable", problem.detail)
            .about(resource, id)
            .mend(
                "nothing was changed; a snapshot works with the VMM version, CPU, kernel and template image it was \
                 taken with: bring those back, or remove it",
            );
    }
    problem
}

impl From<ResumeError> for Problem {
    fn from(error: ResumeError) -> Self {
        match error {
            ResumeError::Sandbox(error) => error.into(),
            ResumeError::NoRoom(full) => full.into(),
            ResumeError::Start { id, source } => not_restored(&source, "sandbox", id.as_str()),
        }
    }
}

impl From<SnapshotError> for Problem {
    fn from(error: SnapshotError) -> Self {
        let told = error.to_string();
        let about = |status, code, id: &str| Self::new(status, code, told).about("snapshot", id);
        match &error {
            SnapshotError::Sandbox(_) | SnapshotError::Store(_) => {}
            SnapshotError::NotFound(id) => {
                return about(StatusCode::NOT_FOUND, "snapshot_not_found", id)
                    .mend("`flames snapshot ls` lists the snapshots that exist");
            }
            SnapshotError::NameTaken(name) => {
                return about(StatusCode::CONFLICT, "snapshot_name_taken", name)
                    .mend("choose another name, or remove the other with `flames snapshot rm`");
            }
            SnapshotError::Unfinished(id) => {
                return about(StatusCode::CONFLICT, "snapshot_unfinished", id.as_str())
                    .mend("try again when `flames snapshot ls` shows it as ready");
            }
            SnapshotError::Busy(id) => {
                return about(StatusCode::CONFLICT, "snapshot_in_use", id.as_str())
                    .mend("try again when the creates from it have ended");
            }
            SnapshotError::Missing(id) => {
                return about(StatusCode::CONFLICT, "snapshot_unusable", id.as_str())
                    .mend("remove it with `flames snapshot rm` and take another");
            }
        }
        match error {
            SnapshotError::Sandbox(error) => error.into(),
            SnapshotError::Store(error) => error.into(),
            other => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", other.to_string()),
        }
    }
}

impl From<ForkError> for Problem {
    fn from(error: ForkError) -> Self {
        let told = chain(&error);
        match error {
            ForkError::Source(error) => error.into(),
            ForkError::NoRoom(full) => full.into(),
            ForkError::Capture { id, source } => from_provider(&source).about("sandbox", id.as_str()),
            ForkError::Clones { id, first, .. } => {
                let mut problem = Self::from(*first).about("sandbox", id.as_str());
                problem.detail = told;
                problem
            }
            ForkError::ShuttingDown => CreateSandboxError::ShuttingDown.into(),
        }
    }
}

impl From<PoolError> for Problem {
    fn from(error: PoolError) -> Self {
        match &error {
            PoolError::Invalid { template, .. } => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request", error.to_string())
                    .about("pool", template)
            }
            PoolError::NotFound(template) => {
                Self::new(StatusCode::NOT_FOUND, "pool_not_found", error.to_string())
                    .about("pool", template.as_str())
                    .mend("`flames pool ls` lists the pools there are; `flames pool set` makes one")
            }
            PoolError::Refused(refused) => from_provider(refused),
        }
    }
}

impl From<NoRoom> for Problem {
    fn from(full: NoRoom) -> Self {
        let seconds = full.retry_after.as_secs().max(1);
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_room", full.to_string())
            .about("node", "memory")
            .mend("try again later, end sandboxes, ask for less `memory_mib`, or raise `limits.memory_mib`");
        problem.retry_after_s = Some(seconds);
        problem
    }
}

impl From<LifecycleError> for Problem {
    fn from(error: LifecycleError) -> Self {
        match &error {
            LifecycleError::NotFound(id) => {
                sandbox_problem(StatusCode::NOT_FOUND, "sandbox_not_found", &error, id)
                    .mend("`flames ls` lists the sandboxes that exist")
            }
            LifecycleError::NotRunning { id, state } => {
                sandbox_problem(StatusCode::CONFLICT, "sandbox_not_running", &error, id)
                    .mend(to_make_it_run(*state))
            }
            LifecycleError::NotPaused { id, .. } => {
                sandbox_problem(StatusCode::CONFLICT, "sandbox_not_paused", &error, id)
                    .mend("`flames inspect` shows its state; only a paused sandbox can be resumed")
            }
            LifecycleError::Rejected(_) => {
                Self::new(StatusCode::CONFLICT, "wrong_state", error.to_string()).about("sandbox", "")
            }
            LifecycleError::Invalid(invalid) => invalid.clone().into(),
            LifecycleError::Store(source) => from_provider(source),
            LifecycleError::Node { id, source } => from_node_call(id, source),
            LifecycleError::Unreadable(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "record_unreadable", chain(&error))
            }
        }
    }
}

/// A host that failed at a sandbox; one that lacks its run is no missing sandbox.
fn from_node_call(id: &SandboxId, error: &Error) -> Problem {
    let mut problem = from_provider(error).about("sandbox", id.as_str());
    match error.kind() {
        ErrorKind::NotFound => {
            problem = Problem::new(StatusCode::CONFLICT, "sandbox_not_running", problem.detail)
                .about("sandbox", id.as_str());
        }
        ErrorKind::Unsupported if error.resource() == "network policy" => {
            problem.mend =
                Some("run the daemon as root: then each sandbox has a network of its own".to_owned());
        }
        ErrorKind::Unsupported => {
            problem.mend = Some(
                "the VMM driver of this host cannot do it: `flames doctor` says which one is in use"
                    .to_owned(),
            );
        }
        _ => {}
    }
    problem
}

fn to_make_it_run(state: State) -> &'static str {
    match state {
        State::Paused | State::Snapshotted => "`flames resume` brings it back",
        State::Failed => "`flames inspect` says why it failed; create another",
        State::Stopping | State::Stopped => "it ends; create another",
        _ => "try again when `flames inspect` shows it running",
    }
}

fn sandbox_problem(status: StatusCode, code: &str, error: &LifecycleError, id: &SandboxId) -> Problem {
    Problem::new(status, code, error.to_string()).about("sandbox", id.as_str())
}

impl From<GuestCallError> for Problem {
    fn from(error: GuestCallError) -> Self {
        match error {
            GuestCallError::Sandbox(error) => error.into(),
            GuestCallError::Guest(error) => error.into(),
        }
    }
}

impl From<GuestError> for Problem {
    fn from(error: GuestError) -> Self {
        let (status, code) = match error.kind() {
            GuestErrorKind::NotFound => (StatusCode::NOT_FOUND, "guest_not_found"),
            GuestErrorKind::AlreadyExists => (StatusCode::CONFLICT, "guest_already_exists"),
            GuestErrorKind::InvalidArgument => (StatusCode::BAD_REQUEST, "guest_invalid_argument"),
            GuestErrorKind::Unauthenticated => (StatusCode::BAD_REQUEST, "guest_unknown_user"),
            GuestErrorKind::PermissionDenied => (StatusCode::FORBIDDEN, "guest_permission_denied"),
            GuestErrorKind::ResourceExhausted => {
                (StatusCode::INSUFFICIENT_STORAGE, "guest_resource_exhausted")
            }
            GuestErrorKind::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "guest_deadline_exceeded"),
            GuestErrorKind::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "guest_unimplemented"),
            GuestErrorKind::Unavailable => (StatusCode::BAD_GATEWAY, "guest_unavailable"),
            GuestErrorKind::Internal => (StatusCode::BAD_GATEWAY, "guest_internal"),
        };
        Self::new(status, code, chain(&error))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        from_provider(&error)
    }
}

fn from_provider(error: &Error) -> Problem {
    let (status, code) = match error.kind() {
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        ErrorKind::AlreadyExists => (StatusCode::CONFLICT, "already_exists"),
        ErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
        ErrorKind::Unsupported => (StatusCode::NOT_IMPLEMENTED, "unsupported"),
        ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        ErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
        ErrorKind::PermissionDenied => (StatusCode::FORBIDDEN, "permission_denied"),
        ErrorKind::InvalidInput => (StatusCode::BAD_REQUEST, "invalid_request"),
        ErrorKind::Corrupt => (StatusCode::INTERNAL_SERVER_ERROR, "corrupt"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    };
    Problem::new(status, code, chain(error)).about(error.resource(), error.id())
}

/// An error and its causes in one line.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl From<TooMany> for Problem {
    fn from(too_many: TooMany) -> Self {
        let seconds = too_many.retry_after.as_secs();
        let mut problem =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests with this API key")
                .mend(format!("wait {seconds} s, or raise `api.requests_per_minute`"));
        problem.retry_after_s = Some(seconds);
        problem
    }
}

impl From<InvalidRequest> for Problem {
    fn from(error: InvalidRequest) -> Self {
        Self::invalid(error.field, error.problem)
    }
}

impl From<InvalidPolicy> for Problem {
    fn from(error: InvalidPolicy) -> Self {
        let first = error.mistakes.first();
        let place = first.map(|mistake| format!("network.{}", mistake.place)).unwrap_or_default();
        let problem = Self::invalid(&place, error.to_string());
        match first {
            Some(mistake) => problem.mend(mistake.mend.clone()),
            None => problem,
        }
    }
}

impl From<InvalidName> for Problem {
    fn from(error: InvalidName) -> Self {
        Self::invalid(error.what, error.to_string())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "wrong_media_type",
            _ => "invalid_request",
        };
        // 422 says nothing to a client that 400 does not.
        let status = match rejection.status() {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        Self::new(status, code, rejection.body_text()).about("body", "")
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
            _ => "invalid_request",
        };
        Self::new(rejection.status(), code, rejection.body_text()).about("body", "")
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid("query", rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid("path", rejection.body_text())
    }
}

/// The answer when a handler panicked: a bug, said as one.
pub(crate) fn from_panic(_panic: Box<dyn Any + Send + 'static>) -> Response {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "a bug in Flames; the daemon's log says where",
    )
    .into_response()
}
