//! Metrics and logs.

use super::extract::{Id, Params};
use super::model::Metric;
use crate::E2b;
use crate::error::{ApiError, ApiResult};
use axum::Json;
use axum::extract::State;
use flames_core::SandboxId;
use flames_core::sandbox::error::{GuestCallError, LifecycleError};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// How far behind the end of a range a measurement may be and still belong to it, in seconds.
const SLACK_S: i64 = 10;
/// The most sandboxes that are measured at once.
const MAX_MEASURED: usize = 100;
/// How much of a console is read.
const MAX_LOG_BYTES: usize = 1 << 20;
/// Lines when nothing is said.
const LINES: usize = 1000;

/// What a sandbox uses now, if now is in the range that is asked for. There is no history.
pub(super) async fn metrics(
    State(e2b): State<E2b>,
    Id(id): Id,
    params: Params,
) -> ApiResult<Json<Vec<Metric>>> {
    let (start, end) = (params.parse::<i64>("start")?, params.parse::<i64>("end")?);
    let now = Timestamp::now();
    if !in_range(now.as_second(), start, end) {
        e2b.plane.get(&id).await?;
        return Ok(Json(Vec::new()));
    }
    Ok(Json(measure(&e2b, &id, now).await?.into_iter().collect()))
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
        if let Ok(Some(metric)) = measure(&e2b, &id, Timestamp::now()).await {
            sandboxes.insert(id.to_string(), metric);
        }
    }
    Ok(Json(ManyMetrics { sandboxes }))
}

async fn measure(e2b: &E2b, id: &SandboxId, now: Timestamp) -> ApiResult<Option<Metric>> {
    let guest = match e2b.plane.guest(id).await {
        Err(GuestCallError::Sandbox(LifecycleError::NotRunning { .. })) => return Ok(None),
        guest => guest?,
    };
    let used = guest.metrics().await.map_err(GuestCallError::Guest)?;
    Ok(Some(Metric {
        timestamp: now,
        timestamp_unix: now.as_second(),
        cpu_count: used.cpu_count,
        cpu_used_pct: used.cpu_used_pct,
        mem_used: used.mem_used,
        mem_total: used.mem_total,
        mem_cache: used.mem_cache,
        disk_used: used.disk_used,
        disk_total: used.disk_total,
    }))
}

fn in_range(now: i64, start: Option<i64>, end: Option<i64>) -> bool {
    start.is_none_or(|start| start <= now) && end.is_none_or(|end| now <= end.saturating_add(SLACK_S))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Logs {
    logs: Vec<LogLine>,
    log_entries: Vec<LogEntry>,
}

#[derive(Debug, Serialize)]
pub(super) struct LogsV2 {
    logs: Vec<LogEntry>,
}

#[derive(Debug, Serialize)]
struct LogLine {
    timestamp: Timestamp,
    line: String,
}

#[derive(Debug, Serialize)]
struct LogEntry {
    timestamp: Timestamp,
    message: String,
    level: &'static str,
    fields: BTreeMap<String, String>,
}

/// The console of the sandbox: its kernel and its agent.
pub(super) async fn logs(State(e2b): State<E2b>, Id(id): Id, params: Params) -> ApiResult<Json<Logs>> {
    let (timestamp, lines) = console(&e2b, &id, &params).await?;
    let logs = lines.iter().map(|line| LogLine { timestamp, line: line.clone() }).collect();
    Ok(Json(Logs { logs, log_entries: entries(timestamp, lines) }))
}

pub(super) async fn logs_v2(State(e2b): State<E2b>, Id(id): Id, params: Params) -> ApiResult<Json<LogsV2>> {
    let (timestamp, lines) = console(&e2b, &id, &params).await?;
    Ok(Json(LogsV2 { logs: entries(timestamp, lines) }))
}

/// Its lines, and the time that stands for theirs: a console has none, so it is that of the create.
async fn console(e2b: &E2b, id: &SandboxId, params: &Params) -> ApiResult<(Timestamp, Vec<String>)> {
    let limit = params.parse("limit")?.unwrap_or(LINES).min(LINES);
    let text = e2b.plane.console(id, MAX_LOG_BYTES).await?;
    let since = e2b.plane.get(id).await.map_or_else(|_| Timestamp::now(), |sandbox| sandbox.created_at);
    // A client that follows asks again from behind the last line that it has.
    let seen = [params.parse::<i64>("start")?, params.parse::<i64>("cursor")?].into_iter().flatten();
    if seen.max().is_some_and(|seen| seen > since.as_millisecond()) {
        return Ok((since, Vec::new()));
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let newest = lines.len().saturating_sub(limit);
    Ok((since, lines[newest..].iter().map(|line| (*line).to_owned()).collect()))
}

fn entries(timestamp: Timestamp, lines: Vec<String>) -> Vec<LogEntry> {
    let entry = |message| LogEntry { timestamp, message, level: "info", fields: BTreeMap::new() };
    lines.into_iter().map(entry).collect()
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
