//! Who may call.

use crate::Api;
use crate::problem::Problem;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};

/// How a listener's clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// By an API key in `X-API-Key` or as a bearer token.
    ApiKey,
    /// By being able to open the listener's unix socket: its mode lets in the daemon's own user and root.
    SocketOwner,
}

/// Which key a request came with. Absent on the unix socket.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) String);

/// Lets a request pass, or answers 401.
pub(crate) async fn require(
    State((api, trust)): State<(Api, Trust)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if trust == Trust::ApiKey {
        let key = presented(request.headers()).ok_or_else(|| refused("no API key was sent"))?;
        let key = api.keys.verify(key).await?;
        let key = key.ok_or_else(|| refused("this API key does not exist or was revoked"))?;
        api.rate.take(&key.id).await?;
        request.extensions_mut().insert(Caller(key.id));
    }
    request.extensions_mut().insert(trust);
    Ok(next.run(request).await)
}

/// For what only somebody on this host may do, because it reads the host's files.
pub(crate) fn require_local(trust: Trust) -> Result<(), Problem> {
    match trust {
        Trust::SocketOwner => Ok(()),
        Trust::ApiKey => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "local_only",
            "this reads files of the host, which an API key does not allow",
        )
        .mend("run it on the host, over the daemon's unix socket")),
    }
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer = || headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ");
    headers.get("x-api-key").and_then(|value| value.to_str().ok()).or_else(bearer)
}

fn refused(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
        .mend("send the key that `flames up` printed at its first start as `X-API-Key`; `flames key create` makes another")
}

/// Describes the key in the OpenAPI document.
#[derive(Debug)]
pub(crate) struct Scheme;

impl utoipa::Modify for Scheme {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key")));
        components.add_security_scheme("api_key", key);
    }
}
