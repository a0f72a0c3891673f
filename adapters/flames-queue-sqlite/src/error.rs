//! What SQLite says, in the words of the interface.

use flames_queue::{Error, ErrorKind};
use sqlx::migrate::MigrateError;
use std::path::Path;
use std::sync::Arc;

pub(crate) const ADAPTER: &str = "sqlite";

/// About a failed statement of `operation` on the queue or job `id`. Shared, since one failed transaction fails every
/// call in it.
pub(crate) fn of_statement(source: Arc<rusqlite::Error>, operation: &'static str, id: &str) -> Error {
    let (kind, detail) = classify(&source);
    Error::new(kind, "queue", id).operation(operation).adapter(ADAPTER).detail(detail).source(source)
}

/// About the file `id` that cannot be opened.
pub(crate) fn of_opening(source: sqlx::Error, id: &str) -> Error {
    let (kind, detail) = classify_migration(&source);
    Error::new(kind, "queue", id).operation("open").adapter(ADAPTER).detail(detail).source(source)
}

/// About a file that cannot be brought to this program's schema.
pub(crate) fn of_migration(source: MigrateError, path: &Path) -> Error {
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
            let (kind, detail) = classify_migration(cause);
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

/// The thread that owns the connection is gone.
pub(crate) fn closed(operation: &'static str, id: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "queue", id)
        .operation(operation)
        .adapter(ADAPTER)
        .detail("the queue is closed")
}

fn classify(error: &rusqlite::Error) -> (ErrorKind, &'static str) {
    match error {
        rusqlite::Error::SqliteFailure(error, _) => of_code(error.extended_code),
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => {
            (ErrorKind::Corrupt, "the file holds a value that no version of this program writes")
        }
        _ => (ErrorKind::Internal, "the statement failed"),
    }
}

fn classify_migration(error: &sqlx::Error) -> (ErrorKind, &'static str) {
    match error {
        sqlx::Error::Database(refused) => {
            of_code(refused.code().and_then(|code| code.parse().ok()).unwrap_or_default())
        }
        sqlx::Error::Io(_) => (ErrorKind::Unavailable, "the file cannot be reached"),
        _ => (ErrorKind::Internal, "the statement failed"),
    }
}

/// SQLite's primary result codes are stable: <https://sqlite.org/rescode.html>.
fn of_code(extended: i32) -> (ErrorKind, &'static str) {
    const PRIMARY: i32 = 0xff; // the upper bytes only refine
    match extended & PRIMARY {
        5 | 6 => (ErrorKind::Unavailable, "another process holds the file"),
        8 => (ErrorKind::PermissionDenied, "the file is read-only"),
        10 => (ErrorKind::Unavailable, "the disk failed"),
        11 | 26 => (ErrorKind::Corrupt, "the file is damaged or no SQLite database"),
        13 => (ErrorKind::Unavailable, "the disk is full"),
        14 => (ErrorKind::InvalidInput, "the file cannot be opened: check its folder and permissions"),
        _ => (ErrorKind::Internal, "SQLite refused the statement"),
    }
}
