//! The suite's upstream: an HTTP/1.1 server on loopback whose behaviour depends on the path.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::PollSemaphore;
use tokio_util::task::AbortOnDropHandle;

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// What `/events` sends for each permit.
pub(super) const EVENT: &str = "data: tick\n\n";

/// Ends a tunnel at the upstream.
pub(super) const QUIT: u8 = 4;

/// Answers until it is dropped; its open connections end with it.
#[derive(Debug)]
pub(super) struct TestUpstream {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    tag: &'static str,
    /// One permit lets `/events` send one event.
    events: Arc<Semaphore>,
    uploaded: watch::Sender<u64>,
    requests: watch::Sender<usize>,
    whole_uploads: watch::Sender<usize>,
    abandoned: watch::Sender<usize>,
}

impl TestUpstream {
    /// On a free port of loopback.
    pub(super) async fn start(tag: &'static str) -> Self {
        Self::start_at(tag, ([127, 0, 0, 1], 0).into()).await
    }

    pub(super) async fn start_at(tag: &'static str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            tag,
            events: Arc::new(Semaphore::new(0)),
            uploaded: watch::Sender::new(0),
            requests: watch::Sender::new(0),
            whole_uploads: watch::Sender::new(0),
            abandoned: watch::Sender::new(0),
        });
        let server = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, _server: AbortOnDropHandle::new(server) }
    }

    /// Lets `/events` send one more event.
    pub(super) fn release_event(&self) {
        self.shared.events.add_permits(1);
    }

    /// Waits until `/upload` has seen this many bytes of a body.
    pub(super) async fn uploaded(&self, bytes: u64) {
        let mut uploaded = self.shared.uploaded.subscribe();
        uploaded.wait_for(|seen| *seen >= bytes).await.expect("the upstream lives");
    }

    /// Waits until a client has left `/events`, or a tunnel has ended.
    pub(super) async fn abandoned(&self) {
        let mut abandoned = self.shared.abandoned.subscribe();
        abandoned.wait_for(|count| *count > 0).await.expect("the upstream lives");
    }

    /// Requests seen so far.
    pub(super) fn requests(&self) -> usize {
        *self.shared.requests.borrow()
    }

    /// Bodies that `/upload` has read to their end.
    pub(super) fn whole_uploads(&self) -> usize {
        *self.shared.whole_uploads.borrow()
    }
}

/// An address at which nobody listens.
pub(super) async fn dead_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address")
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve_connection(stream, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(Arc::clone(&shared), request));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A client that leaves is part of many cases.
    let _ = connection.with_upgrades().await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    shared.requests.send_modify(|count| *count += 1);
    Ok(match request.uri().path() {
        "/events" => events(shared),
        "/upload" => upload(&shared, request).await,
        "/tunnel" => echo_tunnel(shared, request),
        "/late" => std::future::pending().await,
        "/hop" => hop_by_hop(),
        "/no-content" => status(StatusCode::NO_CONTENT),
        "/not-modified" => status(StatusCode::NOT_MODIFIED),
        _ => describe(&shared, request).await,
    })
}

/// What the upstream saw, as JSON.
async fn describe(shared: &Shared, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let seen = json!({
        "upstream": shared.tag,
        "method": parts.method.as_str(),
        "path": path,
        "headers": headers_as_json(&parts.headers),
        "body": String::from_utf8_lossy(&body),
    });
    Response::new(full(seen.to_string()))
}

fn headers_as_json(headers: &HeaderMap) -> Value {
    let values = |name| -> Vec<_> {
        headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    };
    headers.keys().map(|name| (name.as_str().to_owned(), json!(values(name)))).collect()
}

fn events(shared: Arc<Shared>) -> Answer {
    let permits = PollSemaphore::new(Arc::clone(&shared.events));
    let response = Response::builder().header("content-type", "text/event-stream");
    let response = response.body(Events { permits, shared }.boxed());
    response.unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
}

/// An endless stream of events that notices when its client is gone.
struct Events {
    permits: PollSemaphore,
    shared: Arc<Shared>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.permits.poll_acquire(cx).map(|permit| {
            permit.map(|permit| {
                permit.forget();
                Ok(Frame::data(Bytes::from_static(EVENT.as_bytes())))
            })
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.abandoned.send_modify(|count| *count += 1);
    }
}

async fn upload(shared: &Shared, request: Request<Incoming>) -> Answer {
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return status(StatusCode::BAD_REQUEST) };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        shared.uploaded.send_modify(|seen| *seen += bytes);
    }
    shared.whole_uploads.send_modify(|count| *count += 1);
    Response::new(full(json!({ "upstream": shared.tag, "bytes": *shared.uploaded.borrow() }).to_string()))
}

fn echo_tunnel(shared: Arc<Shared>, mut request: Request<Incoming>) -> Answer {
    let is_websocket = request.headers().get("upgrade").is_some_and(|value| value == "websocket");
    if !is_websocket {
        return status(StatusCode::BAD_REQUEST);
    }
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
            let _ = echo(TokioIo::new(upgraded)).await;
        }
        shared.abandoned.send_modify(|count| *count += 1);
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    response.body(full("")).unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
}

/// Gives back what comes until the client ends or sends [`QUIT`] alone.
async fn echo(mut stream: TokioIo<hyper::upgrade::Upgraded>) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            1 if buffer[0] == QUIT => return stream.shutdown().await,
            length => stream.write_all(&buffer[..length]).await?,
        }
        stream.flush().await?;
    }
}

fn hop_by_hop() -> Answer {
    let response = Response::builder()
        .header("connection", "x-own-hop")
        .header("x-own-hop", "secret")
        .header("keep-alive", "timeout=77")
        .header("proxy-connection", "keep-alive")
        .header("x-end-to-end", "kept");
    response.body(full("{}")).unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
}

fn status(status: StatusCode) -> Answer {
    let mut response = Response::new(full(""));
    *response.status_mut() = status;
    response
}

fn full(text: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(text.into()).boxed()
}
