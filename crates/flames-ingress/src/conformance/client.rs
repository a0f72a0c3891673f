//! The suite's client: one connection per request, so that no pool hides a fault.

use super::soon;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: http::HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as JSON; the suite's upstream and every provider's own answers are JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}: the body is not JSON: {:?}", self.status, self.body))
    }

    /// The tag of the upstream that answered.
    pub(super) fn tag(&self) -> String {
        assert_eq!(self.status, StatusCode::OK, "{:?}", self.body);
        self.json()["upstream"].as_str().expect("the suite's upstream names itself").to_owned()
    }
}

/// A GET request.
pub(super) fn get(host: &str, path: &str) -> Request<BoxBody<Bytes, Infallible>> {
    with_body("GET", host, path, Bytes::new())
}

/// A request with a body of known length.
pub(super) fn with_body(
    method: &str,
    host: &str,
    path: &str,
    body: Bytes,
) -> Request<BoxBody<Bytes, Infallible>> {
    let request = Request::builder().method(method).uri(path).header("host", host);
    request.body(Full::new(body).boxed()).expect("the case's request is valid")
}

/// Sends a request and reads the whole answer.
pub(super) async fn send(entrance: SocketAddr, request: Request<BoxBody<Bytes, Infallible>>) -> Answer {
    let response = open(entrance, request).await;
    let (parts, body) = response.into_parts();
    let body =
        soon("the answer's body", body.collect()).await.expect("the answer's body is whole").to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

/// Sends a request and gives the answer once its headers are there.
pub(super) async fn open<B>(entrance: SocketAddr, request: Request<B>) -> Response<Incoming>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let stream = soon("a connection", TcpStream::connect(entrance)).await.expect("the entrance accepts");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a fresh connection works");
    tokio::spawn(connection.with_upgrades());
    soon("an answer", sender.send_request(request)).await.expect("the request is answered")
}

/// Sends a request; `None` when the connection is refused or ends before a byte of the answer.
pub(super) async fn try_send(
    entrance: SocketAddr,
    request: Request<BoxBody<Bytes, Infallible>>,
) -> Option<Answer> {
    let stream = TcpStream::connect(entrance).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let response = soon("an answer or an end", sender.send_request(request)).await.ok()?;
    let (parts, body) = response.into_parts();
    let body =
        soon("the answer's body", body.collect()).await.expect("the answer's body is whole").to_bytes();
    Some(Answer { status: parts.status, headers: parts.headers, body })
}

/// Sends raw bytes and gives what comes back until the other side closes.
pub(super) async fn raw(entrance: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(entrance).await.expect("the entrance accepts");
    // A refusal may come before all is written: what matters is the answer.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = soon("the end of a raw answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Opens a tunnel to `/tunnel` as a WebSocket client does.
pub(super) async fn tunnel(entrance: SocketAddr, host: &str) -> TokioIo<hyper::upgrade::Upgraded> {
    let mut request = get(host, "/tunnel");
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        request.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    let response = open(entrance, request).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    TokioIo::new(soon("the upgrade", hyper::upgrade::on(response)).await.expect("the connection is upgraded"))
}
