//! Deadlines and keepalives, as a call's headers ask for them.

use crate::http::header;
use flames_guest::rpc::{Code, KEEPALIVE_HEADER, RpcError, TIMEOUT_HEADER};
use hyper::header::HeaderMap;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long a stream may be silent, unless the caller says otherwise.
const KEEPALIVE: Duration = Duration::from_secs(90);

/// Carries out a unary call within the caller's deadline.
///
/// # Errors
/// `deadline_exceeded`, or what the call says.
pub(crate) async fn within_deadline<T, E: From<RpcError>>(
    timeout: Option<Duration>,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match timeout {
        None => call.await,
        Some(timeout) => match tokio::time::timeout(timeout, call).await {
            Ok(answer) => answer,
            Err(_) => Err(deadline_exceeded().into()),
        },
    }
}

/// When the caller's deadline is over, if it has one.
///
/// # Errors
/// As [`timeout_of`].
pub(crate) fn deadline_of(headers: &HeaderMap) -> Result<Option<Instant>, RpcError> {
    Ok(timeout_of(headers)?.and_then(|timeout| Instant::now().checked_add(timeout)))
}

/// How long the caller is ready to wait.
///
/// # Errors
/// `invalid_argument` for what is no number of at most ten digits, as the protocol has it.
pub(crate) fn timeout_of(headers: &HeaderMap) -> Result<Option<Duration>, RpcError> {
    let Some(text) = header(headers, TIMEOUT_HEADER) else { return Ok(None) };
    let millis = Some(text).filter(|text| (1..=10).contains(&text.len())).and_then(|text| text.parse().ok());
    millis.map(|millis| Some(Duration::from_millis(millis))).ok_or_else(|| {
        RpcError::new(
            Code::InvalidArgument,
            format!("{TIMEOUT_HEADER} must be a number of milliseconds, not `{text}`"),
        )
    })
}

/// How long a stream to this caller may be silent.
pub(crate) fn keepalive_of(headers: &HeaderMap) -> Duration {
    let seconds =
        header(headers, KEEPALIVE_HEADER).and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
    seconds.map_or(KEEPALIVE, Duration::from_secs)
}

pub(crate) fn deadline_exceeded() -> RpcError {
    RpcError::new(Code::DeadlineExceeded, "the deadline was exceeded")
}

/// Waits for ever when there is no deadline.
pub(crate) async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
