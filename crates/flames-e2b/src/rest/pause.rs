//! Rest and come back: pause, resume, connect.

use super::create::{seconds, view};
use super::extract::{Body, Id};
use super::model::{ConnectBody, PauseBody, SandboxView};
use crate::E2b;
use crate::error::{ApiError, ApiResult};
use crate::wake::{Awake, wake};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use flames_core::SandboxId;
use flames_core::sandbox::pause::PauseMode;
use flames_core::sandbox::state::State as Sleeps;
use flames_node::Contents;

/// Taken when a connect names no timeout.
const CONNECT_TIMEOUT_S: i64 = 300;
/// Taken when a resume of the first generation names none.
const RESUME_TIMEOUT_S: i64 = 15;

type Connected = (StatusCode, Json<SandboxView>);

/// To disk, with its memory or without. 409 if it rests already.
pub(super) async fn pause(
    State(e2b): State<E2b>,
    Id(id): Id,
    Body(asked): Body<PauseBody>,
) -> ApiResult<StatusCode> {
    let mode = match asked.memory {
        Some(false) => PauseMode::DiskOnly,
        _ => PauseMode::Disk,
    };
    if asked.require_healthy_guest == Some(true) {
        let guest = e2b.plane.guest_unnoticed(&id).await?;
        guest
            .health()
            .await
            .map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.message()))?;
    }
    e2b.plane.pause(&id, mode).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Only of one that rests.
pub(super) async fn resume(
    State(e2b): State<E2b>,
    Id(id): Id,
    Body(asked): Body<ConnectBody>,
) -> ApiResult<Connected> {
    can_boot(&e2b, &id, asked.memory).await?;
    let timeout = seconds(asked.timeout.unwrap_or(RESUME_TIMEOUT_S));
    let resumed = e2b.plane.resume(&id, Some(timeout)).await?;
    Ok((StatusCode::CREATED, Json(view(&e2b, &resumed.sandbox))))
}

/// Brings one back that rests; extends one that runs, and never shortens it.
pub(super) async fn connect(
    State(e2b): State<E2b>,
    Id(id): Id,
    Body(asked): Body<ConnectBody>,
) -> ApiResult<Connected> {
    can_boot(&e2b, &id, asked.memory).await?;
    let timeout = seconds(asked.timeout.unwrap_or(CONNECT_TIMEOUT_S));
    match wake(&e2b.plane, &id, timeout).await? {
        Awake::Resumed(sandbox) => Ok((StatusCode::CREATED, Json(view(&e2b, &sandbox)))),
        Awake::Already(_) => {
            let sandbox = e2b.plane.extend_timeout(&id, timeout).await?;
            Ok((StatusCode::OK, Json(view(&e2b, &sandbox))))
        }
    }
}

/// `memory: false` asks for a boot. One whose disk alone was kept boots anyway, and to one that runs it says nothing.
async fn can_boot(e2b: &E2b, id: &SandboxId, memory: Option<bool>) -> ApiResult<()> {
    if memory != Some(false) {
        return Ok(());
    }
    let sandbox = e2b.plane.get(id).await?;
    match (sandbox.state, sandbox.keeps()) {
        (Sleeps::Paused, _) | (Sleeps::Pausing | Sleeps::Snapshotted, Contents::MemoryAndDisk) => {
            Err(ApiError::unsupported("`memory: false` of a sandbox that was paused with its memory is"))
        }
        _ => Ok(()),
    }
}
