//! A router over memory, and requests to it without a socket.

use crate::agent::Agent;
use crate::fake_node::FakeNode;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use flames_api::auth::Trust;
use flames_api::{Api, Problem, router};
use flames_core::clock::SystemClock;
use flames_core::rate::RateLimit;
use flames_core::sandbox::admit::Limits;
use flames_core::sandbox::room::MemoryLimit;
use flames_core::{ApiKeys, ControlPlane, Providers};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::sync::Arc;
use tower::ServiceExt;

/// The largest upload of the tests' daemon.
pub(crate) const MAX_UPLOAD: u64 = 1000;

/// A daemon without listeners.
pub(crate) struct House {
    pub(crate) api: Api,
    pub(crate) node: Arc<FakeNode>,
    trust: Trust,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl House {
    pub(crate) async fn new(trust: Trust) -> Self {
        Self::with_rate(trust, None).await
    }

    pub(crate) async fn with_rate(trust: Trust, per_minute: Option<NonZeroU32>) -> Self {
        Self::within(trust, per_minute, Limits::default()).await
    }

    pub(crate) async fn with_memory(memory: MemoryLimit) -> Self {
        Self::within(Trust::SocketOwner, None, Limits { memory, ..Limits::default() }).await
    }

    async fn within(trust: Trust, per_minute: Option<NonZeroU32>, limits: Limits) -> Self {
        let node = FakeNode::with_agent(Arc::new(Agent));
        let providers = Providers::memory();
        let clock = Arc::new(SystemClock);
        let keys = ApiKeys::new(Arc::clone(&providers.state), clock.clone());
        let rate = RateLimit::new(Arc::clone(&providers.cache), clock.clone(), per_minute);
        let plane = ControlPlane::start(providers, node.clone(), clock, limits).await.unwrap();
        Self { api: Api { plane, keys, rate, max_upload_bytes: MAX_UPLOAD }, node, trust }
    }

    /// As somebody on this machine.
    pub(crate) async fn local() -> Self {
        Self::new(Trust::SocketOwner).await
    }

    pub(crate) fn router(&self) -> Router {
        router(self.api.clone(), self.trust)
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, Body::empty())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(request(Method::DELETE, path, Body::empty())).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(json_request(path, body.to_string())).await
    }

    /// A sandbox that runs, with these labels.
    pub(crate) async fn create(&self, metadata: Value) -> String {
        let answer = self.post("/v1/sandboxes", &json!({ "template": "mini", "metadata": metadata })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem that it is, with everything that a problem must have.
    pub(crate) fn problem(&self) -> Problem {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{self:?}");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(problem.type_uri, format!("urn:flames:problem:{}", problem.code));
        assert!(!problem.detail.is_empty() && !problem.title.is_empty());
        problem
    }

    /// Asserts which problem it is.
    pub(crate) fn is_problem(&self, status: u16, code: &str) -> Problem {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        let problem = self.problem();
        assert_eq!(problem.code, code);
        problem
    }
}

pub(crate) fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body).unwrap()
}

pub(crate) fn json_request(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}
