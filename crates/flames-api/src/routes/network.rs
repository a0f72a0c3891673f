//! What sandboxes may reach.

use crate::Api;
use crate::extract::{Json, Path};
use crate::model::NetworkView;
use crate::problem::Problem;
use axum::extract::State;
use flames_core::SandboxId;
use flames_core::sandbox::network::NetworkState;
use flames_egress::{EgressPolicy, PolicySpec};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get, set))
}

/// What a sandbox may reach, what it sent and received, and what was dropped.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/network", tag = "network", params(("id" = String, Path)),
    responses((status = 200, body = NetworkView), (status = 404, body = Problem)),
)]
async fn get(State(api): State<Api>, Path(id): Path<String>) -> Result<axum::Json<NetworkView>, Problem> {
    Ok(axum::Json(api.plane.network(&SandboxId::parse(&id)?).await?.into()))
}

/// Replace what a sandbox may reach, as a whole and at once. Connections that stay allowed are not touched, all others
/// are cut.
#[utoipa::path(
    put, path = "/v1/sandboxes/{id}/network", tag = "network", params(("id" = String, Path)),
    request_body = PolicySpec,
    responses(
        (status = 200, description = "it holds", body = NetworkView),
        (status = 400, description = "a rule is wrong; the detail names each", body = Problem),
        (status = 404, body = Problem),
        (status = 409, description = "the sandbox is neither running nor paused", body = Problem),
        (status = 501, description = "the daemon runs without root", body = Problem),
    ),
)]
async fn set(
    State(api): State<Api>,
    Path(id): Path<String>,
    Json(spec): Json<PolicySpec>,
) -> Result<axum::Json<NetworkView>, Problem> {
    let id = SandboxId::parse(&id)?;
    api.plane.set_network(&id, EgressPolicy::new(&spec)?).await?;
    Ok(axum::Json(api.plane.network(&id).await?.into()))
}

impl From<NetworkState> for NetworkView {
    fn from(state: NetworkState) -> Self {
        Self { policy: state.policy.into(), traffic: state.traffic }
    }
}
