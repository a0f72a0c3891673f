//! Connections, headers, deadlines and error bodies: what every call shares.

use super::types::{GuestError, GuestErrorKind, GuestResult};
use crate::{AccessToken, GuestStream, Result};
use async_trait::async_trait;
use base64::Engine;
use bytes::Bytes;
use flames_guest::ACCESS_TOKEN_HEADER;
use flames_guest::control::CONTROL_HEADER;
use flames_guest::files::HttpError;
use flames_guest::rpc::RpcError;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The largest answer that is read into memory.
const MAX_ANSWER: usize = 16 << 20;
/// The largest error body.
const MAX_ERROR: usize = 64 << 10;
/// How long an unused connection stays open.
const IDLE: Duration = Duration::from_secs(60);
/// Idle connections kept per guest.
const MAX_IDLE: usize = 4;

/// Opens connections to the agent of one guest.
#[async_trait]
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// A new connection to the agent's port.
    ///
    /// # Errors
    /// `Unavailable` when the guest is gone or refuses.
    async fn dial(&self) -> Result<GuestStream>;
}

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Which call, for whom, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) method: &'static str,
    pub(super) user: Option<&'a str>,
    pub(super) deadline: Duration,
}

/// Sends requests to one agent.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    client: Client<Connector, Body>,
    token: AccessToken,
}

impl Transport {
    pub(super) fn new(dial: Arc<dyn Dial>, token: AccessToken) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(Connector(dial));
        Self { client, token }
    }

    pub(super) fn with_token(&self, token: AccessToken) -> Self {
        Self { client: self.client.clone(), token }
    }

    /// A call with one JSON message each way.
    pub(super) async fn unary<Answer: DeserializeOwned>(
        &self,
        call: Call<'_>,
        message: &impl Serialize,
    ) -> GuestResult<Answer> {
        let request = self
            .request(call.method, call.user)
            .header(header::CONTENT_TYPE, "application/json")
            .header("Connect-Timeout-Ms", call.deadline.as_millis().to_string());
        let request = finish(request, full(to_json(message)?))?;
        let bytes = within(call.deadline, self.whole_answer(request)).await?;
        from_json(&bytes)
    }

    /// Sends a request and gives the answer's headers; only the wait for those is bounded.
    pub(super) async fn send(
        &self,
        request: http::request::Builder,
        body: Body,
        deadline: Duration,
    ) -> GuestResult<Response<Incoming>> {
        let request = finish(request, body)?;
        within(deadline, self.checked(request)).await
    }

    pub(super) async fn get(&self, path: &'static str, deadline: Duration) -> GuestResult<()> {
        let request = finish(self.builder(http::Method::GET, path), full(Bytes::new()))?;
        within(deadline, self.whole_answer(request)).await.map(drop)
    }

    pub(super) async fn get_json<Answer: DeserializeOwned>(
        &self,
        path: &'static str,
        deadline: Duration,
    ) -> GuestResult<Answer> {
        let request = finish(self.builder(http::Method::GET, path), full(Bytes::new()))?;
        from_json(&within(deadline, self.whole_answer(request)).await?)
    }

    /// A call that only the node may make: it carries the control token.
    pub(super) async fn control<Answer: DeserializeOwned>(
        &self,
        path: &'static str,
        control: &AccessToken,
        message: &impl Serialize,
        deadline: Duration,
    ) -> GuestResult<Answer> {
        let request = Request::post(origin(path))
            .header(header::CONTENT_TYPE, "application/json")
            .header(CONTROL_HEADER, secret_header(control)?);
        let request = finish(request, full(to_json(message)?))?;
        let bytes = within(deadline, self.whole_answer(request)).await?;
        from_json(&bytes)
    }

    /// The start of a request for an RPC method, with token and user.
    pub(super) fn request(&self, method: &'static str, user: Option<&str>) -> http::request::Builder {
        let request = self.builder(http::Method::POST, method).header("Connect-Protocol-Version", "1");
        match user {
            Some(user) => request.header(header::AUTHORIZATION, basic(user)),
            None => request,
        }
    }

    /// The start of a request with the token.
    pub(super) fn builder(&self, method: http::Method, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method).uri(origin(path));
        match secret_header(&self.token) {
            Ok(token) => request.header(ACCESS_TOKEN_HEADER, token),
            Err(_) => request,
        }
    }

    async fn whole_answer(&self, request: Request<Body>) -> GuestResult<Bytes> {
        let response = self.checked(request).await?;
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| broken("the agent's answer broke off", error))
    }

    async fn checked(&self, request: Request<Body>) -> GuestResult<Response<Incoming>> {
        let response = self.client.request(request).await.map_err(unreachable_agent)?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }
}

/// Turns an error answer into an error; the body may be anything.
async fn refusal(response: Response<Incoming>) -> GuestError {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_ERROR).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    error_from_body(status, &body)
}

/// What an error answer means: an RPC error by its code, a plain one by its status.
fn error_from_body(status: u16, body: &[u8]) -> GuestError {
    if let Ok(error) = serde_json::from_slice(body) {
        return rpc_error(error);
    }
    let plain = serde_json::from_slice::<HttpError>(body).map(|error| error.message);
    let message = plain.unwrap_or_else(|_| format!("the agent answered with status {status}"));
    GuestError::new(GuestErrorKind::from_status(status), message)
}

pub(super) fn rpc_error(error: RpcError) -> GuestError {
    GuestError::new(GuestErrorKind::from_code(error.code), error.message)
}

pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn to_json(message: &impl Serialize) -> GuestResult<Bytes> {
    let json = serde_json::to_vec(message);
    json.map(Bytes::from)
        .map_err(|error| GuestError::new(GuestErrorKind::Internal, "request").with_source(error))
}

pub(super) fn from_json<Answer: DeserializeOwned>(bytes: &[u8]) -> GuestResult<Answer> {
    let bytes = if bytes.is_empty() { b"null" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| broken("the agent's answer makes no sense", error))
}

/// Bounds a wait.
pub(super) async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = GuestResult<T>>,
) -> GuestResult<T> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!("the agent did not answer within {} s", deadline.as_secs_f64());
            Err(GuestError::new(GuestErrorKind::Unavailable, message))
        }
    }
}

fn finish(request: http::request::Builder, body: Body) -> GuestResult<Request<Body>> {
    let invalid =
        |error| GuestError::new(GuestErrorKind::InvalidArgument, "not a valid request").with_source(error);
    request.body(body).map_err(invalid)
}

fn unreachable_agent(error: ClientError) -> GuestError {
    broken("the agent cannot be reached", error)
}

fn broken(message: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> GuestError {
    GuestError::new(GuestErrorKind::Unavailable, message).with_source(error)
}

fn origin(path: &str) -> String {
    format!("http://guest{path}")
}

fn basic(user: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:")))
}

fn secret_header(token: &AccessToken) -> GuestResult<HeaderValue> {
    let mut value = HeaderValue::from_str(token.expose())
        .map_err(|_| GuestError::new(GuestErrorKind::InvalidArgument, "token cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Opens connections for the HTTP client, whatever the address says.
#[derive(Clone, Debug)]
struct Connector(Arc<dyn Dial>);

impl tower::Service<http::Uri> for Connector {
    type Response = GuestIo;
    type Error = flames_vmm::Error;
    type Future = Pin<Box<dyn Future<Output = Result<GuestIo>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let dial = Arc::clone(&self.0);
        Box::pin(async move { Ok(GuestIo(TokioIo::new(dial.dial().await?))) })
    }
}

/// A connection as the HTTP client wants it.
#[derive(Debug)]
struct GuestIo(TokioIo<GuestStream>);

impl Connection for GuestIo {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for GuestIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for GuestIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_body_with_a_code_beats_the_status() {
        let error = error_from_body(500, br#"{"code":"not_found","message":"no such file"}"#);
        assert_eq!((error.kind(), error.message()), (GuestErrorKind::NotFound, "no such file"));
    }

    #[test]
    fn an_error_body_that_is_no_json_goes_by_its_status() {
        assert_eq!(error_from_body(507, b"<html>").kind(), GuestErrorKind::ResourceExhausted);
    }
}
