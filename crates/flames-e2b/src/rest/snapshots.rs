//! Snapshots, and forks.
//!
//! E2B names a snapshot like a template: `<id>:default`, or `flames/<name>:default` if it has a name.

use super::create::{seconds, view};
use super::extract::{Body, Id, Params};
use super::model::SandboxView;
use crate::E2b;
use crate::error::{ApiError, ApiResult};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use flames_core::sandbox::fork::Fork;
use flames_core::snapshot::record::{Snapshot, SnapshotName};
use flames_node::Contents;
use serde::{Deserialize, Serialize};

/// The one namespace of names.
pub(super) const NAMESPACE: &str = "flames";
const TIMEOUT_S: i64 = 300;
const PAGE: usize = 100;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SnapshotBody {
    name: Option<String>,
    memory: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(super) struct SnapshotView {
    #[serde(rename = "snapshotID")]
    snapshot_id: String,
    names: Vec<String>,
}

pub(super) async fn take(
    State(e2b): State<E2b>,
    Id(id): Id,
    Body(asked): Body<SnapshotBody>,
) -> ApiResult<(StatusCode, Json<SnapshotView>)> {
    let contents = match asked.memory {
        Some(false) => Contents::DiskOnly,
        _ => Contents::MemoryAndDisk,
    };
    let name = asked.name.as_deref().map(|name| SnapshotName::parse(bare(name)?).map_err(ApiError::from));
    let snapshot = e2b.plane.snapshot(&id, name.transpose()?, contents).await?;
    Ok((StatusCode::CREATED, Json(SnapshotView::of(&snapshot))))
}

/// Newest first, of one sandbox or of one name if asked for.
pub(super) async fn list(State(e2b): State<E2b>, params: Params) -> ApiResult<Response> {
    let limit = params.parse("limit")?.unwrap_or(PAGE).clamp(1, PAGE);
    let source = params.get("sandboxID").map(|id| id.split('-').next().unwrap_or_default().to_owned());
    let name = params.get("name").map(bare).transpose()?;
    let wanted = |snapshot: &Snapshot| {
        source.as_ref().is_none_or(|source| snapshot.source.as_str() == source)
            && name.is_none_or(|name| snapshot.name.as_ref().is_some_and(|it| it.as_str() == name))
    };
    let all = e2b.plane.snapshots().await?;
    let mut found: Vec<_> = all.iter().filter(|snapshot| wanted(snapshot)).collect();
    if let Some(after) = params.get("nextToken") {
        let seen = found.iter().position(|snapshot| snapshot.id.as_str() == after);
        found.drain(..seen.map_or(found.len(), |seen| seen + 1));
    }
    let next = (found.len() > limit).then(|| found[limit - 1].id.to_string());
    let page: Vec<_> = found.into_iter().take(limit).map(SnapshotView::of).collect();
    let mut response = Json(page).into_response();
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert("x-next-token", next);
    }
    Ok(response)
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ForkBody {
    timeout: Option<i64>,
    count: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct ForkView {
    sandbox: SandboxView,
}

/// All of them or none.
pub(super) async fn fork(
    State(e2b): State<E2b>,
    Id(id): Id,
    Body(asked): Body<ForkBody>,
) -> ApiResult<(StatusCode, Json<Vec<ForkView>>)> {
    let timeout = Some(seconds(asked.timeout.unwrap_or(TIMEOUT_S)));
    let forked = e2b.plane.fork(&id, Fork { count: asked.count.unwrap_or(1), timeout }).await?;
    let forks = forked.forks.iter().map(|fork| ForkView { sandbox: view(&e2b, fork) }).collect();
    Ok((StatusCode::CREATED, Json(forks)))
}

/// `name` of `name`, `name:default` or `flames/name:default`.
pub(super) fn bare(text: &str) -> ApiResult<&str> {
    let name = text.rsplit_once('/').map_or(text, |(_, name)| name);
    match name.split_once(':') {
        None => Ok(name),
        Some((name, "default" | "latest")) => Ok(name),
        Some(_) => Err(ApiError::bad_request(format!("`{text:.80}`: there is one tag, `default`"))),
    }
}

impl SnapshotView {
    fn of(snapshot: &Snapshot) -> Self {
        match &snapshot.name {
            Some(name) => {
                let full = format!("{NAMESPACE}/{name}:default");
                Self { snapshot_id: full.clone(), names: vec![full] }
            }
            None => Self { snapshot_id: format!("{}:default", snapshot.id), names: Vec::new() },
        }
    }
}
