//! From what Redis says to what callers branch on.

use flames_cache::{Error, ErrorKind};
use redis::{RedisError, ServerErrorKind};

pub(crate) const ADAPTER: &str = "redis";

/// A call that failed.
pub(crate) fn failed(id: &str, operation: &'static str, source: RedisError) -> Error {
    let kind = kind_of(&source);
    let error = Error::new(kind, "cache entry", id).operation(operation).adapter(ADAPTER);
    error.detail(explain(kind)).source(source)
}

/// A call that took longer than any call may.
pub(crate) fn overdue(id: &str, operation: &'static str) -> Error {
    let error = Error::new(ErrorKind::Timeout, "cache entry", id).operation(operation).adapter(ADAPTER);
    error.detail(explain(ErrorKind::Timeout))
}

fn kind_of(error: &RedisError) -> ErrorKind {
    use redis::ErrorKind as Redis;
    if error.is_timeout() {
        return ErrorKind::Timeout;
    }
    match error.kind() {
        Redis::Io => ErrorKind::Unavailable,
        Redis::AuthenticationFailed | Redis::Server(ServerErrorKind::NoPerm) => ErrorKind::PermissionDenied,
        Redis::Server(kind) if passes(kind) => ErrorKind::Unavailable,
        Redis::InvalidClientConfig => ErrorKind::InvalidInput,
        _ => by_code(error.code()),
    }
}

/// Faults of a server that starts, fails over or is full.
fn passes(kind: ServerErrorKind) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly, TryAgain};
    matches!(kind, BusyLoading | ClusterDown | MasterDown | ReadOnly | TryAgain)
}

/// Codes of the protocol that the client library has no name for.
fn by_code(code: Option<&str>) -> ErrorKind {
    match code {
        Some("NOAUTH" | "WRONGPASS") => ErrorKind::PermissionDenied,
        Some("OOM" | "MISCONF" | "BUSY") => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

fn explain(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unavailable => "Redis cannot be reached, or refuses to work now",
        ErrorKind::Timeout => "Redis did not answer in time",
        ErrorKind::PermissionDenied => "Redis refuses user and password, or what they may do",
        _ => "Redis refused",
    }
}
