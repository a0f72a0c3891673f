//! Tags: names of one build of a template, which keep it when the template is built anew.
//!
//! To Flames a tag is a template whose name has the tag in it. The tag `default` is the template's own name.

use super::create::{DEFAULT_TAG, is_default, template};
use super::extract::Body;
use super::templates::{build_id, find, find_with_tags, made_at};
use crate::E2b;
use crate::error::{ApiError, ApiResult};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use flames_node::TemplateName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// More in one call are refused.
const MAX_TAGS: usize = 64;

#[derive(Debug, Deserialize)]
pub(super) struct Assign {
    target: String,
    tags: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Assigned {
    tags: Vec<String>,
    #[serde(rename = "buildID")]
    build_id: String,
}

/// Gives the build of `target` these tags; one that another build had moves.
pub(super) async fn assign(
    State(e2b): State<E2b>,
    Body(asked): Body<Assign>,
) -> ApiResult<(StatusCode, Json<Assigned>)> {
    let target = find(&e2b, &asked.target).await?;
    for name in names(&target.name, &asked.tags)? {
        if name != target.name {
            e2b.plane.tag_template(&target.name, name).await?;
        }
    }
    Ok((StatusCode::CREATED, Json(Assigned { tags: asked.tags, build_id: build_id(&target) })))
}

#[derive(Debug, Deserialize)]
pub(super) struct Remove {
    name: String,
    tags: Vec<String>,
}

/// Takes tags away: all of them, or none when one is not there or is needed.
pub(super) async fn remove(State(e2b): State<E2b>, Body(asked): Body<Remove>) -> ApiResult<StatusCode> {
    let bare = template(&asked.name)?.bare();
    let names = names(&bare, &asked.tags)?;
    if names.contains(&bare) {
        let message = format!("the tag `{DEFAULT_TAG}` is the template itself: delete the template");
        return Err(ApiError::bad_request(message));
    }
    let there = e2b.plane.node().templates().await?;
    if let Some(missing) = names.iter().find(|name| there.iter().all(|template| template.name != **name)) {
        return Err(ApiError::no_template(missing.as_str()));
    }
    e2b.plane.remove_templates(&names).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Serialize)]
pub(super) struct Tag {
    tag: String,
    #[serde(rename = "buildID")]
    build_id: String,
    #[serde(rename = "createdAt")]
    created_at: Timestamp,
}

pub(super) async fn list(State(e2b): State<E2b>, Path(name): Path<String>) -> ApiResult<Json<Vec<Tag>>> {
    let builds = find_with_tags(&e2b, &name).await?;
    let tag = |build: &flames_node::Template| Tag {
        tag: build.name.tag().unwrap_or(DEFAULT_TAG).to_owned(),
        build_id: build_id(build),
        created_at: made_at(build),
    };
    Ok(Json(builds.iter().map(tag).collect()))
}

/// What tags are called as templates.
fn names(of: &TemplateName, tags: &[String]) -> ApiResult<Vec<TemplateName>> {
    if tags.is_empty() || tags.len() > MAX_TAGS {
        return Err(ApiError::bad_request(format!("`tags` must be 1 to {MAX_TAGS} tags")));
    }
    let name = |tag: &String| if is_default(tag) { Ok(of.bare()) } else { Ok(of.tagged(tag)?) };
    tags.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_names_and_the_default_is_the_template() {
        let app = TemplateName::parse("app:v1").unwrap();
        let named = |tags: &[&str]| {
            let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
            names(&app, &tags).map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(named(&["stable", "default", "latest"]).unwrap(), ["app:stable", "app", "app"]);
        for bad in [&[][..], &[""], &["a b"], &["a:b"], &["../x"], &["x"; MAX_TAGS + 1]] {
            assert_eq!(named(bad).unwrap_err().code, 400, "{bad:?}");
        }
    }
}
