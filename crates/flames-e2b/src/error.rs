//! Errors as the clients of E2B parse them: `{"code": <status>, "message": "…"}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flames_core::rate::TooMany;
use flames_core::sandbox::error::{
    CreateSandboxError, ForkError, GuestCallError, InvalidRequest, LifecycleError, ResumeError, SnapshotError,
};
use flames_core::sandbox::room::NoRoom;
use flames_node::{CreateError, CreateStep, GuestErrorKind};
use flames_provider::{Error, ErrorKind};
use serde::Serialize;
use std::any::Any;
use std::error::Error as StdError;

/// What went wrong. The clients branch on `code`, in the body, as much as on the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ApiError {
    /// The HTTP status again.
    pub(crate) code: u16,
    /// For a person.
    pub(crate) message: String,
    /// Seconds after which another try makes sense.
    #[serde(skip)]
    pub(crate) retry_after_s: Option<u64>,
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { code: status.as_u16(), message: message.into(), retry_after_s: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn no_sandbox(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("sandbox \"{}\" was not found", shown(id)))
    }

    pub(crate) fn no_template(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("template '{}' not found", shown(name)))
    }

    /// For calls of E2B that Flames does not have yet.
    pub(crate) fn unsupported(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, format!("{what} not supported by this Flames"))
    }
}

/// What a client sent, short enough to send it back.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            tracing::error!(code = self.code, message = %self.message, "request failed");
        }
        let retry_after = self.retry_after_s;
        let mut response = (status, Json(self)).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<CreateSandboxError> for ApiError {
    fn from(error: CreateSandboxError) -> Self {
        match error {
            CreateSandboxError::Invalid(invalid) => invalid.into(),
            CreateSandboxError::Start(error) if error.step() == CreateStep::Template => match error.kind() {
                ErrorKind::NotFound => Self::no_template(error.cause().id()),
                _ => error.cause().into(),
            },
            CreateSandboxError::Start(error) => {
                let cause = Self::from(error.cause());
                Self { message: format!("{error}: {}", cause.message), ..cause }
            }
            CreateSandboxError::Record(error) | CreateSandboxError::HandOut(error) => error.into(),
            CreateSandboxError::FromSnapshot { ref source, .. } => {
                let cause = Self::from(CreateError::cause(source));
                Self { message: chain(&error), ..cause }
            }
            CreateSandboxError::Snapshot(error) => error.into(),
            CreateSandboxError::NoRoom(ref full) => full.into(),
            CreateSandboxError::InProgress => Self::new(StatusCode::CONFLICT, error.to_string()),
            CreateSandboxError::ShuttingDown => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        }
    }
}

impl From<LifecycleError> for ApiError {
    fn from(error: LifecycleError) -> Self {
        match &error {
            LifecycleError::NotFound(id) => Self::no_sandbox(id.as_str()),
            LifecycleError::NotRunning { .. }
            | LifecycleError::NotPaused { .. }
            | LifecycleError::Rejected(_) => Self::new(StatusCode::CONFLICT, error.to_string()),
            LifecycleError::Invalid(invalid) => invalid.clone().into(),
            LifecycleError::Store(source) => source.into(),
            LifecycleError::Node { source, .. } => source.as_ref().into(),
            LifecycleError::Unreadable(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)),
        }
    }
}

impl From<ResumeError> for ApiError {
    fn from(error: ResumeError) -> Self {
        match error {
            ResumeError::Sandbox(error) => error.into(),
            ResumeError::NoRoom(ref full) => full.into(),
            ResumeError::Start { ref source, .. } => {
                Self { message: chain(&error), ..Self::from(CreateError::cause(source)) }
            }
        }
    }
}

impl From<SnapshotError> for ApiError {
    fn from(error: SnapshotError) -> Self {
        let status = match error {
            SnapshotError::Sandbox(error) => return error.into(),
            SnapshotError::Store(error) => return error.into(),
            SnapshotError::NotFound(_) => StatusCode::NOT_FOUND,
            SnapshotError::Missing(_) => StatusCode::INTERNAL_SERVER_ERROR,
            SnapshotError::NameTaken(_) | SnapshotError::Unfinished(_) | SnapshotError::Busy(_) => {
                StatusCode::CONFLICT
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<ForkError> for ApiError {
    fn from(error: ForkError) -> Self {
        match error {
            ForkError::Source(error) => error.into(),
            ForkError::NoRoom(ref full) => full.into(),
            ForkError::ShuttingDown => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            ForkError::Capture { .. } | ForkError::Clones { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, chain(&error))
            }
        }
    }
}

impl From<&NoRoom> for ApiError {
    fn from(full: &NoRoom) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, full.to_string())
    }
}

impl From<InvalidRequest> for ApiError {
    fn from(error: InvalidRequest) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<GuestCallError> for ApiError {
    fn from(error: GuestCallError) -> Self {
        match error {
            GuestCallError::Sandbox(error) => error.into(),
            GuestCallError::Guest(error) if error.kind() == GuestErrorKind::Unavailable => {
                Self::new(StatusCode::BAD_GATEWAY, chain(&error))
            }
            GuestCallError::Guest(error) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)),
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for ApiError {
    fn from(error: &Error) -> Self {
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::AlreadyExists | ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, chain(error))
    }
}

impl From<TooMany> for ApiError {
    fn from(too_many: TooMany) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests with this API key");
        error.retry_after_s = Some(too_many.retry_after.as_secs());
        error
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A bug of ours, in the shape of an error.
pub(crate) fn from_panic(_: Box<dyn Any + Send + 'static>) -> Response {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of the server; its log says more")
        .into_response()
}
