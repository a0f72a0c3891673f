//! Metrics.

use super::extract::{Id, Params};
use super::model::Metric;
use crate::E2b;
use crate::error::{ApiError, ApiResult};
use crate::history::Point;
use axum::Json;
use axum::extract::State;
use flames_core::SandboxId;
use flames_core::sandbox::error::{GuestCallError, LifecycleError};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// How far behind the end of a range a measurement may be and still belong to it, in seconds.
const SLACK_S: i64 = 10;
/// What was measured so many seconds ago is as good as new.
const FRESH_S: i64 = 4;
/// The most sandboxes that are measured at once.
const MAX_MEASURED: usize = 100;

/// What a sandbox used from `start` to `end`, in seconds of Unix time, and what it uses now if that is asked for.
pub(super) async fn metrics(
    State(e2b): State<E2b>,
    Id(id): Id,
    params: Params,
) -> ApiResult<Json<Vec<Metric>>> {
    let (start, end) = (params.parse::<i64>("start")?, params.parse::<i64>("end")?);
    e2b.plane.get(&id).await?;
    let (first, last) = (start.unwrap_or(i64::MIN), end.unwrap_or(i64::MAX));
    let now = Timestamp::now().as_second();
    let newest = e2b.history.range(&id, now - FRESH_S, now);
    if in_range(now, start, end) && newest.is_empty() {
        measure(&e2b, &id).await?;
    }
    let last = last.saturating_add(SLACK_S);
    Ok(Json(e2b.history.range(&id, first, last).into_iter().filter_map(metric).collect()))
}

#[derive(Debug, Serialize)]
pub(super) struct ManyMetrics {
    sandboxes: BTreeMap<String, Metric>,
}

/// The same of several sandboxes, by id; one that is not running is left out.
pub(super) async fn metrics_of_many(State(e2b): State<E2b>, params: Params) -> ApiResult<Json<ManyMetrics>> {
    let ids: Vec<_> = params.get("sandbox_ids").unwrap_or_default().split(',').collect();
    if ids.len() > MAX_MEASURED {
        return Err(ApiError::bad_request(format!("`sandbox_ids`: at most {MAX_MEASURED}")));
    }
    let mut sandboxes = BTreeMap::new();
    for id in ids.into_iter().filter_map(|id| SandboxId::parse(id).ok()) {
        if let Ok(Some(metric)) = measure(&e2b, &id).await.map(|point| point.and_then(metric)) {
            sandboxes.insert(id.to_string(), metric);
        }
    }
    Ok(Json(ManyMetrics { sandboxes }))
}

/// What a sandbox uses now, which is remembered; `None` of one that does not run.
async fn measure(e2b: &E2b, id: &SandboxId) -> ApiResult<Option<Point>> {
    let guest = match e2b.plane.guest_unnoticed(id).await {
        Err(GuestCallError::Sandbox(LifecycleError::NotRunning { .. })) => return Ok(None),
        guest => guest?,
    };
    let used = guest.metrics().await.map_err(GuestCallError::Guest)?;
    let point = Point { at_s: Timestamp::now().as_second(), used };
    e2b.history.add(id, point);
    Ok(Some(point))
}

/// `None` for a point at no time.
fn metric(Point { at_s, used }: Point) -> Option<Metric> {
    Some(Metric {
        timestamp: Timestamp::from_second(at_s).ok()?,
        timestamp_unix: at_s,
        cpu_count: used.cpu_count,
        cpu_used_pct: used.cpu_used_pct,
        mem_used: used.mem_used,
        mem_total: used.mem_total,
        mem_cache: used.mem_cache,
        disk_used: used.disk_used,
        disk_total: used.disk_total,
    })
}

fn in_range(now: i64, start: Option<i64>, end: Option<i64>) -> bool {
    start.is_none_or(|start| start <= now) && end.is_none_or(|end| now <= end.saturating_add(SLACK_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_belongs_to_the_ranges_that_hold_now() {
        assert!(in_range(100, None, None) && in_range(100, Some(90), Some(95)));
        assert!(!in_range(100, Some(101), None) && !in_range(100, None, Some(80)));
        assert!(in_range(100, Some(i64::MIN), Some(i64::MAX)));
    }
}
