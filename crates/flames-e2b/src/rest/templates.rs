//! Templates, as far as they can be looked at, and the one team that there is.

use super::Caller;
use super::create::template;
use super::model::ENVD_VERSION;
use super::snapshots::bare;
use crate::E2b;
use crate::error::{ApiError, ApiResult};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use flames_core::sandbox::error::SnapshotError;
use flames_node::{Template, TemplateOrigin};
use jiff::Timestamp;
use serde::Serialize;

/// Builds have no ids here: each template has one, whose name is of the form that clients expect.
const BUILD_ID: &str = "00000000-0000-0000-0000-000000000000";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TemplateView {
    #[serde(rename = "templateID")]
    template_id: String,
    #[serde(rename = "buildID")]
    build_id: &'static str,
    cpu_count: u8,
    #[serde(rename = "memoryMB")]
    memory_mb: u32,
    #[serde(rename = "diskSizeMB")]
    disk_size_mb: u32,
    public: bool,
    aliases: Vec<String>,
    names: Vec<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    created_by: Option<()>,
    last_spawned_at: Option<Timestamp>,
    spawn_count: u64,
    build_count: u64,
    envd_version: &'static str,
    build_status: &'static str,
    is_default: bool,
    description: String,
}

pub(super) async fn list(State(e2b): State<E2b>) -> ApiResult<Json<Vec<TemplateView>>> {
    let templates = e2b.plane.node().templates().await?;
    Ok(Json(templates.into_iter().map(|template| view(&e2b, template)).collect()))
}

pub(super) async fn get(State(e2b): State<E2b>, Path(name): Path<String>) -> ApiResult<Json<TemplateView>> {
    let template = find(&e2b, &name).await?;
    Ok(Json(view(&e2b, template)))
}

#[derive(Debug, Serialize)]
pub(super) struct Alias {
    #[serde(rename = "templateID")]
    template_id: String,
    public: bool,
}

pub(super) async fn alias(State(e2b): State<E2b>, Path(name): Path<String>) -> ApiResult<Json<Alias>> {
    let template = find(&e2b, &name).await?;
    Ok(Json(Alias { template_id: template.name.to_string(), public: is_public(&template) }))
}

/// A snapshot or a template: to E2B a snapshot is a template.
pub(super) async fn delete(State(e2b): State<E2b>, Path(text): Path<String>) -> ApiResult<StatusCode> {
    let name = bare(&text).map_err(|_| ApiError::no_template(&text))?;
    match e2b.plane.remove_snapshot(name).await {
        Ok(()) => return Ok(StatusCode::NO_CONTENT),
        Err(SnapshotError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let template = find(&e2b, &text).await?;
    e2b.plane.remove_template(&template.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Team {
    #[serde(rename = "teamID")]
    team_id: &'static str,
    name: &'static str,
    api_key: String,
    is_default: bool,
}

/// One team: every key opens the same sandboxes.
pub(super) async fn teams(Extension(Caller(key)): Extension<Caller>) -> Json<Vec<Team>> {
    let team = Team { team_id: BUILD_ID, name: "flames", api_key: format!("key {key}"), is_default: true };
    Json(vec![team])
}

async fn find(e2b: &E2b, text: &str) -> ApiResult<Template> {
    let name = template(text)?;
    let templates = e2b.plane.node().templates().await?;
    templates.into_iter().find(|template| template.name == name).ok_or_else(|| ApiError::no_template(text))
}

fn is_public(template: &Template) -> bool {
    template.origin == TemplateOrigin::BuiltIn
}

fn view(e2b: &E2b, template: Template) -> TemplateView {
    let made = i64::try_from(template.created_unix).unwrap_or_default();
    let made = Timestamp::from_second(made).unwrap_or(Timestamp::UNIX_EPOCH);
    let defaults = e2b.plane.limits().default_resources;
    TemplateView {
        public: is_public(&template),
        is_default: is_public(&template),
        template_id: template.name.to_string(),
        build_id: BUILD_ID,
        cpu_count: defaults.vcpus,
        memory_mb: defaults.memory.0,
        disk_size_mb: defaults.disk.0,
        aliases: vec![template.name.to_string()],
        names: vec![template.name.to_string()],
        created_at: made,
        updated_at: made,
        created_by: None,
        last_spawned_at: None,
        spawn_count: 0,
        build_count: 1,
        envd_version: ENVD_VERSION,
        build_status: "ready",
        description: template.built_from,
    }
}
