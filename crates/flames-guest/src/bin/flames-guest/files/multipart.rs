//! Uploads as browsers and E2B clients send them: one part per file.

use super::source::Source;
use crate::http::Failure;
use bytes::Bytes;
use futures_util::stream::unfold;
use hyper::StatusCode;
use multer::{Field, Multipart};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The parts of an upload that hold files.
#[derive(Debug)]
pub(super) struct Parts {
    inner: Multipart<'static>,
    held: Held,
}

/// Bytes that the parser took since it last gave something: what it must hold in memory.
type Held = Arc<AtomicUsize>;

/// More than this, and somebody sends a part's headers without end.
const MAX_HELD: usize = 8 << 20;

/// One file of an upload.
#[derive(Debug)]
pub(super) struct Part {
    field: Field<'static>,
    /// Its file name: the whole path, where clients give none in the query.
    pub(super) file_name: Option<String>,
    held: Held,
}

impl Parts {
    /// # Errors
    /// 400 when the content type has no boundary.
    pub(super) fn of(source: Source, content_type: &str) -> Result<Self, Failure> {
        let boundary = multer::parse_boundary(content_type).map_err(|error| malformed(&error))?;
        let held = Held::default();
        let pieces = unfold(Some((source, Arc::clone(&held))), |state| async move {
            let (mut source, held) = state?;
            match source.next().await.and_then(|piece| count(&held, piece)) {
                Ok(None) => None,
                Ok(Some(piece)) => Some((Ok(piece), Some((source, held)))),
                Err(failure) => Some((Err(Carried(failure)), None)),
            }
        });
        Ok(Self { inner: Multipart::new(pieces, boundary), held })
    }

    /// The next part named `file`; others are skipped.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, Failure> {
        while let Some(field) = self.inner.next_field().await.map_err(failure)? {
            self.held.store(0, Ordering::Relaxed);
            if field.name() == Some("file") {
                let file_name = field.file_name().filter(|name| !name.is_empty()).map(str::to_owned);
                return Ok(Some(Part { field, file_name, held: Arc::clone(&self.held) }));
            }
        }
        Ok(None)
    }
}

impl Part {
    /// The next bytes of the part, or `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        let piece = self.field.chunk().await.map_err(failure)?;
        self.held.store(0, Ordering::Relaxed);
        Ok(piece)
    }
}

/// Lets a piece through unless the parser holds too much already.
fn count(held: &Held, piece: Option<Bytes>) -> Result<Option<Bytes>, Failure> {
    let length = piece.as_ref().map_or(0, Bytes::len);
    if held.fetch_add(length, Ordering::Relaxed) > MAX_HELD {
        return Err(Failure::http(StatusCode::BAD_REQUEST, "the headers of a part have no end"));
    }
    Ok(piece)
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
