//! `GET /files`: one file, whole or in part.

use super::{blocking, http_failure, plain};
use crate::agent::Agent;
use crate::http::{Answer, Body, Failure, full, header, query, with_status};
use crate::sendfile::{FilePart, WORTHWHILE};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::unfold;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_RANGE, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED, RANGE, VARY,
};
use hyper::{Method, Request, StatusCode};
use nix::libc::O_NONBLOCK;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bytes that are read at a time.
const CHUNK: usize = 128 << 10;

pub(crate) async fn download(
    agent: Arc<Agent>,
    request: Request<Incoming>,
    user: Option<String>,
) -> Result<Answer, Failure> {
    let user = agent.user(user.as_deref()).map_err(plain)?;
    let path = agent.resolve(&query(&request, "path").unwrap_or_default(), &user).map_err(plain)?;
    let encoding = Encoding::choose(header(request.headers(), ACCEPT_ENCODING.as_str()))?;
    let opened = path.clone();
    let opened = blocking(move || Opened::open(&opened)).await.and_then(|opened| opened);
    let file = opened.map_err(|error| http_failure(&path, &error))?;
    if let Some(status) = precondition(request.headers(), file.modified) {
        return Ok(with_status(status));
    }
    let mut answer = match encoding {
        Encoding::Gzip => compressed(file),
        Encoding::Identity => identity(file, request.headers()),
    }?;
    describe(answer.headers_mut(), &path);
    if request.method() == Method::HEAD {
        *answer.body_mut() = full(Bytes::new());
        answer.extensions_mut().remove::<FilePart>();
    }
    Ok(answer)
}

/// A regular file and what is known of it.
#[derive(Debug)]
struct Opened {
    file: File,
    length: u64,
    modified: SystemTime,
}

impl Opened {
    /// Does not wait for the other end of a named pipe, and then refuses it.
    fn open(path: &PathBuf) -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(O_NONBLOCK).open(path)?;
        let found = file.metadata()?;
        if found.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
        }
        Ok(Self { file, length: found.len(), modified: found.modified()? })
    }
}

/// How the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// As they are: wherever the client allows it, since compressing costs the guest more than the wire.
    Identity,
    Gzip,
}

impl Encoding {
    fn choose(accepted: Option<&str>) -> Result<Self, Failure> {
        let accepted = accepted.unwrap_or_default();
        if allows(accepted, "identity", true) {
            return Ok(Self::Identity);
        }
        if allows(accepted, "gzip", false) {
            return Ok(Self::Gzip);
        }
        Err(Failure::http(
            StatusCode::NOT_ACCEPTABLE,
            format!("no encoding of `{accepted}` is offered: identity or gzip"),
        ))
    }
}

/// Whether an `Accept-Encoding` allows a coding; one that it does not name has the default, or that of `*`.
fn allows(accepted: &str, coding: &str, default: bool) -> bool {
    let weight_of = |name: &str| {
        accepted.split(',').find_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            parts.next().filter(|token| token.eq_ignore_ascii_case(name))?;
            let weight =
                parts.find_map(|part| part.strip_prefix("q=")).and_then(|weight| weight.parse::<f32>().ok());
            Some(weight.unwrap_or(1.0) > 0.0)
        })
    };
    weight_of(coding).unwrap_or_else(|| weight_of("*").unwrap_or(default))
}

/// 304 or 412, if the client asked about the time of the last change. HTTP knows whole seconds.
fn precondition(headers: &HeaderMap, modified: SystemTime) -> Option<StatusCode> {
    let newer_than =
        |name: HeaderName| date(headers, &name).map(|date| modified >= date + Duration::from_secs(1));
    if newer_than(IF_UNMODIFIED_SINCE) == Some(true) {
        return Some(StatusCode::PRECONDITION_FAILED);
    }
    (newer_than(IF_MODIFIED_SINCE) == Some(false)).then_some(StatusCode::NOT_MODIFIED)
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(header(headers, name.as_str())?).ok()
}

fn identity(mut opened: Opened, headers: &HeaderMap) -> Result<Answer, Failure> {
    let length = opened.length;
    // A range is only for the version that the client knows.
    let same_version = header(headers, IF_RANGE.as_str()).is_none_or(|_| {
        date(headers, &IF_RANGE).is_some_and(|date| opened.modified < date + Duration::from_secs(1))
    });
    let range =
        header(headers, RANGE.as_str()).filter(|_| same_version).and_then(|text| parse_range(text, length));
    let (status, range) = match range {
        None => (StatusCode::OK, 0..length),
        Some(Ok(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Err(Unsatisfiable)) => return Ok(unsatisfiable(length)),
    };
    let sought = opened.file.seek(SeekFrom::Start(range.start));
    sought.map_err(|error| Failure::http(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let size = range.end - range.start;
    let modified = opened.modified;
    // Files of the kernel say they are empty and are not: they are read to their end.
    let limit = if length == 0 { u64::MAX } else { size };
    let mut answer = with_status(status);
    let headers = answer.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set(headers, LAST_MODIFIED, &httpdate::fmt_http_date(modified));
    if length > 0 {
        headers.insert(CONTENT_LENGTH, size.into());
    }
    if status == StatusCode::PARTIAL_CONTENT {
        set(headers, CONTENT_RANGE, &format!("bytes {}-{}/{length}", range.start, range.end - 1));
    }
    let file = Arc::new(opened.file);
    if size >= WORTHWHILE {
        answer.extensions_mut().insert(FilePart { file: Arc::clone(&file), range });
    }
    *answer.body_mut() = body(Reader { limit, ..Reader::of(file) });
    Ok(answer)
}

fn compressed(opened: Opened) -> Result<Answer, Failure> {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut answer = with_status(StatusCode::OK);
    *answer.body_mut() = body(Reader { encoder: Some(encoder), ..Reader::of(Arc::new(opened.file)) });
    answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    set(answer.headers_mut(), LAST_MODIFIED, &httpdate::fmt_http_date(opened.modified));
    Ok(answer)
}

fn unsatisfiable(length: u64) -> Answer {
    let mut answer = with_status(StatusCode::RANGE_NOT_SATISFIABLE);
    set(answer.headers_mut(), CONTENT_RANGE, &format!("bytes */{length}"));
    answer
}

fn describe(headers: &mut HeaderMap, path: &Path) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let quoted: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !"\"\\".contains(c) || c == ' ' { c } else { '_' })
        .collect();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    set(
        headers,
        CONTENT_DISPOSITION,
        &format!("attachment; filename=\"{quoted}\"; filename*=UTF-8''{}", percent(&name)),
    );
}

/// RFC 5987: everything but letters, digits and a few marks is escaped.
fn percent(name: &str) -> String {
    let escape = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    name.bytes().map(escape).collect()
}

/// What is made here is always legal in a header.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// No byte of the file is in the range.
#[derive(Debug, PartialEq, Eq)]
struct Unsatisfiable;

/// `None` for what is no single range of bytes: such a header is ignored.
fn parse_range(text: &str, length: u64) -> Option<Result<Range<u64>, Unsatisfiable>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first.trim(), last.trim()) {
        ("", suffix) => length.saturating_sub(suffix.parse().ok()?)..length,
        (first, "") => first.parse().ok()?..length,
        (first, last) => {
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(length)
        }
    };
    Some(if range.start < range.end { Ok(range) } else { Err(Unsatisfiable) })
}

/// Reads a file piece by piece, as the client takes it.
#[derive(Debug)]
struct Reader {
    file: Arc<File>,
    limit: u64,
    encoder: Option<GzEncoder<Vec<u8>>>,
    done: bool,
}

fn body(reader: Reader) -> Body {
    let pieces = unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        // An error ends the body early, which the client notices.
        let read = blocking(move || reader.piece().map(|piece| (piece, reader))).await.and_then(|read| read);
        match read {
            Ok((None, _)) => None,
            Ok((Some(piece), reader)) => Some((Ok(Frame::data(piece)), Some(reader))),
            Err(error) => Some((Err(error), None)),
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

impl Reader {
    /// Of the whole file, as it is.
    fn of(file: Arc<File>) -> Self {
        Self { file, limit: u64::MAX, encoder: None, done: false }
    }

    /// The next bytes for the wire, or `None` at the end.
    fn piece(&mut self) -> io::Result<Option<Bytes>> {
        while !self.done {
            let piece = self.read()?;
            self.done = piece.is_empty();
            let wire = self.encode(piece)?;
            if !wire.is_empty() {
                return Ok(Some(wire.into()));
            }
        }
        Ok(None)
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let size = usize::try_from(self.limit).unwrap_or(usize::MAX).min(CHUNK);
        let mut piece = vec![0; size];
        let length = (&*self.file).read(&mut piece)?;
        piece.truncate(length);
        self.limit -= length as u64;
        Ok(piece)
    }

    fn encode(&mut self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        let Some(encoder) = &mut self.encoder else { return Ok(piece) };
        encoder.write_all(&piece)?;
        if self.done {
            encoder.try_finish()?;
        }
        Ok(std::mem::take(encoder.get_mut()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_cut_to_the_file_and_nonsense_is_ignored() {
        for (text, want) in [
            ("bytes=0-3", Some(Ok(0..4))),
            ("bytes=5-", Some(Ok(5..10))),
            ("bytes=-3", Some(Ok(7..10))),
            ("bytes=-99", Some(Ok(0..10))),
            ("bytes=8-99", Some(Ok(8..10))),
            ("bytes=10-", Some(Err(Unsatisfiable))),
            ("bytes=-0", Some(Err(Unsatisfiable))),
            ("bytes=3-1", None),
            ("bytes=0-1,4-5", None),
            ("lines=0-1", None),
        ] {
            assert_eq!(parse_range(text, 10), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_range_leaves_the_file(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", length in 0u64..1000) {
            if let Some(Ok(range)) = parse_range(&text, length) {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }
    }

    #[test]
    fn identity_is_sent_unless_it_is_refused() {
        for (accepted, want) in [
            (None, Some(Encoding::Identity)),
            (Some("gzip, deflate, br"), Some(Encoding::Identity)),
            (Some("gzip, identity;q=0"), Some(Encoding::Gzip)),
            (Some("gzip;q=0.5, *;q=0"), Some(Encoding::Gzip)),
            (Some("br, identity;q=0"), None),
            (Some("*;q=0"), None),
        ] {
            assert_eq!(Encoding::choose(accepted).ok(), want, "{accepted:?}");
        }
    }
}
