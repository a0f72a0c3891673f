//! From what the service says to what callers branch on.

use flames_blob::{BlobKey, Error, ErrorKind};
use object_store::client::{HttpError, HttpErrorKind};
use std::error::Error as StdError;

pub(crate) const ADAPTER: &str = "s3";

pub(crate) fn blob_error(kind: ErrorKind, key: &BlobKey, operation: &'static str) -> Error {
    Error::new(kind, "blob", key.as_str()).operation(operation).adapter(ADAPTER)
}

/// A failed request about a blob.
pub(crate) fn failed(key: &BlobKey, operation: &'static str, source: object_store::Error) -> Error {
    blob_error(kind_of(&source), key, operation).detail(explain(&source)).source(source)
}

/// A failed request about the bucket.
pub(crate) fn bucket_failed(bucket: &str, operation: &'static str, source: object_store::Error) -> Error {
    let error = Error::new(kind_of(&source), "bucket", bucket).operation(operation).adapter(ADAPTER);
    let detail = match source {
        object_store::Error::NotFound { .. } => "it does not exist: make it, or mend the blob URL",
        _ => explain(&source),
    };
    error.detail(detail).source(source)
}

/// A failed system call about the spool file of a blob.
pub(crate) fn spool_failed(key: &BlobKey, source: std::io::Error) -> Error {
    let kind = match source.kind() {
        std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unavailable,
    };
    let detail =
        "the spool folder cannot be written: free space, or name another with spool= in the blob URL";
    blob_error(kind, key, "put").detail(detail).source(source)
}

fn kind_of(error: &object_store::Error) -> ErrorKind {
    use object_store::Error as S3;
    match error {
        S3::NotFound { .. } => ErrorKind::NotFound,
        S3::AlreadyExists { .. } | S3::Precondition { .. } | S3::NotModified { .. } => {
            ErrorKind::AlreadyExists
        }
        S3::PermissionDenied { .. } | S3::Unauthenticated { .. } => ErrorKind::PermissionDenied,
        S3::NotSupported { .. } | S3::NotImplemented { .. } => ErrorKind::Unsupported,
        S3::InvalidPath { .. } | S3::UnknownConfigurationKey { .. } => ErrorKind::InvalidInput,
        _ => transport_kind(error),
    }
}

/// True for an error that says why, or that no server gave.
pub(crate) fn is_refusal(error: &object_store::Error) -> bool {
    use ErrorKind::{NotFound, PermissionDenied};
    matches!(kind_of(error), NotFound | PermissionDenied) || transport_error(error).is_some()
}

fn transport_kind(error: &object_store::Error) -> ErrorKind {
    match transport_error(error).map(HttpError::kind) {
        Some(HttpErrorKind::Timeout) => ErrorKind::Timeout,
        Some(HttpErrorKind::Decode) => ErrorKind::Internal,
        // Without a transport error it was an answer like 503, given again after the client's own retries.
        _ => ErrorKind::Unavailable,
    }
}

fn transport_error(error: &object_store::Error) -> Option<&HttpError> {
    std::iter::successors(error.source(), |error| (*error).source()).find_map(|error| error.downcast_ref())
}

fn explain(error: &object_store::Error) -> &'static str {
    match kind_of(error) {
        ErrorKind::PermissionDenied => "the service refuses these keys, or what they may do",
        ErrorKind::Unavailable => "the service cannot be reached, or refuses to work now",
        ErrorKind::Timeout => "the service did not answer in time",
        _ => "the service refused",
    }
}
