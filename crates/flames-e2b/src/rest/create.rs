//! Create, in both of its generations.

use super::Caller;
use super::extract::Body;
use super::model::{AutoResume, CLIENT_ID, ENVD_VERSION, NewSandbox, SandboxView};
use super::network;
use super::snapshots::bare;
use crate::error::{ApiError, ApiResult};
use crate::{E2b, Internet};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use flames_core::sandbox::admit::{CreateSandbox, Timeout};
use flames_core::sandbox::error::SnapshotError;
use flames_core::sandbox::identity::environment;
use flames_core::sandbox::record::{Entrance, OnRequest, OnTimeout, Sandbox, Traffic};
use flames_core::{IdempotencyKey, SandboxId};
use flames_node::TemplateName;
use std::time::Duration;

/// Taken when a create of the first generation names no timeout.
const FIRST_TIMEOUT_S: i64 = 15;
/// The same for the second generation.
const TIMEOUT_S: i64 = 300;
/// The tag of what a template is without one.
pub(super) const DEFAULT_TAG: &str = "default";

type Created = (StatusCode, Json<SandboxView>);

pub(super) async fn create_v1(
    State(e2b): State<E2b>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Body(asked): Body<NewSandbox>,
) -> ApiResult<Created> {
    create(&e2b, &caller, &headers, asked, FIRST_TIMEOUT_S).await
}

pub(super) async fn create_v2(
    State(e2b): State<E2b>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Body(asked): Body<NewSandbox>,
) -> ApiResult<Created> {
    create(&e2b, &caller, &headers, asked, TIMEOUT_S).await
}

async fn create(
    e2b: &E2b,
    caller: &Caller,
    headers: &HeaderMap,
    asked: NewSandbox,
    default_timeout_s: i64,
) -> ApiResult<Created> {
    let request = resolve(e2b, to_core(asked, default_timeout_s, e2b.internet)?).await?;
    let sandbox = match idempotency_key(caller, headers)? {
        Some(key) => e2b.plane.create_once(request, key).await?,
        None => e2b.plane.create(request).await?,
    };
    Ok((StatusCode::CREATED, Json(view(e2b, &sandbox))))
}

/// A sandbox as the clients take it up.
pub(super) fn view(e2b: &E2b, sandbox: &Sandbox) -> SandboxView {
    SandboxView {
        template_id: sandbox.template.to_string(),
        sandbox_id: sandbox.id.to_string(),
        client_id: CLIENT_ID,
        alias: sandbox.template.to_string(),
        envd_version: ENVD_VERSION,
        envd_access_token: e2b.plane.access_token(&sandbox.id).expose().to_owned(),
        traffic_access_token: (sandbox.entrance.traffic == Traffic::WithToken)
            .then(|| e2b.plane.traffic_token(&sandbox.id).expose().to_owned()),
        domain: e2b.domain.clone(),
    }
}

/// The client's name for this request, kept apart from other clients' names.
fn idempotency_key(caller: &Caller, headers: &HeaderMap) -> ApiResult<Option<IdempotencyKey>> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    Ok(Some(IdempotencyKey::parse(&caller.0, key.to_str().unwrap_or_default())?))
}

/// A create, for the control plane. Whoever looks at its template must decide whether it is a snapshot's name.
fn to_core(asked: NewSandbox, default_timeout_s: i64, internet: Internet) -> ApiResult<CreateSandbox> {
    refuse_what_is_missing(&asked)?;
    let network = asked.network.unwrap_or_default();
    let egress = network::policy(&network, asked.allow_internet_access, internet)?;
    Ok(CreateSandbox {
        network: Some(egress),
        template: asked.template_id,
        metadata: asked.metadata.unwrap_or_default(),
        env: asked.env_vars.unwrap_or_default(),
        timeout: Some(seconds(asked.timeout.unwrap_or(default_timeout_s))),
        on_timeout: match asked.auto_pause {
            Some(true) if asked.auto_pause_memory == Some(false) => OnTimeout::PauseDiskOnly,
            Some(true) => OnTimeout::Pause,
            _ => OnTimeout::Kill,
        },
        entrance: Entrance {
            on_request: match asked.auto_resume {
                Some(AutoResume { enabled: true }) => OnRequest::Resume,
                _ => OnRequest::Refuse,
            },
            traffic: match network.allow_public_traffic {
                Some(false) => Traffic::WithToken,
                _ => Traffic::Open,
            },
            host_mask: network.mask_request_host,
        },
        ..CreateSandbox::default()
    })
}

/// Says whether a create names a template or a snapshot.
async fn resolve(e2b: &E2b, mut request: CreateSandbox) -> ApiResult<CreateSandbox> {
    let text = std::mem::take(&mut request.template);
    if text.is_empty() {
        return Err(ApiError::bad_request("`templateID` must name a template"));
    }
    match snapshot_called(e2b, &text).await? {
        Some(snapshot) => tell_clone(&mut request, snapshot),
        None => request.template = template(&text)?.to_string(),
    }
    Ok(request)
}

/// The snapshot's own name if there is a snapshot of this name; what has a tag is none.
async fn snapshot_called<'a>(e2b: &E2b, text: &'a str) -> ApiResult<Option<&'a str>> {
    let Ok(name) = bare(text) else { return Ok(None) };
    match e2b.plane.get_snapshot(name).await {
        Ok(_) => Ok(Some(name)),
        Err(SnapshotError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A clone of a snapshot is told who it is; what else the snapshot's environment holds is replaced by the request's.
fn tell_clone(request: &mut CreateSandbox, snapshot: &str) {
    let id = SandboxId::random();
    for (name, value) in environment(&id, snapshot) {
        request.env.entry(name).or_insert(value);
    }
    request.id = Some(id);
    request.from_snapshot = Some(snapshot.to_owned());
}

/// Says no to what would silently not be done.
fn refuse_what_is_missing(asked: &NewSandbox) -> ApiResult<()> {
    let resumes = asked.auto_resume.is_some_and(|AutoResume { enabled }| enabled);
    let keeps_disk_alone = asked.auto_pause_memory == Some(false);
    if keeps_disk_alone && (asked.auto_pause != Some(true) || resumes) {
        return Err(ApiError::bad_request("autoPauseMemory: false needs autoPause and excludes autoResume"));
    }
    let network = asked.network.clone().unwrap_or_default();
    let missing = [
        (asked.mcp.is_some(), "mcp is"),
        (asked.iam.is_some(), "iam is"),
        (asked.volume_mounts.as_ref().is_some_and(|mounts| !mounts.is_empty()), "volumeMounts are"),
    ];
    match missing.into_iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(ApiError::unsupported(what)),
        None => network::refuse_what_is_missing(&network),
    }
}

/// A template by name: `name`, `name:tag` or `namespace/name:tag`, of which there is one namespace.
pub(super) fn template(text: &str) -> ApiResult<TemplateName> {
    if text.is_empty() {
        return Err(ApiError::bad_request("`templateID` must name a template"));
    }
    let name = text.rsplit_once('/').map_or(text, |(_, name)| name);
    let name = TemplateName::parse(name).map_err(|_| ApiError::no_template(text))?;
    Ok(if name.tag().is_some_and(is_default) { name.bare() } else { name })
}

/// Whether a tag names what a template is without one.
pub(super) fn is_default(tag: &str) -> bool {
    matches!(tag, DEFAULT_TAG | "latest")
}

/// A timeout; less than none is none.
pub(super) fn seconds(seconds: i64) -> Timeout {
    Timeout::After(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_named_with_or_without_namespace_and_tag() {
        for text in ["base", "base:default", "me/base", "me/base:latest"] {
            assert_eq!(template(text).unwrap().as_str(), "base", "{text}");
        }
        assert_eq!(template("me/base:v2").unwrap().as_str(), "base:v2");
        for (text, code) in
            [("", 400), ("Base", 404), ("base:", 404), ("base:V2", 404), ("../base/", 404), ("a b", 404)]
        {
            assert_eq!(template(text).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn what_is_not_done_is_refused_and_not_ignored() {
        let refused = |body: &str| {
            let asked: NewSandbox = serde_json::from_str(body).unwrap();
            refuse_what_is_missing(&asked).unwrap_err().code
        };
        assert_eq!(refused(r#"{"autoPauseMemory":false}"#), 400);
        assert_eq!(
            refused(r#"{"autoPauseMemory":false,"autoPause":true,"autoResume":{"enabled":true}}"#),
            400
        );
        assert_eq!(refused(r#"{"network":{"egressProxy":{"address":"a:1"}}}"#), 501);
        assert_eq!(refused(r#"{"mcp":{}}"#), 501);
        assert_eq!(refused(r#"{"volumeMounts":[{}]}"#), 501);
    }

    #[test]
    fn defaults_of_the_guest_can_be_overridden_and_no_timeout_is_negative() {
        let body = r#"{"templateID":"base","envVars":{"E2B_SANDBOX":"mine"},"timeout":-3}"#;
        let request = to_core(serde_json::from_str(body).unwrap(), TIMEOUT_S, Internet::Given).unwrap();
        assert_eq!(request.env["E2B_SANDBOX"], "mine");
        assert_eq!(request.timeout, Some(Timeout::After(Duration::ZERO)));
    }
}
