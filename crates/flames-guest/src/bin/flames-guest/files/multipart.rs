//! Uploads as browsers and E2B clients send them: one part per file.

use super::source::Source;
use crate::http::Failure;
use bytes::Bytes;
use futures_util::stream::unfold;
use hyper::StatusCode;
use multer::{Field, Multipart};
use std::fmt;

/// The parts of an upload that hold files.
#[derive(Debug)]
pub(super) struct Parts {
    inner: Multipart<'static>,
}

/// One file of an upload.
#[derive(Debug)]
pub(super) struct Part {
    field: Field<'static>,
    /// Its file name: the whole path, where clients give none in the query.
    pub(super) file_name: Option<String>,
}

impl Parts {
    /// # Errors
    /// 400 when the content type has no boundary.
    pub(super) fn of(source: Source, content_type: &str) -> Result<Self, Failure> {
        let boundary = multer::parse_boundary(content_type).map_err(|error| malformed(&error))?;
        let pieces = unfold(Some(source), |source| async move {
            let mut source = source?;
            match source.next().await {
                Ok(None) => None,
                Ok(Some(piece)) => Some((Ok(piece), Some(source))),
                Err(failure) => Some((Err(Carried(failure)), None)),
            }
        });
        Ok(Self { inner: Multipart::new(pieces, boundary) })
    }

    /// The next part named `file`; others are skipped.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, Failure> {
        while let Some(field) = self.inner.next_field().await.map_err(failure)? {
            if field.name() == Some("file") {
                let file_name = field.file_name().filter(|name| !name.is_empty()).map(str::to_owned);
                return Ok(Some(Part { field, file_name }));
            }
        }
        Ok(None)
    }
}

impl Part {
    /// The next bytes of the part, or `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        self.field.chunk().await.map_err(failure)
    }
}

/// A failure on its way through the multipart parser.
#[derive(Debug)]
struct Carried(Failure);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upload broke off")
    }
}

impl std::error::Error for Carried {}

fn failure(error: multer::Error) -> Failure {
    match error {
        multer::Error::StreamReadFailed(cause) => match cause.downcast::<Carried>() {
            Ok(carried) => carried.0,
            Err(cause) => Failure::http(StatusCode::BAD_REQUEST, cause.to_string()),
        },
        error => malformed(&error),
    }
}

fn malformed(error: &multer::Error) -> Failure {
    Failure::http(StatusCode::BAD_REQUEST, format!("the multipart content is malformed: {error}"))
}
