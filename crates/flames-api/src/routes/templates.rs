//! What sandboxes are created from.

use crate::Api;
use crate::auth::{Trust, require_local};
use crate::extract::{Json, Path};
use crate::model::{BuildEvent, BuildRequest, TemplateList, TemplateSettingsView};
use crate::problem::Problem;
use crate::routes::processes::ndjson;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use flames_core::TemplateSettings;
use flames_node::{BootLevel, BuildProgress, BuildTemplate, StartUp, Template, TemplateName, TemplateSource};
use futures::StreamExt;
use tokio::sync::mpsc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, build))
        .routes(routes!(remove))
        .routes(routes!(tag))
        .routes(routes!(settings, set_settings))
}

/// All templates, by name.
#[utoipa::path(get, path = "/v1/templates", tag = "templates", responses((status = 200, body = TemplateList)))]
async fn list(State(api): State<Api>) -> Result<axum::Json<TemplateList>, Problem> {
    Ok(axum::Json(TemplateList { templates: api.plane.node().templates().await? }))
}

/// Build a template from a directory or an archive on the node, and follow it.
#[utoipa::path(
    post, path = "/v1/templates", tag = "templates", request_body = BuildRequest,
    responses(
        (status = 200, description = "one event a line", content_type = "application/x-ndjson", body = BuildEvent),
        (status = 400, body = Problem),
        (status = 403, description = "only over the daemon's unix socket", body = Problem),
    ),
)]
async fn build(
    State(api): State<Api>,
    Extension(trust): Extension<Trust>,
    Json(request): Json<BuildRequest>,
) -> Result<Response, Problem> {
    require_local(trust)?;
    let build = to_build(request)?;
    let (progress, steps) = mpsc::channel(16);
    let plane = api.plane.clone();
    // In a task of its own: a client that goes away neither ends the build nor leaves half of it.
    let built = tokio::spawn(async move { plane.build_template(build, progress).await });
    let steps = futures::stream::unfold(steps, |mut steps| async move { Some((steps.recv().await?, steps)) });
    let end = futures::stream::once(async move {
        match built.await {
            Ok(Ok(template)) => BuildEvent::Done { template: Box::new(template) },
            Ok(Err(error)) => BuildEvent::Error { problem: Box::new(error.into()) },
            Err(error) => BuildEvent::Error { problem: Box::new(build_crashed(&error)) },
        }
    });
    Ok(ndjson(steps.map(progress_event).chain(end)))
}

/// Remove a template that was built here and that no sandbox lives from. Snapshots and what rests in them keep
/// what they need.
#[utoipa::path(
    delete, path = "/v1/templates/{name}", tag = "templates", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)),
)]
async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    api.plane.remove_template(&TemplateName::parse(name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a build a further name, `<template>:<tag>`: it keeps the build when the template is built anew. A tag that was there
/// moves. It is removed like a template.
#[utoipa::path(
    put, path = "/v1/templates/{name}/tags/{tag}", tag = "templates",
    params(("name" = String, Path, description = "the build: a template, or one of its tags"), ("tag" = String, Path)),
    responses(
        (status = 200, body = serde_json::Value), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, description = "came with Flames", body = Problem),
    ),
)]
async fn tag(
    State(api): State<Api>,
    Path((name, tag)): Path<(String, String)>,
) -> Result<axum::Json<Template>, Problem> {
    let target = TemplateName::parse(name)?;
    let tagged = target.tagged(&tag)?;
    Ok(axum::Json(api.plane.tag_template(&target, tagged).await?))
}

/// What creates from a template get when they do not say otherwise.
#[utoipa::path(
    get, path = "/v1/templates/{name}/settings", tag = "templates", params(("name" = String, Path)),
    responses((status = 200, body = TemplateSettingsView), (status = 404, body = Problem)),
)]
async fn settings(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<axum::Json<TemplateSettingsView>, Problem> {
    Ok(axum::Json(view(api.plane.template_settings(&TemplateName::parse(name)?).await?)))
}

/// Say it anew, as a whole: what is left out is the daemon's default again.
#[utoipa::path(
    put, path = "/v1/templates/{name}/settings", tag = "templates", params(("name" = String, Path)),
    request_body = TemplateSettingsView,
    responses(
        (status = 200, body = TemplateSettingsView), (status = 400, body = Problem), (status = 404, body = Problem),
    ),
)]
async fn set_settings(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(asked): Json<TemplateSettingsView>,
) -> Result<axum::Json<TemplateSettingsView>, Problem> {
    let level = asked.level.as_deref().map(str::parse::<BootLevel>).transpose();
    let level = level.map_err(|error| Problem::invalid("level", error.to_string()))?;
    let settings = TemplateSettings { level };
    api.plane.set_template_settings(&TemplateName::parse(name)?, settings).await?;
    Ok(axum::Json(view(settings)))
}

fn view(settings: TemplateSettings) -> TemplateSettingsView {
    TemplateSettingsView { level: settings.level.map(|level| level.name().to_owned()) }
}

fn to_build(request: BuildRequest) -> Result<BuildTemplate, Problem> {
    let from = match (request.directory, request.tar) {
        (Some(directory), None) => TemplateSource::Directory(directory.into()),
        (None, Some(tar)) => TemplateSource::Tar(tar.into()),
        _ => return Err(Problem::invalid("directory", "give either `directory` or `tar`")),
    };
    let start_up = start_up(request.start_command, request.ready_command)?;
    Ok(BuildTemplate { name: TemplateName::parse(request.name)?, from, start_up })
}

fn start_up(command: Option<String>, ready: Option<String>) -> Result<Option<StartUp>, Problem> {
    for (field, text) in [("start_command", &command), ("ready_command", &ready)] {
        if text.as_ref().is_some_and(|text| text.trim().is_empty() || text.contains('\0')) {
            return Err(Problem::invalid(field, "must be a command"));
        }
    }
    match (command, ready) {
        (None, Some(_)) => {
            Err(Problem::invalid("ready_command", "needs a `start_command` that it waits for"))
        }
        (command, ready) => Ok(command.map(|command| StartUp { command, ready })),
    }
}

fn progress_event(progress: BuildProgress) -> BuildEvent {
    BuildEvent::Progress { progress: serde_json::to_value(progress).unwrap_or_default() }
}

fn build_crashed(error: &tokio::task::JoinError) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("the build broke off: {error}"))
}
