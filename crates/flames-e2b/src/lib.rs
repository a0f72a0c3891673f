//! The interface of E2B, so that its unmodified clients run against Flames.
//!
//! | request | what |
//! |---|---|
//! | names a sandbox (by headers, by host `<port>-<id>.<domain>`, by a signed URL) | goes to that sandbox: [`proxy`] |
//! | anything else | the REST calls: `rest` |
//!
//! Both stand on [`flames_core::ControlPlane`], as `/v1` does: a sandbox made here is listed there, and there is
//! one life cycle. The agent in the guest speaks the guest half of the interface itself; nothing here translates it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod error;
mod history;
pub mod proxy;
mod rest;
mod route;
mod wake;

pub use history::History;
pub use proxy::is_public_call;
pub use route::{Destination, Misrouted, destination};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use flames_core::rate::RateLimit;
use flames_core::{ApiKeys, ControlPlane};
use proxy::Proxy;
use std::sync::Arc;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;

/// What the interface needs.
#[derive(Clone, Debug)]
pub struct E2b {
    /// The control plane.
    pub plane: Arc<ControlPlane>,
    /// The keys that open it.
    pub keys: ApiKeys,
    /// How many requests a key may send.
    pub rate: RateLimit,
    /// Ports of sandboxes are hosts `<port>-<id>` below this domain; with a port if clients must name one.
    pub domain: String,
    /// What sandboxes reach when their clients do not deny it.
    pub internet: Internet,
    /// What sandboxes used; somebody has to let it [follow](History::follow) the plane.
    pub history: Arc<History>,
}

/// Whether the internet is part of what sandboxes reach when their clients do not deny it, as in E2B. Rules that name
/// destinations hold either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internet {
    /// It is.
    Given,
    /// It is not: only what is named is reached.
    Withheld,
}

/// Where every request enters.
#[derive(Clone, Debug)]
struct Entrance {
    rest: Router,
    proxy: Proxy,
    domain: Arc<str>,
}

/// The whole interface, for one listener.
pub fn router(e2b: E2b) -> Router {
    let entrance = Entrance {
        proxy: Proxy::new(Arc::clone(&e2b.plane)),
        domain: route::without_port(&e2b.domain).to_ascii_lowercase().into(),
        rest: rest::router(e2b),
    };
    // A fallback alone: no path is the API's before it is known that the request is not a sandbox's.
    Router::new()
        .fallback(enter)
        .layer(CatchPanicLayer::custom(error::from_panic))
        .layer(TraceLayer::new_for_http())
        .with_state(entrance)
}

async fn enter(State(entrance): State<Entrance>, request: Request) -> Response {
    match destination(&request, &entrance.domain) {
        Ok(Destination::Api) => match entrance.rest.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Ok(Destination::Sandbox { id, port }) => entrance.proxy.forward(&id, port, request).await,
        Ok(Destination::SignedFile) => entrance.proxy.forward_signed(request).await,
        Err(misrouted) => misrouted.into_response(),
    }
}
