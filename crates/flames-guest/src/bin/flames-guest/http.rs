//! Bodies, answers and errors that all calls share.

use bytes::{Bytes, BytesMut};
use flames_guest::files::HttpError;
use flames_guest::frame::{self, END_STREAM, FrameDecoder, MAX_PAYLOAD};
use flames_guest::rpc::{Code, EndOfStream, RpcError, STREAM_CONTENT_TYPE, UNARY_CONTENT_TYPE};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::time::Duration;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(crate) type Answer = Response<Body>;

/// How long a whole unary body, or the next piece of a streamed one, may take.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// An error on its way to the caller, in the shape of the call that failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A plain HTTP call, and whatever failed before a call was known.
    Http(HttpError),
    /// A unary call.
    Rpc(RpcError),
    /// A streaming call: status 200, and the error in the last frame.
    Stream(RpcError),
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        Self::Rpc(error)
    }
}

impl Failure {
    pub(crate) fn http(status: StatusCode, message: impl Into<String>) -> Self {
        Self::Http(HttpError { code: status.as_u16(), message: message.into() })
    }

    /// The rest of the request may be unread, and the connection cannot be used again then: nobody may believe that
    /// it can.
    pub(crate) fn into_answer(self) -> Answer {
        let mut answer = match self {
            Self::Http(error) => json_with(status(error.code), &error),
            Self::Rpc(error) => json_with(status(error.code.http_status()), &error),
            Self::Stream(error) => stream(full(end_frame(Some(error)))),
        };
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        answer
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A JSON answer with status 200.
pub(crate) fn json(value: &impl Serialize) -> Answer {
    json_with(StatusCode::OK, value)
}

fn json_with(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => typed(status, UNARY_CONTENT_TYPE, full(text)),
        Err(_) => with_status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// An answer that streams frames.
pub(crate) fn stream(body: Body) -> Answer {
    typed(StatusCode::OK, STREAM_CONTENT_TYPE, body)
}

/// An answer without a body.
pub(crate) fn with_status(status: StatusCode) -> Answer {
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

fn typed(status: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The last frame of a stream.
pub(crate) fn end_frame(error: Option<RpcError>) -> Bytes {
    // A struct of strings always serialises.
    frame::encode(END_STREAM, &serde_json::to_vec(&EndOfStream { error }).unwrap_or_default())
}

/// One message of a stream.
pub(crate) fn message_frame(message: &impl Serialize) -> Bytes {
    frame::encode(frame::MESSAGE, &serde_json::to_vec(message).unwrap_or_default())
}

/// Reads the message of a unary call.
pub(crate) async fn read_unary<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, RpcError> {
    expect_content_type(request.headers(), UNARY_CONTENT_TYPE)?;
    parse(&read_all(request, MAX_PAYLOAD).await?)
}

/// Reads a JSON body of a plain HTTP call, whatever its content type.
pub(crate) async fn read_json<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, RpcError> {
    parse(&read_all(request, MAX_PAYLOAD).await?)
}

/// Reads the only message of a call that answers with a stream.
pub(crate) async fn read_one_frame<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, RpcError> {
    expect_content_type(request.headers(), STREAM_CONTENT_TYPE)?;
    let bytes = read_all(request, MAX_PAYLOAD + 64).await?;
    let invalid = |error: frame::FrameError| RpcError::new(Code::InvalidArgument, error.to_string());
    let mut decoder = FrameDecoder::new(MAX_PAYLOAD);
    decoder.push(&bytes);
    match decoder.next_frame().map_err(invalid)? {
        Some(frame) if !frame.is_end() => parse(&frame.payload),
        _ => Err(RpcError::new(Code::InvalidArgument, "the request has no message")),
    }
}

pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, RpcError> {
    let text = if text.is_empty() { b"{}" } else { text };
    serde_json::from_slice(text)
        .map_err(|error| RpcError::new(Code::InvalidArgument, format!("message: {error}")))
}

async fn read_all(request: Request<Incoming>, limit: usize) -> Result<Bytes, RpcError> {
    let collected =
        tokio::time::timeout(BODY_TIMEOUT, Limited::new(request.into_body(), limit).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(RpcError::new(Code::ResourceExhausted, format!("the request is larger than {limit} bytes")))
        }
        Ok(Err(error)) => Err(RpcError::new(Code::Canceled, format!("the request broke off: {error}"))),
        Err(_) => Err(RpcError::new(Code::DeadlineExceeded, "the request did not arrive in time")),
    }
}

/// The rest of a client's stream, message by message.
#[derive(Debug)]
pub(crate) struct Messages {
    body: Incoming,
    decoder: FrameDecoder,
    idle: Duration,
}

impl Messages {
    /// # Errors
    /// `invalid_argument` when the request is no stream.
    pub(crate) fn of(request: Request<Incoming>, idle: Duration) -> Result<Self, RpcError> {
        expect_content_type(request.headers(), STREAM_CONTENT_TYPE)?;
        Ok(Self { body: request.into_body(), decoder: FrameDecoder::new(MAX_PAYLOAD), idle })
    }

    /// The next message, or `None` after the last one.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, RpcError> {
        let invalid = |error: frame::FrameError| RpcError::new(Code::InvalidArgument, error.to_string());
        loop {
            match self.decoder.next_frame().map_err(invalid)? {
                Some(frame) if frame.is_end() => return Ok(None),
                Some(frame) => return parse(&frame.payload).map(Some),
                None => match next_piece(&mut self.body, self.idle).await? {
                    Some(piece) => self.decoder.push(&piece),
                    None => return self.decoder.finish().map_err(invalid).map(|()| None),
                },
            }
        }
    }
}

/// The next bytes of a body, or `None` at its end.
pub(crate) async fn next_piece(body: &mut Incoming, idle: Duration) -> Result<Option<Bytes>, RpcError> {
    loop {
        match tokio::time::timeout(idle, body.frame()).await {
            Err(_) => return Err(RpcError::new(Code::DeadlineExceeded, "the request did not go on in time")),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => {
                return Err(RpcError::new(Code::Canceled, format!("the request broke off: {error}")));
            }
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn expect_content_type(headers: &HeaderMap, want: &str) -> Result<(), RpcError> {
    let got = header(headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    if got.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(want)) {
        return Ok(());
    }
    Err(RpcError::new(Code::InvalidArgument, format!("content type must be {want}, not `{got}`")))
}

/// A header as text; one that is not text counts as absent.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Splits a query string; later values of a name win nothing, the first is taken.
pub(crate) fn query(request: &Request<Incoming>, name: &str) -> Option<String> {
    let pairs = request.uri().query()?.split('&');
    pairs
        .filter_map(|pair| pair.split_once('=').or(Some((pair, ""))))
        .find(|(key, _)| decode(key) == name)
        .map(|(_, value)| decode(value))
}

/// Undoes percent-encoding and `+`; what is malformed stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = BytesMut::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, later)) = rest.split_first() {
        let escaped = (first == b'%').then(|| later.get(..2)).flatten().and_then(hex_byte);
        rest = if escaped.is_some() { &later[2..] } else { later };
        bytes.extend_from_slice(&[escaped.unwrap_or(if first == b'+' { b' ' } else { first })]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn queries_are_decoded() {
        for (text, want) in
            [("a+b", "a b"), ("%2Ftmp%2f%C3%A4", "/tmp/ä"), ("100%", "100%"), ("%zz", "%zz"), ("%+1", "% 1")]
        {
            assert_eq!(decode(text), want);
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics_and_never_grows(text in ".{0,80}") {
            prop_assert!(decode(&text).chars().count() <= text.chars().count());
        }
    }
}
