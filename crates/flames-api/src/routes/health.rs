//! What is open to everybody: is it alive, is it ready, what does it understand.

use crate::Api;
use crate::problem::Problem;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::IntoResponse;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(alive)).routes(routes!(ready))
}

/// The daemon answers.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 204)))]
async fn alive() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// The daemon can serve: its state store answers.
#[utoipa::path(
    get, path = "/readyz", tag = "health", security(()),
    responses((status = 204), (status = 503, body = Problem)),
)]
async fn ready(State(api): State<Api>) -> Result<StatusCode, Problem> {
    api.keys.list().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn openapi(document: Arc<str>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string())
}

pub(crate) async fn unknown_path(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown_path", format!("nothing is at {}", uri.path()))
        .mend("GET /openapi.json lists what there is")
}

pub(crate) async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", detail)
        .mend("GET /openapi.json lists what there is")
}
