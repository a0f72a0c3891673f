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
use flames_node::{Template, TemplateName, TemplateOrigin};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What stands for nobody in particular, in the form that clients expect.
const NIL_ID: &str = "00000000-0000-0000-0000-000000000000";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TemplateView {
    #[serde(rename = "templateID")]
    template_id: String,
    #[serde(rename = "buildID")]
    build_id: String,
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
    build_count: usize,
    envd_version: &'static str,
    build_status: &'static str,
    is_default: bool,
    description: String,
}

pub(super) async fn list(State(e2b): State<E2b>) -> ApiResult<Json<Vec<TemplateView>>> {
    let mut by_name: BTreeMap<TemplateName, Vec<Template>> = BTreeMap::new();
    for template in e2b.plane.node().templates().await? {
        by_name.entry(template.name.bare()).or_default().push(template);
    }
    Ok(Json(by_name.into_values().filter_map(|builds| view(&e2b, &builds)).collect()))
}

pub(super) async fn get(State(e2b): State<E2b>, Path(name): Path<String>) -> ApiResult<Json<TemplateView>> {
    let builds = find_with_tags(&e2b, &name).await?;
    view(&e2b, &builds).map(Json).ok_or_else(|| ApiError::no_template(&name))
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

/// A snapshot, a template with its tags, or one tag: to E2B a snapshot is a template.
pub(super) async fn delete(State(e2b): State<E2b>, Path(text): Path<String>) -> ApiResult<StatusCode> {
    if let Ok(name) = bare(&text) {
        match e2b.plane.remove_snapshot(name).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            Err(SnapshotError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (name, builds) = (template(&text)?, find_with_tags(&e2b, &text).await?);
    let goes = |build: &TemplateName| name.tag().is_none() || *build == name;
    let names: Vec<TemplateName> = builds.into_iter().map(|build| build.name).filter(goes).collect();
    e2b.plane.remove_templates(&names).await?;
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
    let team = Team { team_id: NIL_ID, name: "flames", api_key: format!("key {key}"), is_default: true };
    Json(vec![team])
}

/// The build that a name stands for.
pub(super) async fn find(e2b: &E2b, text: &str) -> ApiResult<Template> {
    let name = template(text)?;
    let mut builds = find_with_tags(e2b, text).await?.into_iter();
    builds.find(|template| template.name == name).ok_or_else(|| ApiError::no_template(text))
}

/// A template, and every tag of it. One of them is what was named.
pub(super) async fn find_with_tags(e2b: &E2b, text: &str) -> ApiResult<Vec<Template>> {
    let name = template(text)?;
    let mut builds = e2b.plane.node().templates().await?;
    builds.retain(|template| template.name.bare() == name.bare());
    let is_there = builds.iter().any(|template| template.name == name);
    is_there.then_some(builds).ok_or_else(|| ApiError::no_template(text))
}

/// A build is its image, so its id is the beginning of the image's hash.
pub(super) fn build_id(template: &Template) -> String {
    let hash = &template.sha256;
    let part = |range: Range<usize>| hash.get(range);
    let id = || Some([part(0..8)?, part(8..12)?, part(12..16)?, part(16..20)?, part(20..32)?].join("-"));
    id().unwrap_or_else(|| NIL_ID.to_owned())
}

pub(super) fn made_at(template: &Template) -> Timestamp {
    let second = i64::try_from(template.created_unix).unwrap_or_default();
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn is_public(template: &Template) -> bool {
    template.origin == TemplateOrigin::BuiltIn
}

/// One template: what its name stands for, or else the first of its tags, tells most of it.
fn view(e2b: &E2b, builds: &[Template]) -> Option<TemplateView> {
    let template = builds.first()?;
    let made = made_at(template);
    let name = template.name.bare().to_string();
    let defaults = e2b.plane.limits().default_resources;
    Some(TemplateView {
        public: is_public(template),
        is_default: is_public(template),
        template_id: name.clone(),
        build_id: build_id(template),
        cpu_count: defaults.vcpus,
        memory_mb: defaults.memory.0,
        disk_size_mb: defaults.disk.0,
        aliases: vec![name],
        names: builds.iter().map(|build| build.name.to_string()).collect(),
        created_at: made,
        updated_at: made,
        created_by: None,
        last_spawned_at: None,
        spawn_count: 0,
        build_count: builds.iter().map(|build| &build.sha256).collect::<BTreeSet<_>>().len(),
        envd_version: ENVD_VERSION,
        build_status: "ready",
        description: template.built_from.clone(),
    })
}
