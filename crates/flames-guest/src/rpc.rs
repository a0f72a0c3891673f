//! What can go wrong in a call: codes, their HTTP status, and how a stream ends.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Content type of a unary call.
pub const UNARY_CONTENT_TYPE: &str = "application/json";
/// Content type of a streaming call.
pub const STREAM_CONTENT_TYPE: &str = "application/connect+json";
/// Milliseconds the caller is ready to wait; on `Start`, the life of the process.
pub const TIMEOUT_HEADER: &str = "Connect-Timeout-Ms";
/// Seconds of silence on a stream after which a keepalive is sent.
pub const KEEPALIVE_HEADER: &str = "Keepalive-Ping-Interval";

/// The error of a call. `Display` is its message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// What to branch on.
    pub code: Code,
    /// For a person.
    #[serde(default)]
    pub message: String,
}

impl RpcError {
    /// An error with a message for a person. Must hold no secret.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Payload of the last frame of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndOfStream {
    /// Absent when all went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RpcError>,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $text:literal $status:literal),+ $(,)?) => {
        /// What kind of error a call met.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Code { $($(#[$doc])* $variant),+ }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The HTTP status of a unary call that fails with it.
            pub fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status),+ }
            }
        }
    };
}

codes! {
    /// The caller went away.
    Canceled "canceled" 499,
    /// Nobody knows.
    Unknown "unknown" 500,
    /// The request is wrong, whatever the state.
    InvalidArgument "invalid_argument" 400,
    /// Time was up.
    DeadlineExceeded "deadline_exceeded" 504,
    /// What was named does not exist.
    NotFound "not_found" 404,
    /// What was to be made exists.
    AlreadyExists "already_exists" 409,
    /// The caller may not do that.
    PermissionDenied "permission_denied" 403,
    /// A limit is reached.
    ResourceExhausted "resource_exhausted" 429,
    /// The state does not allow it.
    FailedPrecondition "failed_precondition" 400,
    /// Somebody else was first.
    Aborted "aborted" 409,
    /// Past a valid range.
    OutOfRange "out_of_range" 400,
    /// There is no such method, or not yet.
    Unimplemented "unimplemented" 501,
    /// A fault of the agent.
    Internal "internal" 500,
    /// Not now.
    Unavailable "unavailable" 503,
    /// Data is gone.
    DataLoss "data_loss" 500,
    /// The caller is not known.
    Unauthenticated "unauthenticated" 401,
}

impl Code {
    /// The code that stands for a status whose body has none.
    pub fn from_http_status(status: u16) -> Self {
        match status {
            400 => Self::InvalidArgument,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            409 => Self::AlreadyExists,
            413 | 429 => Self::ResourceExhausted,
            499 => Self::Canceled,
            501 => Self::Unimplemented,
            502 | 503 => Self::Unavailable,
            504 => Self::DeadlineExceeded,
            500 => Self::Internal,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_written_with_its_name() {
        for &code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
    }

    #[test]
    fn the_codes_that_clients_branch_on_survive_a_trip_through_the_status() {
        use Code::*;
        for code in
            [InvalidArgument, Unauthenticated, NotFound, AlreadyExists, Unimplemented, Unavailable, Internal]
        {
            assert_eq!(Code::from_http_status(code.http_status()), code);
        }
    }

    #[test]
    fn a_stream_that_ended_well_ends_with_an_empty_object() {
        assert_eq!(serde_json::to_string(&EndOfStream::default()).unwrap(), "{}");
        let end = EndOfStream { error: Some(RpcError::new(Code::NotFound, "no process 7")) };
        assert_eq!(
            serde_json::to_string(&end).unwrap(),
            r#"{"error":{"code":"not_found","message":"no process 7"}}"#
        );
    }
}
