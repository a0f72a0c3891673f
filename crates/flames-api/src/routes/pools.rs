//! Warm pools: VMs that are ready before anyone asks.

use crate::Api;
use crate::extract::{Json, Path};
use crate::model::PoolList;
use crate::problem::Problem;
use axum::extract::State;
use axum::http::StatusCode;
use flames_node::{PoolConfig, PoolStatus, TemplateName};
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, set, remove))
}

/// All pools, and how they do.
#[utoipa::path(get, path = "/v1/pools", tag = "pools", responses((status = 200, body = PoolList)))]
async fn list(State(api): State<Api>) -> axum::Json<PoolList> {
    axum::Json(PoolList { pools: api.plane.pools().await })
}

/// The pool of a template.
#[utoipa::path(
    get, path = "/v1/pools/{template}", tag = "pools", params(("template" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Problem)),
)]
async fn get(
    State(api): State<Api>,
    Path(template): Path<String>,
) -> Result<axum::Json<PoolStatus>, Problem> {
    Ok(axum::Json(api.plane.pool(&TemplateName::parse(template)?).await?))
}

/// Keep a pool of a template: a `preset` (`minimal`, `standard`, `aggressive`, `ultra-fast`), and what differs from it.
#[utoipa::path(
    put, path = "/v1/pools/{template}", tag = "pools", params(("template" = String, Path)), request_body = Object,
    responses(
        (status = 200, description = "kept from now on; it fills in the background", body = Object),
        (status = 400, description = "every mistake in it", body = Problem),
        (status = 404, description = "unknown template", body = Problem),
        (status = 501, description = "this host's VMM driver takes no snapshots", body = Problem),
    ),
)]
async fn set(
    State(api): State<Api>,
    Path(template): Path<String>,
    Json(written): Json<Map<String, Value>>,
) -> Result<axum::Json<PoolConfig>, Problem> {
    Ok(axum::Json(api.plane.set_pool(&TemplateName::parse(template)?, &written).await?))
}

/// Empty a pool and keep none of this template. Sandboxes go on.
#[utoipa::path(
    delete, path = "/v1/pools/{template}", tag = "pools", params(("template" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)),
)]
async fn remove(State(api): State<Api>, Path(template): Path<String>) -> Result<StatusCode, Problem> {
    api.plane.remove_pool(&TemplateName::parse(template)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
