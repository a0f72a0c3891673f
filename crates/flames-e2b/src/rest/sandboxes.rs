//! One sandbox: connect, look, end, and when it ends.

use super::create::seconds;
use super::extract::{Body, Id};
use super::model::{Lifecycle, ListedSandbox, SandboxDetail, TimeoutBody};
use super::network::NetworkView;
use crate::E2b;
use crate::error::{ApiError, ApiResult};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use flames_core::SandboxId;
use flames_core::sandbox::error::LifecycleError;
use flames_core::sandbox::record::{Sandbox, Traffic};
use flames_node::Contents;
use flames_node::egress::Base;

/// Taken when a refresh names no duration.
const REFRESH_S: i64 = 300;

pub(super) async fn info(State(e2b): State<E2b>, Id(id): Id) -> ApiResult<Json<SandboxDetail>> {
    let sandbox = e2b.plane.get(&id).await?;
    let listed = ListedSandbox::of(&sandbox).ok_or_else(|| ApiError::no_sandbox(id.as_str()))?;
    let envd_access_token = e2b.plane.access_token(&id).expose().to_owned();
    let pause_mode = (listed.state == "paused").then_some(match sandbox.keeps() {
        Contents::MemoryAndDisk => "full",
        Contents::DiskOnly => "filesystem",
    });
    let open = sandbox.entrance.traffic == Traffic::Open;
    Ok(Json(SandboxDetail {
        listed,
        envd_access_token,
        domain: e2b.domain,
        allow_internet_access: sandbox.network.base() == Base::Internet,
        network: NetworkView::of(&sandbox.network, open, sandbox.entrance.host_mask.clone()),
        lifecycle: Lifecycle::of(&sandbox),
        pause_mode,
    }))
}

pub(super) async fn kill(State(e2b): State<E2b>, Id(id): Id) -> ApiResult<StatusCode> {
    e2b.plane.destroy(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn set_timeout(
    State(e2b): State<E2b>,
    Id(id): Id,
    Body(asked): Body<TimeoutBody>,
) -> ApiResult<StatusCode> {
    let timeout =
        asked.timeout.ok_or_else(|| ApiError::bad_request("`timeout` must be a number of seconds"))?;
    living(&id, e2b.plane.set_timeout(&id, seconds(timeout)).await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Keeps a sandbox alive for so long, if it would not live longer anyway.
pub(super) async fn refresh(
    State(e2b): State<E2b>,
    Id(id): Id,
    Body(asked): Body<TimeoutBody>,
) -> ApiResult<StatusCode> {
    let timeout = seconds(asked.duration.unwrap_or(REFRESH_S));
    living(&id, e2b.plane.extend_timeout(&id, timeout).await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A sandbox that ends or has failed is, for E2B, none any more.
fn living(id: &SandboxId, outcome: Result<Sandbox, LifecycleError>) -> ApiResult<Sandbox> {
    outcome.map_err(|error| match error {
        LifecycleError::NotRunning { .. } => ApiError::no_sandbox(id.as_str()),
        error => error.into(),
    })
}
