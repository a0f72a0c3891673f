//! Sandboxes: make, look at, end.

use crate::Api;
use crate::auth::Caller;
use crate::extract::{Json, Path, Query};
use crate::model::{CreateRequest, SandboxPage, SandboxView, TimeoutRequest};
use crate::problem::Problem;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use flames_core::sandbox::admit::{CreateSandbox, Timeout};
use flames_core::sandbox::query::{Cursor, Filter};
use flames_core::sandbox::record::Entrance;
use flames_core::sandbox::state::State as SandboxState;
use flames_core::{IdempotencyKey, SandboxId};
use flames_egress::EgressPolicy;
use flames_node::BootLevel;
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, delete))
        .routes(routes!(set_timeout))
        .routes(routes!(logs))
}

/// Make a sandbox and wait until it runs.
#[utoipa::path(
    post, path = "/v1/sandboxes", tag = "sandboxes", request_body = CreateRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key gets the first answer, for 24 hours")),
    responses(
        (status = 201, description = "it runs", body = SandboxView),
        (status = 400, description = "a field is wrong", body = Problem),
        (status = 404, description = "unknown template", body = Problem),
        (status = 409, description = "a request with this idempotency key is under way, or the snapshot is unusable", body = Problem),
        (status = 429, description = "too many requests with this API key", body = Problem),
        (status = 503, description = "the host cannot start it now", body = Problem),
    ),
)]
async fn create(
    State(api): State<Api>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    Json(request): Json<CreateRequest>,
) -> Result<impl IntoResponse, Problem> {
    let sandbox = match idempotency_key(caller.as_deref(), &headers)? {
        Some(key) => api.plane.create_once(to_create(request)?, key).await?,
        None => api.plane.create(to_create(request)?).await?,
    };
    let location = HeaderValue::from_str(&format!("/v1/sandboxes/{}", sandbox.id)).ok();
    let headers: HeaderMap = location.map(|location| (header::LOCATION, location)).into_iter().collect();
    Ok((StatusCode::CREATED, headers, axum::Json(SandboxView::from(sandbox))))
}

/// List sandboxes, newest first.
#[utoipa::path(
    get, path = "/v1/sandboxes", tag = "sandboxes", params(ListQuery),
    responses((status = 200, body = SandboxPage), (status = 400, body = Problem)),
)]
async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<SandboxPage>, Problem> {
    let after = query.cursor.as_deref().map(Cursor::decode).transpose()?;
    let filter = query.filter()?;
    let page = api.plane.list(&filter, after.as_ref(), query.limit.unwrap_or(DEFAULT_PAGE)).await?;
    Ok(axum::Json(SandboxPage {
        sandboxes: page.sandboxes.into_iter().map(SandboxView::from).collect(),
        next: page.next.map(|next| next.encode()),
    }))
}

/// One sandbox.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}", tag = "sandboxes", params(("id" = String, Path)),
    responses((status = 200, body = SandboxView), (status = 404, body = Problem)),
)]
async fn get(State(api): State<Api>, Path(id): Path<String>) -> Result<axum::Json<SandboxView>, Problem> {
    Ok(axum::Json(api.plane.get(&SandboxId::parse(&id)?).await?.into()))
}

/// End a sandbox, in whatever state it is.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}", tag = "sandboxes", params(("id" = String, Path)),
    responses((status = 204, description = "nothing is left of it"), (status = 404, body = Problem)),
)]
async fn delete(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    api.plane.destroy(&SandboxId::parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Set when a sandbox ends by itself, counted from now.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/timeout", tag = "sandboxes", params(("id" = String, Path)),
    request_body = TimeoutRequest,
    responses((status = 200, body = SandboxView), (status = 404, body = Problem), (status = 409, body = Problem)),
)]
async fn set_timeout(
    State(api): State<Api>,
    Path(id): Path<String>,
    Json(request): Json<TimeoutRequest>,
) -> Result<axum::Json<SandboxView>, Problem> {
    let sandbox = api.plane.set_timeout(&SandboxId::parse(&id)?, timeout(request.timeout_s)).await?;
    Ok(axum::Json(sandbox.into()))
}

/// The newest bytes of a sandbox's console: its kernel and its agent.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/logs", tag = "sandboxes", params(("id" = String, Path), LogsQuery),
    responses((status = 200, content_type = "text/plain", body = String), (status = 404, body = Problem)),
)]
async fn logs(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<impl IntoResponse, Problem> {
    let limit = query.limit_bytes.unwrap_or(DEFAULT_LOG_BYTES).min(MAX_LOG_BYTES);
    let console = api.plane.console(&SandboxId::parse(&id)?, limit).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], console.text))
}

/// The client's name for this request, kept apart from other clients' names.
fn idempotency_key(caller: Option<&Caller>, headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let scope = caller.map_or("", |Caller(id)| id.as_str());
    Ok(Some(IdempotencyKey::parse(scope, key.to_str().unwrap_or_default())?))
}

const DEFAULT_PAGE: usize = 100;
const DEFAULT_LOG_BYTES: usize = 64 * 1024;
const MAX_LOG_BYTES: usize = 4 * 1024 * 1024;

/// Which sandboxes to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only in one of these states, separated by commas.
    state: Option<String>,
    /// Only of this template.
    template: Option<String>,
    /// Only with all of these labels, as a query string of its own: `a=1&b=2`, encoded.
    metadata: Option<String>,
    /// At most this many, 1 to 1000; default 100.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// How much of a log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogsQuery {
    /// At most this many bytes from the end; default 65,536, at most 4 MiB.
    limit_bytes: Option<usize>,
}

impl ListQuery {
    fn filter(&self) -> Result<Filter, Problem> {
        let states = self.state.iter().flat_map(|states| states.split(',')).map(parse_state);
        let pairs = url::form_urlencoded::parse(self.metadata.as_deref().unwrap_or_default().as_bytes());
        Ok(Filter {
            states: states.collect::<Result<_, _>>()?,
            template: self.template.clone(),
            metadata: pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
            ..Filter::default()
        })
    }
}

fn parse_state(name: &str) -> Result<SandboxState, Problem> {
    SandboxState::parse(name).ok_or_else(|| {
        let known: Vec<_> = SandboxState::ALL.iter().map(|state| state.as_str()).collect();
        Problem::invalid("state", format!("`{name}` is not a state; there are: {}", known.join(", ")))
    })
}

fn to_create(request: CreateRequest) -> Result<CreateSandbox, Problem> {
    let level = request.level.as_deref().map(str::parse::<BootLevel>).transpose();
    Ok(CreateSandbox {
        template: request.template,
        from_snapshot: request.from_snapshot,
        vcpus: request.vcpus,
        memory_mib: request.memory_mib,
        disk_mib: request.disk_mib,
        metadata: request.metadata,
        env: request.env,
        timeout: request.timeout_s.map(timeout),
        on_timeout: request.on_timeout.into(),
        idle_timeout_s: request.idle_timeout_s,
        entrance: Entrance::default(),
        network: request.network.as_ref().map(EgressPolicy::new).transpose()?,
        id: None,
        level: level.map_err(|error| Problem::invalid("level", error.to_string()))?,
        user: request.user,
        workdir: request.workdir,
    })
}

pub(crate) fn timeout(seconds: u64) -> Timeout {
    match seconds {
        0 => Timeout::Never,
        seconds => Timeout::After(Duration::from_secs(seconds)),
    }
}
