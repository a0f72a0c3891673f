//! What the proxy says itself, in the words that the clients look for.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use flames_core::SandboxId;
use serde::Serialize;

/// An answer that no sandbox gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refusal {
    sandbox_id: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    code: u16,
}

impl Refusal {
    fn new(status: StatusCode, id: &str, port: Option<u16>, message: impl Into<String>) -> Self {
        Self { sandbox_id: id.to_owned(), message: message.into(), port, code: status.as_u16() }
    }

    /// It does not exist, has ended, or is not running.
    pub(crate) fn no_sandbox(id: &SandboxId) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, id.as_str(), None, "The sandbox was not found")
    }

    /// Nobody in the sandbox listens there.
    pub(crate) fn closed_port(id: &SandboxId, port: u16) -> Self {
        let message = "The sandbox is running but port is not open";
        Self::new(StatusCode::BAD_GATEWAY, id.as_str(), Some(port), message)
    }

    /// Somebody listened, and broke the connection before there was an answer.
    pub(crate) fn broke_off(id: &SandboxId, port: u16, why: String) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, id.as_str(), Some(port), why)
    }

    /// Its servers are for those who show a token.
    pub(crate) fn no_traffic_token(id: &SandboxId) -> Self {
        let message = "the traffic access token is missing or wrong";
        Self::new(StatusCode::FORBIDDEN, id.as_str(), None, message)
    }

    /// A call of the agent that is nobody's but the node's, or does not exist.
    pub(crate) fn private_call(id: &SandboxId) -> Self {
        Self::new(StatusCode::NOT_FOUND, id.as_str(), None, "no such call")
    }

    /// A signature that no running sandbox made.
    pub(crate) fn unknown_signature() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "", None, "invalid signature")
    }

    /// A fault of ours.
    pub(crate) fn fault(id: &str, why: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, id, None, why)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(sandbox = %self.sandbox_id, message = %self.message, "a request was not forwarded");
        }
        (status, Json(self)).into_response()
    }
}
