//! The HTTP surface of Flames.
//!
//! A handler makes four moves: authenticate (a layer does), parse (extractors do), await one core call,
//! convert. No handler knows what a VMM is.
//!
//! | path | what |
//! |---|---|
//! | `/v1/sandboxes…` | sandboxes, commands and files in them |
//! | `/v1/snapshots…` | what sandboxes were at one moment, to create others from |
//! | `/v1/pools…` | VMs that are ready before anyone asks |
//! | `/v1/events` | what happens to sandboxes |
//! | `/v1/templates…` | what sandboxes are created from |
//! | `/v1/keys…` | API keys, from this machine only |
//! | `/v1/node` | what the host has, and whether anything leaked |
//! | `/v1/alerts`, `/v1/top`, `/metrics` | how the daemon and its sandboxes fare |
//! | `/healthz`, `/readyz`, `/openapi.json` | open to everybody |
//!
//! Errors are `application/problem+json` (RFC 9457), see [`problem::Problem`].

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod auth;
mod extract;
pub mod model;
mod patient;
pub mod problem;
mod routes;
pub mod server;
mod unread;

pub use problem::Problem;

use auth::{Scheme, Trust};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use flames_core::rate::RateLimit;
use flames_core::{ApiKeys, ControlPlane};
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// What the handlers need.
#[derive(Clone, Debug)]
pub struct Api {
    /// The control plane.
    pub plane: Arc<ControlPlane>,
    /// The keys that open it.
    pub keys: ApiKeys,
    /// How many requests a key may send.
    pub rate: RateLimit,
    /// The largest file that may be uploaded, in bytes.
    pub max_upload_bytes: u64,
}

/// JSON bodies above this are refused.
const MAX_JSON_BYTES: usize = 1024 * 1024;

/// All routes, with `trust` deciding who may call them.
pub fn router(api: Api, trust: Trust) -> Router {
    let (guarded, mut openapi) = guarded().split_for_parts();
    let (open, open_paths) = routes::health::router().split_for_parts();
    openapi.merge(open_paths);
    let guarded = guarded.layer(axum::middleware::from_fn_with_state((api.clone(), trust), auth::require));
    let document: Arc<str> = render(&openapi).into();
    guarded
        .merge(open)
        .route("/openapi.json", axum::routing::get(move || routes::health::openapi(document)))
        .fallback(routes::health::unknown_path)
        .method_not_allowed_fallback(routes::health::wrong_method)
        .layer(DefaultBodyLimit::max(MAX_JSON_BYTES))
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .layer(axum::middleware::from_fn_with_state(api.clone(), routes::monitor::measure))
        .layer(TraceLayer::new_for_http())
        .with_state(api)
}

/// The OpenAPI 3.1 document, as committed in `api/openapi.json`.
pub fn openapi_json() -> String {
    let mut openapi = guarded().split_for_parts().1;
    openapi.merge(routes::health::router().split_for_parts().1);
    render(&openapi)
}

fn guarded() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(routes::sandboxes::router())
        .merge(routes::processes::router())
        .merge(routes::files::router())
        .merge(routes::snapshots::router())
        .merge(routes::templates::router())
        .merge(routes::node::router())
        .merge(routes::pools::router())
        .merge(routes::ports::router())
        .merge(routes::network::router())
        .merge(routes::events::router())
        .merge(routes::keys::router())
        .merge(routes::monitor::router())
}

fn render(openapi: &utoipa::openapi::OpenApi) -> String {
    let mut text = openapi.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Flames", description = "Runs untrusted code in microVMs on your own machines."),
    modifiers(&Scheme),
    security(("api_key" = [])),
    components(schemas(Problem)),
)]
struct Document;
