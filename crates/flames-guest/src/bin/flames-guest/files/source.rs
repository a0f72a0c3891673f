//! The bytes of an upload, uncompressed on their way.

use super::plain;
use crate::http::{BODY_TIMEOUT, Failure, header, next_piece};
use bytes::Bytes;
use flate2::write::GzDecoder;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use hyper::{Request, StatusCode};
use std::io::Write as _;
use std::time::Duration;

/// A request's body, piece by piece.
#[derive(Debug)]
pub(super) struct Source {
    /// None once it was left to [`drain`].
    body: Option<Incoming>,
    gunzip: Option<Gunzip>,
}

#[derive(Debug)]
struct Gunzip {
    decoder: GzDecoder<Vec<u8>>,
    waiting: Bytes,
    ended: bool,
}

/// Compressed bytes that are expanded at a time: at most a thousand times as many come out.
const STEP: usize = 4 << 10;
/// How long and how much a client may go on sending after its upload was refused.
const DRAIN_TIME: Duration = Duration::from_secs(10);
const DRAIN_BYTES: usize = 64 << 20;

impl Source {
    /// # Errors
    /// 415 for an encoding that is not known.
    pub(super) fn of(request: Request<Incoming>) -> Result<Self, Failure> {
        let gunzip = is_gzip(request.headers())?.then(|| Gunzip {
            decoder: GzDecoder::new(Vec::new()),
            waiting: Bytes::new(),
            ended: false,
        });
        Ok(Self { body: Some(request.into_body()), gunzip })
    }

    /// Refuses what would have to be expanded faster than it is taken.
    pub(super) fn not_compressed(self) -> Result<Self, Failure> {
        match &self.gunzip {
            None => Ok(self),
            Some(_) => Err(Failure::http(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "multipart content cannot be compressed",
            )),
        }
    }

    /// The next bytes of the content, or `None` at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(gunzip) = &mut self.gunzip
                && let Some(piece) = gunzip.expand()?
            {
                return Ok(Some(piece));
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            let piece = next_piece(body, BODY_TIMEOUT).await.map_err(plain)?;
            match (&mut self.gunzip, piece) {
                (None, piece) => return Ok(piece),
                (Some(gunzip), Some(piece)) => gunzip.waiting = piece,
                (Some(gunzip), None) if gunzip.ended => return Ok(None),
                (Some(gunzip), None) => return gunzip.finish().map(Some),
            }
        }
    }
}

impl Drop for Source {
    /// Most clients read no answer before they have sent everything: closing in their face would hide why an
    /// upload was refused.
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            // Elapsed: who still sends has to live with a closed connection.
            tokio::spawn(tokio::time::timeout(DRAIN_TIME, drain(body)));
        }
    }
}

/// Takes and forgets what a client still sends, within reason.
async fn drain(mut body: Incoming) {
    let mut taken = 0;
    while let Ok(Some(piece)) = next_piece(&mut body, DRAIN_TIME).await {
        taken += piece.len();
        if taken > DRAIN_BYTES {
            return;
        }
    }
}

impl Gunzip {
    /// `None` when more compressed bytes are needed.
    fn expand(&mut self) -> Result<Option<Bytes>, Failure> {
        while !self.waiting.is_empty() {
            let step = self.waiting.split_to(self.waiting.len().min(STEP));
            self.decoder.write_all(&step).map_err(|error| broken(&error))?;
            let expanded = std::mem::take(self.decoder.get_mut());
            if !expanded.is_empty() {
                return Ok(Some(expanded.into()));
            }
        }
        Ok(None)
    }

    /// What was left, once the checksum was found right.
    fn finish(&mut self) -> Result<Bytes, Failure> {
        self.decoder.try_finish().map_err(|error| broken(&error))?;
        self.ended = true;
        Ok(std::mem::take(self.decoder.get_mut()).into())
    }
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Failure> {
    match header(headers, CONTENT_ENCODING.as_str()).map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "identity") => Ok(false),
        Some("gzip") => Ok(true),
        Some(other) => Err(Failure::http(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("Content-Encoding `{other}` is not supported"),
        )),
    }
}

fn broken(error: &std::io::Error) -> Failure {
    Failure::http(StatusCode::BAD_REQUEST, format!("the gzip content is broken: {error}"))
}
