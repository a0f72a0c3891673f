//! What PostgreSQL and its driver say, in the words of the interface.

use flames_queue::{Error, ErrorKind};
use sqlx::migrate::MigrateError;

pub(crate) const ADAPTER: &str = "postgres";

/// About a failed statement of `operation` on the queue or job `id`.
pub(crate) fn from_sqlx(source: sqlx::Error, operation: &'static str, id: &str) -> Error {
    let (kind, detail) = classify(&source);
    Error::new(kind, "queue", id).operation(operation).adapter(ADAPTER).detail(detail).source(source)
}

/// The server did not answer in time: the call may have taken effect.
pub(crate) fn timed_out(operation: &'static str, id: &str) -> Error {
    Error::new(ErrorKind::Timeout, "queue", id)
        .operation(operation)
        .adapter(ADAPTER)
        .detail("the database did not answer")
}

/// About a database that cannot be brought to this program's schema.
pub(crate) fn from_migration(source: MigrateError, place: &str) -> Error {
    let (kind, detail) = match &source {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => (
            ErrorKind::InvalidInput,
            format!("its schema flames_queue {version} is newer than this program: use a later one"),
        ),
        MigrateError::VersionMismatch(version) => (
            ErrorKind::Corrupt,
            format!("its schema flames_queue {version} is not the one this program knows"),
        ),
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => {
            let (kind, detail) = classify(cause);
            (kind, detail.to_owned())
        }
        _ => (ErrorKind::Internal, "the schema could not be brought up to date".to_owned()),
    };
    Error::new(kind, "queue database", place).operation("open").adapter(ADAPTER).detail(detail).source(source)
}

fn classify(error: &sqlx::Error) -> (ErrorKind, &'static str) {
    match error {
        sqlx::Error::Database(database) => classify_code(database.code().as_deref().unwrap_or("")),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => (
            ErrorKind::Unavailable,
            "no connection in time: the database is down, or all connections are in use",
        ),
        sqlx::Error::Io(_) => (
            ErrorKind::Unavailable,
            "the connection failed: if it broke during the call, that may have taken effect",
        ),
        sqlx::Error::Tls(_) => (ErrorKind::Unavailable, "the server's TLS was refused"),
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            (ErrorKind::Corrupt, "the table holds a value that no version of this program writes")
        }
        _ => (ErrorKind::Internal, "the statement failed"),
    }
}

/// By SQLSTATE.
fn classify_code(code: &str) -> (ErrorKind, &'static str) {
    match code {
        "28000" | "28P01" => (ErrorKind::PermissionDenied, "wrong user or password"),
        "42501" => {
            (ErrorKind::PermissionDenied, "this user may not do that: it needs its own schema flames_queue")
        }
        "3D000" => (ErrorKind::InvalidInput, "this database does not exist"),
        "40001" | "40P01" => (ErrorKind::Unavailable, "somebody else was in the way: nothing was done"),
        _ if code.starts_with("53") => {
            (ErrorKind::Unavailable, "the server is out of connections, memory or disk")
        }
        _ if code.starts_with("57P") || code.starts_with("08") => {
            (ErrorKind::Unavailable, "the server is starting or shutting down")
        }
        _ => (ErrorKind::Internal, "PostgreSQL refused the statement"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_unavailable_and_what_does_not_is_named() {
        for code in ["57P01", "57P03", "53300", "08006", "40P01"] {
            assert_eq!(classify_code(code).0, ErrorKind::Unavailable, "{code}");
        }
        assert_eq!(classify_code("28P01").0, ErrorKind::PermissionDenied);
        assert_eq!(classify_code("3D000").0, ErrorKind::InvalidInput);
        assert_eq!(classify_code("42601").0, ErrorKind::Internal);
    }
}
