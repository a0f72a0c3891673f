//! `/files`: whole files up and down.

mod compose;
mod download;
mod entry;
mod metadata;
mod multipart;
mod source;
mod upload;
mod write;

pub(crate) use compose::compose;
pub(crate) use download::download;
pub(crate) use entry::{entry, is_link_to_nowhere};
pub(crate) use upload::upload;
pub(crate) use write::make_parents;

use crate::http::Failure;
use flames_guest::rpc::{Code, RpcError};
use hyper::StatusCode;
use std::io;
use std::path::Path;

/// Runs what may wait for a disk where it holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// What a failed operation on a path means to the caller of `/files`.
fn http_failure(path: &Path, error: &io::Error) -> Failure {
    let (status, what) = match error.kind() {
        io::ErrorKind::NotFound => (StatusCode::NOT_FOUND, "does not exist".to_owned()),
        io::ErrorKind::IsADirectory => (StatusCode::BAD_REQUEST, "is a directory".to_owned()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => return no_space(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (StatusCode::FORBIDDEN, error.to_string())
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => {
            (StatusCode::BAD_REQUEST, error.to_string())
        }
        _ => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    Failure::http(status, format!("path '{}': {what}", path.display()))
}

fn no_space() -> Failure {
    Failure::http(StatusCode::INSUFFICIENT_STORAGE, "not enough disk space available")
}

/// An error that was found before a call of `/files` touched a file.
fn plain(error: RpcError) -> Failure {
    let status = match error.code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::InvalidArgument | Code::Canceled => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::REQUEST_TIMEOUT,
        Code::ResourceExhausted => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Failure::http(status, error.message)
}
