//! API keys. Only from this machine: a key that leaked must not make others.

use crate::Api;
use crate::auth::{Trust, require_local};
use crate::extract::{Json, Path};
use crate::model::{CreateKeyRequest, CreatedKey, KeyView};
use crate::problem::Problem;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(revoke))
}

/// Make an API key. This is the only time it can be seen.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", request_body = CreateKeyRequest,
    responses((status = 201, body = CreatedKey), (status = 403, body = Problem)),
)]
async fn create(
    State(api): State<Api>,
    Extension(trust): Extension<Trust>,
    Json(request): Json<CreateKeyRequest>,
) -> Result<(StatusCode, axum::Json<CreatedKey>), Problem> {
    require_local(trust)?;
    let (key, info) = api.keys.create(&request.name).await?;
    Ok((StatusCode::CREATED, axum::Json(CreatedKey { id: info.id, key: key.expose().to_owned() })))
}

/// All API keys, without the keys themselves.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys",
    responses((status = 200, body = Vec<KeyView>), (status = 403, body = Problem)),
)]
async fn list(
    State(api): State<Api>,
    Extension(trust): Extension<Trust>,
) -> Result<axum::Json<Vec<KeyView>>, Problem> {
    require_local(trust)?;
    let keys = api.keys.list().await?.into_iter();
    Ok(axum::Json(
        keys.map(|key| KeyView { id: key.id, name: key.name, created_at: key.created_at }).collect(),
    ))
}

/// Make an API key useless at once.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", tag = "keys", params(("id" = String, Path)),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem)),
)]
async fn revoke(
    State(api): State<Api>,
    Extension(trust): Extension<Trust>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    require_local(trust)?;
    api.keys.revoke(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
