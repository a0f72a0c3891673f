//! Ports of sandboxes that the world may reach.

use crate::Api;
use crate::extract::Path;
use crate::model::ExposedPort;
use crate::problem::Problem;
use axum::extract::State;
use axum::http::StatusCode;
use flames_core::SandboxId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(expose, unexpose))
}

/// Let the world reach a port of a sandbox. Exposing it again changes nothing.
#[utoipa::path(
    put, path = "/v1/sandboxes/{id}/ports/{port}", tag = "ports",
    params(("id" = String, Path), ("port" = u16, Path)),
    responses(
        (status = 200, body = ExposedPort), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, description = "the sandbox does not run", body = Problem),
    ),
)]
async fn expose(
    State(api): State<Api>,
    Path((id, port)): Path<(String, u16)>,
) -> Result<axum::Json<ExposedPort>, Problem> {
    let url = api.plane.expose(&SandboxId::parse(&id)?, port).await?;
    Ok(axum::Json(ExposedPort { port, url: url.into() }))
}

/// Take a port back. One that is not exposed is fine.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/ports/{port}", tag = "ports",
    params(("id" = String, Path), ("port" = u16, Path)),
    responses((status = 204), (status = 404, body = Problem)),
)]
async fn unexpose(
    State(api): State<Api>,
    Path((id, port)): Path<(String, u16)>,
) -> Result<StatusCode, Problem> {
    api.plane.unexpose(&SandboxId::parse(&id)?, port).await?;
    Ok(StatusCode::NO_CONTENT)
}
