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
use flames_core::sandbox::pause::PauseMode;

/// Taken when a connect names no timeout.
const CONNECT_TIMEOUT_S: i64 = 300;
/// Taken when a resume of the first generation names none.
const RESUME_TIMEOUT_S: i64 = 15;

type Connected = (StatusCode, Json<SandboxView>);

/// To disk, memory and all. 409 if it rests already.
pub(super) async fn pause(
    State(e2b): State<E2b>,
    Id(id): Id,
    Body(asked): Body<PauseBody>,
) -> ApiResult<StatusCode> {
    with_memory(asked.memory)?;
    e2b.plane.pause(&id, PauseMode::Disk).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Only of one that rests.
pub(super) async fn resume(
    State(e2b): State<E2b>,
    Id(id): Id,
    Body(asked): Body<ConnectBody>,
) -> ApiResult<Connected> {
    with_memory(asked.memory)?;
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
    with_memory(asked.memory)?;
    let timeout = seconds(asked.timeout.unwrap_or(CONNECT_TIMEOUT_S));
    match wake(&e2b.plane, &id, timeout).await? {
        Awake::Resumed(sandbox) => Ok((StatusCode::CREATED, Json(view(&e2b, &sandbox)))),
        Awake::Already(_) => {
            let sandbox = e2b.plane.extend_timeout(&id, timeout).await?;
            Ok((StatusCode::OK, Json(view(&e2b, &sandbox))))
        }
    }
}

fn with_memory(memory: Option<bool>) -> ApiResult<()> {
    match memory {
        Some(false) => Err(ApiError::unsupported("`memory: false` is")),
        _ => Ok(()),
    }
}
