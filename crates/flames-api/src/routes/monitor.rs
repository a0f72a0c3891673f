//! What the daemon counts, its alerts, and who uses how much.

use crate::Api;
use crate::model::{AlertList, AlertRuleView, AlertView, RunUsageView, TopView};
use crate::problem::Problem;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(metrics)).routes(routes!(alerts)).routes(routes!(top))
}

/// What the daemon counts and times, for Prometheus.
///
/// Needs a key as everything else: names of templates and the rate of creates are nobody else's business.
#[utoipa::path(
    get, path = "/metrics", tag = "monitoring",
    responses((status = 200, content_type = "application/openmetrics-text", body = String), (status = 401, body = Problem)),
)]
async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    api.plane.refresh_metrics().await;
    ([(header::CONTENT_TYPE, flames_metrics::CONTENT_TYPE)], api.plane.monitor().metrics().encode())
}

/// The alerts that fire, are pending, or were resolved within the last hour; and the rules that make them.
#[utoipa::path(get, path = "/v1/alerts", tag = "monitoring", responses((status = 200, body = AlertList)))]
async fn alerts(State(api): State<Api>) -> axum::Json<AlertList> {
    let alerts = api.plane.alerts().into_iter().map(AlertView::from).collect();
    let rules = api.plane.alert_rules().iter().map(AlertRuleView::from).collect();
    axum::Json(AlertList { alerts, rules })
}

/// What each sandbox's VMM uses at this moment, and the pools.
#[utoipa::path(get, path = "/v1/top", tag = "monitoring", responses((status = 200, body = TopView)))]
async fn top(State(api): State<Api>) -> axum::Json<TopView> {
    let usage = api.plane.usage().await.into_iter().map(RunUsageView::from).collect();
    axum::Json(TopView { usage, pools: api.plane.node().pools().await })
}

/// Counts and times every request, by the pattern of its route: ids are no labels.
pub(crate) async fn measure(State(api): State<Api>, request: Request, next: Next) -> Response {
    let asked = Instant::now();
    let method = name_of(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or(UNKNOWN, MatchedPath::as_str);
    let route: Arc<str> = route.into();
    let response = next.run(request).await;
    api.plane.monitor().metrics().request(method, &route, response.status().as_u16(), asked.elapsed());
    response
}

/// The route of a path that nothing is at.
const UNKNOWN: &str = "unknown";

/// Clients may make up methods; labels may not.
fn name_of(method: &Method) -> &'static str {
    const KNOWN: [(Method, &str); 7] = [
        (Method::GET, "GET"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::DELETE, "DELETE"),
        (Method::HEAD, "HEAD"),
        (Method::PATCH, "PATCH"),
        (Method::OPTIONS, "OPTIONS"),
    ];
    KNOWN.iter().find(|(known, _)| known == method).map_or("other", |(_, name)| name)
}
