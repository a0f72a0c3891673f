//! The head of an HTTP/1 request: whom it is for, and how it is passed on so that no other request follows it.

use crate::DomainName;
use crate::server_name::{MAX_PEEK, ServerName, named};
use httparse::Header;

/// The most header fields of a request that is looked at.
const MAX_HEADERS: usize = 128;
/// Fields that say what becomes of the connection; the one that passes the request on says that itself.
const OF_THE_CONNECTION: [&str; 4] = ["connection", "keep-alive", "proxy-connection", "upgrade"];

/// A request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The host that it is for; `None` for one that names nobody, or an address.
    pub name: Option<DomainName>,
    /// The same head, written anew: in the one way that everybody reads alike, and as the only one of its connection.
    pub alone: Vec<u8>,
    /// What follows the head.
    pub body: Body,
    /// How many of the bytes received the head was.
    pub length: usize,
}

/// What belongs to a request after its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks, of which the last one says that it is.
    Chunked,
    /// Nothing, but a WebSocket if the server agrees.
    WebSocket,
}

impl RequestHead {
    /// Reads what a client sent first; `None` when that is not all of the head yet.
    ///
    /// # Errors
    /// For people, why it is not passed on: no request, one that two servers could read differently, or one without an end
    /// within [`MAX_PEEK`].
    pub fn read(received: &[u8]) -> Result<Option<Self>, String> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(received) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if received.len() < MAX_PEEK => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(format!("no name within {MAX_PEEK} bytes")),
            Err(error) => return Err(error.to_string()),
        };
        let name = match host(&request) {
            ServerName::Named(name) => Some(name),
            ServerName::Malformed(why) => return Err(why),
            ServerName::Unnamed | ServerName::Incomplete => None,
        };
        let body = body(&request)?;
        Ok(Some(Self { name, alone: written(&request, body), body, length }))
    }
}

/// A server obeys the target of a request before its Host field: where both name a host they must be the same, and there
/// must be one Host field alone, or else the two ends could mean different ones.
fn host(request: &httparse::Request<'_, '_>) -> ServerName {
    let field = match only(request.headers, "host") {
        Ok(field) => field.map(without_port),
        Err(why) => return ServerName::Malformed(why),
    };
    let target = request.path.unwrap_or_default();
    match authority_of(target).map(without_port) {
        Some(named) if field.is_some_and(|field| !field.eq_ignore_ascii_case(named)) => {
            ServerName::Malformed("target and Host field differ".to_owned())
        }
        Some(host) => named(Some(host)),
        None if target.starts_with('/') || target == "*" => named(field.filter(|host| !host.is_empty())),
        None => ServerName::Malformed("a target that is no path".to_owned()), // CONNECT among them
    }
}

/// How long the body is, if everybody must agree about that.
fn body(request: &httparse::Request<'_, '_>) -> Result<Body, String> {
    let encoding = only(request.headers, "transfer-encoding")?;
    let length = only(request.headers, "content-length")?;
    match (encoding, length) {
        (None, None) if asks_for_websocket(request)? => Ok(Body::WebSocket),
        (None, None) => Ok(Body::Length(0)),
        (None, Some(digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map(Body::Length).map_err(|_| "a length that is no number".to_owned())
        }
        (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") && request.version == Some(1) => {
            Ok(Body::Chunked)
        }
        _ => Err("a body of which two servers could see different ends".to_owned()),
    }
}

/// Of all protocols that one could change to, this is the one that takes no further requests.
fn asks_for_websocket(request: &httparse::Request<'_, '_>) -> Result<bool, String> {
    let protocol = only(request.headers, "upgrade")?;
    Ok(protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")))
}

/// A server that is told to close answers no further request, whatever follows (RFC 9112, 9.6).
fn written(request: &httparse::Request<'_, '_>, body: Body) -> Vec<u8> {
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let version = request.version.unwrap_or_default();
    let mut head = format!("{method} {target} HTTP/1.{version}\r\n").into_bytes();
    let ours = |name: &str| OF_THE_CONNECTION.iter().any(|field| name.eq_ignore_ascii_case(field));
    for header in request.headers.iter().filter(|header| !ours(header.name)) {
        head.extend([header.name.as_bytes(), b": ", header.value, b"\r\n"].concat());
    }
    head.extend(match body {
        Body::WebSocket => b"Connection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n".as_slice(),
        Body::Length(_) | Body::Chunked => b"Connection: close\r\n\r\n",
    });
    head
}

/// The text of a field that may stand there once.
fn only<'h>(headers: &[Header<'h>], name: &str) -> Result<Option<&'h str>, String> {
    let mut fields = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    let field = fields.next().map(|header| header.value);
    if fields.next().is_some() {
        return Err(format!("several {name} fields"));
    }
    let text = field.map(str::from_utf8).transpose();
    text.map(|text| text.map(str::trim)).map_err(|_| format!("a {name} field that is no text"))
}

/// The host and port in a target that is a whole URL.
fn authority_of(target: &str) -> Option<&str> {
    let (_, rest) = target.split_once("://").filter(|(scheme, _)| !scheme.contains('/'))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}
