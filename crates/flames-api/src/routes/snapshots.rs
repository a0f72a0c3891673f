//! Pause, resume, snapshot and fork.

use crate::Api;
use crate::extract::{Json, Path};
use crate::model::{
    ForkRequest, ForkedView, PauseRequest, PausedView, ResumeRequest, ResumedView, SnapshotList,
    SnapshotRequest, SnapshotView,
};
use crate::problem::Problem;
use crate::routes::sandboxes::timeout;
use axum::extract::State;
use axum::http::StatusCode;
use flames_core::SandboxId;
use flames_core::sandbox::fork::Fork;
use flames_core::snapshot::record::SnapshotName;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(fork))
        .routes(routes!(take))
        .routes(routes!(list))
        .routes(routes!(get, remove))
}

/// Pause a running sandbox, to disk or in memory.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/pause", tag = "snapshots", params(("id" = String, Path)),
    request_body = PauseRequest,
    responses(
        (status = 200, description = "it rests", body = PausedView),
        (status = 404, body = Problem),
        (status = 409, description = "it is not running, or somebody else pauses or ends it", body = Problem),
        (status = 501, description = "this host's VMM driver cannot", body = Problem),
        (status = 503, description = "the host cannot now, for example for lack of disk space; it runs on", body = Problem),
    ),
)]
async fn pause(
    State(api): State<Api>,
    Path(id): Path<String>,
    Json(request): Json<PauseRequest>,
) -> Result<axum::Json<PausedView>, Problem> {
    let paused = api.plane.pause(&SandboxId::parse(&id)?, request.mode.into()).await?;
    Ok(axum::Json(paused.into()))
}

/// Bring a paused sandbox back: the same id, token, memory, processes and files.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/resume", tag = "snapshots", params(("id" = String, Path)),
    request_body = ResumeRequest,
    responses(
        (status = 200, description = "it runs", body = ResumedView),
        (status = 404, body = Problem),
        (status = 409, description = "it is not paused, somebody else resumes it, or its snapshot is refused", body = Problem),
        (status = 503, description = "the host cannot now; it rests on", body = Problem),
    ),
)]
async fn resume(
    State(api): State<Api>,
    Path(id): Path<String>,
    Json(request): Json<ResumeRequest>,
) -> Result<axum::Json<ResumedView>, Problem> {
    let resumed = api.plane.resume(&SandboxId::parse(&id)?, request.timeout_s.map(timeout)).await?;
    Ok(axum::Json(resumed.into()))
}

/// Make clones of a running sandbox, all or none. The source goes on.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/fork", tag = "snapshots", params(("id" = String, Path)),
    request_body = ForkRequest,
    responses(
        (status = 201, description = "all run", body = ForkedView),
        (status = 400, description = "not 1 to 20", body = Problem),
        (status = 404, body = Problem),
        (status = 409, description = "it is not running", body = Problem),
        (status = 501, description = "this host's VMM driver cannot", body = Problem),
        (status = 503, description = "the host cannot start all of them now; none is left", body = Problem),
    ),
)]
async fn fork(
    State(api): State<Api>,
    Path(id): Path<String>,
    Json(request): Json<ForkRequest>,
) -> Result<(StatusCode, axum::Json<ForkedView>), Problem> {
    let fork = Fork { count: request.count, timeout: request.timeout_s.map(timeout) };
    let forked = api.plane.fork(&SandboxId::parse(&id)?, fork).await?;
    Ok((StatusCode::CREATED, axum::Json(forked.into())))
}

/// Take a snapshot of a running sandbox, which goes on.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/snapshots", tag = "snapshots", params(("id" = String, Path)),
    request_body = SnapshotRequest,
    responses(
        (status = 201, description = "it can be created from", body = SnapshotView),
        (status = 400, body = Problem),
        (status = 404, body = Problem),
        (status = 409, description = "it is not running, or the name is taken", body = Problem),
        (status = 501, description = "this host's VMM driver cannot", body = Problem),
        (status = 503, description = "the host cannot now; nothing is left of the snapshot", body = Problem),
    ),
)]
async fn take(
    State(api): State<Api>,
    Path(id): Path<String>,
    Json(request): Json<SnapshotRequest>,
) -> Result<(StatusCode, axum::Json<SnapshotView>), Problem> {
    let name = request.name.as_deref().map(SnapshotName::parse).transpose()?;
    let snapshot = api.plane.snapshot(&SandboxId::parse(&id)?, name, request.contents.into()).await?;
    Ok((StatusCode::CREATED, axum::Json(snapshot.into())))
}

/// All snapshots, newest first.
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", responses((status = 200, body = SnapshotList)))]
async fn list(State(api): State<Api>) -> Result<axum::Json<SnapshotList>, Problem> {
    let snapshots = api.plane.snapshots().await?;
    Ok(axum::Json(SnapshotList { snapshots: snapshots.into_iter().map(SnapshotView::from).collect() }))
}

/// One snapshot, by its id or its name.
#[utoipa::path(
    get, path = "/v1/snapshots/{id}", tag = "snapshots", params(("id" = String, Path)),
    responses((status = 200, body = SnapshotView), (status = 404, body = Problem)),
)]
async fn get(State(api): State<Api>, Path(id): Path<String>) -> Result<axum::Json<SnapshotView>, Problem> {
    Ok(axum::Json(api.plane.get_snapshot(&id).await?.into()))
}

/// Remove a snapshot, by its id or its name. Sandboxes that came from it go on.
#[utoipa::path(
    delete, path = "/v1/snapshots/{id}", tag = "snapshots", params(("id" = String, Path)),
    responses(
        (status = 204),
        (status = 404, body = Problem),
        (status = 409, description = "it is being taken, or created from right now", body = Problem),
    ),
)]
async fn remove(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    api.plane.remove_snapshot(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
