//! How a call shows in traces.

use crate::{Error, ErrorKind, Result};
use std::future::Future;
use tracing::{Instrument, Span};

/// Runs a call inside its span. A failure becomes one event: a debug line when it is an answer like any
/// other (not found, conflict), else a warning.
///
/// # Errors
/// The call's.
pub async fn traced<T>(span: Span, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let result = call.instrument(span.clone()).await;
    if let Err(error) = &result {
        span.in_scope(|| report(error));
    }
    result
}

fn report(error: &Error) {
    if is_answer(error.kind()) {
        tracing::debug!(%error, "refused");
    } else {
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(%error, source, "failed");
    }
}

fn is_answer(kind: ErrorKind) -> bool {
    use ErrorKind::{AlreadyExists, Conflict, InvalidInput, NotFound, Unsupported};
    matches!(kind, NotFound | AlreadyExists | Conflict | InvalidInput | Unsupported)
}
