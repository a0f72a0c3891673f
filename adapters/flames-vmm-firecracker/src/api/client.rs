//! HTTP over the unix socket that Firecracker serves: one connection, one request at a time.

use super::values::{Error as Fault, InstanceInfo};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// A connection to one Firecracker.
#[derive(Debug)]
pub(crate) struct Api {
    sender: Mutex<SendRequest<Full<Bytes>>>,
    connection: JoinHandle<()>,
    /// Most that one answer may take. A full snapshot writes all of the memory: see [`Api::put_within`].
    timeout: Duration,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("cannot reach Firecracker's API socket")]
    Connect(#[source] std::io::Error),
    #[error("Firecracker closed its API socket")]
    Closed(#[source] hyper::Error),
    #[error("Firecracker refused `{request}`: {fault}")]
    Refused { request: String, fault: String },
    #[error("Firecracker did not answer `{request}` within {} ms", .after.as_millis())]
    Timeout { request: String, after: Duration },
    #[error("Firecracker answered `{request}` with something else than was asked for")]
    Garbled { request: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl Api {
    /// Connects to a socket that is served. `timeout` bounds each answer.
    pub(crate) async fn connect(socket: &Path, timeout: Duration) -> Result<Self, ApiError> {
        let stream = UnixStream::connect(socket).await.map_err(ApiError::Connect)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ApiError::Closed)?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to a Firecracker ended");
            }
        });
        Ok(Self { sender: Mutex::new(sender), connection, timeout })
    }

    pub(crate) async fn instance(&self) -> Result<InstanceInfo, ApiError> {
        self.get("/").await
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let body = self.request(Method::GET, path, Bytes::new(), self.timeout).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ApiError::Garbled { request: format!("GET {path}"), source: error.into() })
    }

    pub(crate) async fn put(&self, path: &str, value: &impl Serialize) -> Result<(), ApiError> {
        self.put_within(path, value, self.timeout).await
    }

    /// For what takes as long as a disk does.
    pub(crate) async fn put_within(
        &self,
        path: &str,
        value: &impl Serialize,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        self.request(Method::PUT, path, json(path, value)?, timeout).await.map(drop)
    }

    pub(crate) async fn patch(&self, path: &str, value: &impl Serialize) -> Result<(), ApiError> {
        self.request(Method::PATCH, path, json(path, value)?, self.timeout).await.map(drop)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, ApiError> {
        let name = format!("{method} {path}");
        let answer = tokio::time::timeout(timeout, self.exchange(&name, method, path, body)).await;
        answer.unwrap_or_else(|_| Err(ApiError::Timeout { request: name, after: timeout }))
    }

    async fn exchange(&self, name: &str, method: Method, path: &str, body: Bytes) -> Result<Bytes, ApiError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "localhost")
            .header("Accept", "application/json")
            .header("Content-Type", "application/json")
            .body(Full::new(body))
            .map_err(|error| ApiError::Garbled { request: name.to_owned(), source: error.into() })?;
        let mut sender = self.sender.lock().await;
        sender.ready().await.map_err(ApiError::Closed)?;
        let response = sender.send_request(request).await.map_err(ApiError::Closed)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(ApiError::Closed)?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        Err(ApiError::Refused { request: name.to_owned(), fault: fault(status, &body) })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn json(path: &str, value: &impl Serialize) -> Result<Bytes, ApiError> {
    let text = serde_json::to_vec(value);
    text.map(Bytes::from)
        .map_err(|error| ApiError::Garbled { request: path.to_owned(), source: error.into() })
}

/// Firecracker's own words, or at least its status.
fn fault(status: StatusCode, body: &[u8]) -> String {
    let said = serde_json::from_slice::<Fault>(body).ok().and_then(|fault| fault.fault_message);
    said.unwrap_or_else(|| format!("{status}: {}", String::from_utf8_lossy(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_firecrackers_own_words() {
        let body = br#"{"fault_message":"Invalid memory size"}"#;
        assert_eq!(fault(StatusCode::BAD_REQUEST, body), "Invalid memory size");
        assert_eq!(fault(StatusCode::BAD_REQUEST, b"oops"), "400 Bad Request: oops");
    }
}
