//! What SQLite says, in the words of the interface.

use flames_queue::{Error, ErrorKind};
use sqlx::migrate::MigrateError;
use std::path::Path;
use std::sync::Arc;

pub(crate) const ADAPTER: &str = "sqlite";

/// About a failed statement of `operation` on the queue or job `id`.
pub(crate) fn from_sqlx(source: Arc<sqlx::Error>, operation: &'static str, id: &str) -> Error {
    let (kind, detail) = classify(&source);
    Error::new(kind, "queue", id).operation(operation).adapter(ADAPTER).detail(detail).source(source)
}

/// About a file that cannot be brought to this program's schema.
pub(crate) fn from_migration(source: MigrateError, path: &Path) -> Error {
    let (kind, detail) = match &source {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => (
            ErrorKind::InvalidInput,
            format!(
                "its schema {version} is newer than this program: use the program that wrote it, or a later one"
            ),
        ),
        MigrateError::VersionMismatch(version) => (
            ErrorKind::Corrupt,
            format!("its schema {version} is not the one this program knows by that number"),
        ),
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => {
            let (kind, detail) = classify(cause);
            (kind, detail.to_owned())
        }
        _ => (ErrorKind::Internal, "the schema could not be brought up to date".to_owned()),
    };
    Error::new(kind, "queue file", path.display().to_string())
        .operation("open")
        .adapter(ADAPTER)
        .detail(detail)
        .source(source)
}

/// The task that owns the connection is gone: the runtime shuts down.
pub(crate) fn closed(operation: &'static str, id: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "queue", id)
        .operation(operation)
        .adapter(ADAPTER)
        .detail("the queue is closed")
}

fn classify(error: &sqlx::Error) -> (ErrorKind, &'static str) {
    match error {
        sqlx::Error::Database(database) => match primary_code(database.as_ref()) {
            5 | 6 => (ErrorKind::Unavailable, "another process holds the file"),
            8 => (ErrorKind::PermissionDenied, "the file is read-only"),
            10 => (ErrorKind::Unavailable, "the disk failed"),
            11 | 26 => (ErrorKind::Corrupt, "the file is damaged or no SQLite database"),
            13 => (ErrorKind::Unavailable, "the disk is full"),
            14 => (ErrorKind::InvalidInput, "the file cannot be opened: check its folder and permissions"),
            _ => (ErrorKind::Internal, "SQLite refused the statement"),
        },
        sqlx::Error::Io(_) => (ErrorKind::Unavailable, "the file cannot be reached"),
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            (ErrorKind::Corrupt, "the file holds a value that no version of this program writes")
        }
        sqlx::Error::WorkerCrashed => (ErrorKind::Unavailable, "the connection was lost and is opened again"),
        _ => (ErrorKind::Internal, "the statement failed"),
    }
}

/// The low byte of SQLite's extended result code.
fn primary_code(error: &dyn sqlx::error::DatabaseError) -> u32 {
    error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0) & 0xff
}
