//! The host.

use crate::Api;
use crate::model::NodeView;
use crate::problem::Problem;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(node))
}

/// What the host has, and whether anything leaked.
#[utoipa::path(get, path = "/v1/node", tag = "node", responses((status = 200, body = NodeView)))]
async fn node(State(api): State<Api>) -> Result<axum::Json<NodeView>, Problem> {
    let node = api.plane.node();
    Ok(axum::Json(NodeView { capacity: node.capacity().await, resources: node.leaks().await? }))
}
