//! The REST calls, each a thin translation onto the control plane.

mod create;
mod extract;
mod list;
mod logs;
mod model;
mod network;
mod observe;
mod pause;
mod sandboxes;
mod snapshots;
mod tags;
mod templates;

use crate::E2b;
use crate::error::{ApiError, ApiResult};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{any, get, post, put};

/// Bodies above this are refused.
const MAX_BODY: usize = 1024 * 1024;

pub(crate) fn router(e2b: E2b) -> Router {
    guarded()
        .layer(axum::middleware::from_fn_with_state(e2b.clone(), require_key))
        .route("/health", get(async || "Health check successful"))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(e2b)
}

fn guarded() -> Router<E2b> {
    Router::new()
        .route("/sandboxes", post(create::create_v1).get(list::list_running))
        .route("/v2/sandboxes", post(create::create_v2).get(list::list))
        .route("/sandboxes/metrics", get(observe::metrics_of_many))
        .route("/sandboxes/{id}", get(sandboxes::info).delete(sandboxes::kill))
        .route("/sandboxes/{id}/connect", post(pause::connect))
        .route("/v2/sandboxes/{id}/connect", post(pause::connect))
        .route("/sandboxes/{id}/timeout", post(sandboxes::set_timeout))
        .route("/sandboxes/{id}/refreshes", post(sandboxes::refresh))
        .route("/sandboxes/{id}/pause", post(pause::pause))
        .route("/sandboxes/{id}/resume", post(pause::resume))
        .route("/sandboxes/{id}/snapshots", post(snapshots::take))
        .route("/sandboxes/{id}/fork", post(snapshots::fork))
        .route("/sandboxes/{id}/network", put(network::set_network))
        .route("/sandboxes/{id}/metrics", get(observe::metrics))
        .route("/sandboxes/{id}/logs", get(logs::logs))
        .route("/v2/sandboxes/{id}/logs", get(logs::logs_v2))
        .route("/snapshots", get(snapshots::list))
        .route("/templates", get(templates::list).post(unsupported))
        .route("/v2/templates", get(templates::list).post(unsupported))
        .route("/v3/templates", any(unsupported))
        .route("/templates/aliases/{alias}", get(templates::alias))
        .route("/templates/tags", post(tags::assign).delete(tags::remove))
        .route("/templates/{id}/tags", get(tags::list))
        .route("/templates/{id}", get(templates::get).delete(templates::delete))
        .route("/templates/{id}/{*rest}", any(unsupported))
        .route("/v2/templates/{*rest}", any(unsupported))
        .route("/teams", get(templates::teams))
        .route("/volumes", any(unsupported))
        .route("/volumes/{*rest}", any(unsupported))
        .route("/secrets", any(unsupported))
        .route("/secrets/{*rest}", any(unsupported))
}

/// Lets a request pass that shows a key, or answers 401.
async fn require_key(State(e2b): State<E2b>, mut request: Request, next: Next) -> ApiResult<Response> {
    let refused = |message: &str| ApiError::new(StatusCode::UNAUTHORIZED, message);
    let key = presented(request.headers()).ok_or_else(|| refused("no API key was sent in X-API-KEY"))?;
    let key = e2b.keys.verify(key).await?;
    let key = key.ok_or_else(|| refused("this API key does not exist or was revoked"))?;
    e2b.rate.take(&key.id).await?;
    e2b.history.ask();
    request.extensions_mut().insert(Caller(key.id));
    Ok(next.run(request).await)
}

/// Which key a request came with.
#[derive(Clone, Debug)]
struct Caller(String);

fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer = || headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ");
    headers.get("x-api-key").and_then(|value| value.to_str().ok()).or_else(bearer)
}

async fn unsupported(request: Request) -> ApiError {
    let call = format!("{} {} is", request.method(), request.uri().path());
    ApiError::unsupported(&call)
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no call {}", uri.path()))
}

async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} {} is no call", request.method(), request.uri().path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
