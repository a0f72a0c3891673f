//! One sandbox: connect, look, end, and when it ends.

use super::create::seconds;
use super::extract::{Body, Id};
use super::model::{Lifecycle, ListedSandbox, SandboxDetail, TimeoutBody};
use crate::E2b;
use crate::error::{ApiError, ApiResult};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use flames_core::SandboxId;
use flames_core::sandbox::error::LifecycleError;
use flames_core::sandbox::record::Sandbox;

/// Taken when a refresh names no duration.
const REFRESH_S: i64 = 300;

pub(super) async fn info(State(e2b): State<E2b>, Id(id): Id) -> ApiResult<Json<SandboxDetail>> {
    let sandbox = e2b.plane.get(&id).await?;
    let listed = ListedSandbox::of(&sandbox).ok_or_else(|| ApiError::no_sandbox(id.as_str()))?;
    let envd_access_token = e2b.plane.access_token(&id).expose().to_owned();
    let pause_mode = (listed.state == "paused").then_some("full");
    let lifecycle = Lifecycle::of(&sandbox);
    Ok(Json(SandboxDetail { listed, envd_access_token, domain: e2b.domain, lifecycle, pause_mode }))
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

/// Sandboxes have no way out of their host, so the rules for it are accepted as long as they allow nothing.
pub(super) async fn set_network(
    State(e2b): State<E2b>,
    Id(id): Id,
    Body(rules): Body<serde_json::Map<String, serde_json::Value>>,
) -> ApiResult<StatusCode> {
    e2b.plane.get(&id).await?;
    let allows = |name: &str| match rules.get(name) {
        None | Some(serde_json::Value::Null | serde_json::Value::Bool(false)) => false,
        Some(serde_json::Value::Array(list)) => !list.is_empty(),
        Some(serde_json::Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    };
    match ["allowOut", "rules", "egressProxy", "allow_internet_access"].into_iter().find(|name| allows(name))
    {
        Some(name) => Err(ApiError::unsupported(&format!("`{name}`: access to networks is"))),
        None => Ok(StatusCode::NO_CONTENT),
    }
}

/// A sandbox that ends or has failed is, for E2B, none any more.
fn living(id: &SandboxId, outcome: Result<Sandbox, LifecycleError>) -> ApiResult<Sandbox> {
    outcome.map_err(|error| match error {
        LifecycleError::NotRunning { .. } => ApiError::no_sandbox(id.as_str()),
        error => error.into(),
    })
}
