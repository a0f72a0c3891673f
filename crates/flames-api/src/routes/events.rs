//! What happens to sandboxes, as server-sent events.

use crate::Api;
use crate::extract::Query;
use crate::model::{SandboxEvent, SandboxView};
use crate::problem::Problem;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use flames_core::events::{Change, Since};
use futures::{Stream, StreamExt};
use serde::Deserialize;
use std::convert::Infallible;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Follow what happens to sandboxes. Each event's id is where to go on after a break, without a gap: send it
/// back as `since` or `Last-Event-ID`.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", params(EventsQuery),
    responses(
        (status = 200, description = "one event a change", content_type = "text/event-stream", body = SandboxEvent),
        (status = 404, description = "the history so far back is gone: list again", body = Problem),
    ),
)]
async fn events(
    State(api): State<Api>,
    headers: HeaderMap,
    Query(query): Query<EventsQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let since = query.since.or(last).map_or(Since::Now, Since::Revision);
    let changes = api.plane.changes(since).await?;
    let events = changes.map(|change| {
        Ok(match change {
            Ok(change) => to_event(change),
            Err(error) => Event::default().event("error").data(Problem::from(error).detail),
        })
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// Where to start.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// The id of the last event seen; default: from now on.
    since: Option<u64>,
}

fn to_event(change: Change) -> Event {
    let revision = change.revision;
    let event = SandboxEvent {
        revision,
        id: change.id.into(),
        sandbox: change.sandbox.map(|sandbox| SandboxView::from(*sandbox)),
    };
    let name = event.sandbox.as_ref().map_or("removed", |_| "changed");
    let text = serde_json::to_string(&event).unwrap_or_default();
    Event::default().event(name).id(revision.to_string()).data(text)
}
