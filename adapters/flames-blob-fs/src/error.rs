//! From what the operating system says to what callers branch on.

use flames_blob::{BlobKey, Error, ErrorKind};
use std::io;
use std::path::Path;

pub(crate) const ADAPTER: &str = "fs";

pub(crate) fn blob_error(kind: ErrorKind, key: &BlobKey, operation: &'static str) -> Error {
    Error::new(kind, "blob", key.as_str()).operation(operation).adapter(ADAPTER)
}

/// A failed system call about a blob.
pub(crate) fn failed(key: &BlobKey, operation: &'static str, source: io::Error) -> Error {
    blob_error(kind_of(&source), key, operation).detail(explain(&source)).source(source)
}

/// A failed system call about a path of the store's own.
pub(crate) fn path_failed(path: &Path, operation: &'static str, source: io::Error) -> Error {
    let error = Error::new(kind_of(&source), "directory", path.display().to_string());
    error.operation(operation).adapter(ADAPTER).detail(explain(&source)).source(source)
}

/// A thread of the blocking pool that did not come back.
pub(crate) fn thread_lost(operation: &'static str, source: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "blob store", "worker thread")
        .operation(operation)
        .adapter(ADAPTER)
        .source(source)
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

fn explain(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "no space is left: free some, or give more"
        }
        io::ErrorKind::PermissionDenied => "the daemon's user may not do that",
        io::ErrorKind::ReadOnlyFilesystem => "the file system is mounted read-only",
        io::ErrorKind::NotADirectory => "a part of the path is a file",
        _ => "the file system refused",
    }
}
