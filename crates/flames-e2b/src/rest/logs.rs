//! Logs: the console of the sandbox, its kernel and its agent.

use super::extract::{Id, Params};
use crate::E2b;
use crate::error::{ApiError, ApiResult};
use axum::Json;
use axum::extract::State;
use flames_core::SandboxId;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// How much of a console is read.
const MAX_LOG_BYTES: usize = 1 << 20;
/// Lines when nothing is said.
const LINES: usize = 1000;
/// What is younger waits for the next request. Lines that come close together have one time, and a client that follows
/// asks from behind the last time that it has: it would miss those that came a moment after its answer.
const SETTLED_MS: i64 = 20;
/// What all lines are called: a console knows no other.
const LEVEL: &str = "info";
const LOGGER: &str = "console";

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
    /// An object in JSON: the command line parses it.
    line: String,
}

#[derive(Debug, Serialize)]
struct LogEntry {
    timestamp: Timestamp,
    message: String,
    level: &'static str,
    fields: BTreeMap<&'static str, &'static str>,
}

/// A line of a console.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    at: Timestamp,
    text: String,
}

/// Which lines are wanted.
#[derive(Clone, Debug)]
struct Wanted {
    /// Where to begin, in milliseconds of Unix time.
    cursor: Option<i64>,
    direction: Direction,
    limit: usize,
    search: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// The oldest from the cursor on; without one the newest, the oldest of them first.
    Forward,
    /// The newest up to the cursor, the newest first.
    Backward,
}

pub(super) async fn logs(State(e2b): State<E2b>, Id(id): Id, params: Params) -> ApiResult<Json<Logs>> {
    let wanted = Wanted {
        cursor: params.parse("start")?,
        direction: Direction::Forward,
        limit: limit(&params)?,
        search: String::new(),
    };
    let lines = wanted.of(console(&e2b, &id).await?);
    Ok(Json(Logs { logs: lines.iter().map(Line::as_json).collect(), log_entries: entries(lines) }))
}

pub(super) async fn logs_v2(State(e2b): State<E2b>, Id(id): Id, params: Params) -> ApiResult<Json<LogsV2>> {
    let wanted = Wanted {
        cursor: params.parse("cursor")?,
        direction: direction(&params)?,
        limit: limit(&params)?,
        search: params.get("search").unwrap_or_default().to_owned(),
    };
    let lines = wanted.of(console(&e2b, &id).await?);
    let severe = matches!(params.get("level"), Some("warn" | "error"));
    Ok(Json(LogsV2 { logs: if severe { Vec::new() } else { entries(lines) } }))
}

fn limit(params: &Params) -> ApiResult<usize> {
    Ok(params.parse("limit")?.unwrap_or(LINES).min(LINES))
}

fn direction(params: &Params) -> ApiResult<Direction> {
    match params.get("direction") {
        None | Some("forward") => Ok(Direction::Forward),
        Some("backward") => Ok(Direction::Backward),
        Some(_) => Err(ApiError::bad_request("`direction`: must be `forward` or `backward`")),
    }
}

/// The lines of a console that are not too young.
async fn console(e2b: &E2b, id: &SandboxId) -> ApiResult<Vec<Line>> {
    let console = e2b.plane.console(id, MAX_LOG_BYTES).await?;
    // Stands for the time of lines whose own nobody kept.
    let created = e2b.plane.get(id).await.map_or(Timestamp::UNIX_EPOCH, |sandbox| sandbox.created_at);
    let settled = Timestamp::now().as_millisecond() - SETTLED_MS;
    let lines = console.lines().map(|(at, text)| Line {
        at: at.and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(created),
        text: text.trim_end().to_owned(),
    });
    Ok(lines.filter(|line| !line.text.is_empty() && line.at.as_millisecond() <= settled).collect())
}

impl Wanted {
    /// Of these, which are in the order of time.
    fn of(&self, mut lines: Vec<Line>) -> Vec<Line> {
        lines.retain(|line| line.text.contains(&self.search));
        let at = |line: &Line| line.at.as_millisecond();
        match (self.direction, self.cursor) {
            (Direction::Forward, None) => {
                lines.drain(..lines.len().saturating_sub(self.limit)).for_each(drop)
            }
            (Direction::Forward, Some(cursor)) => {
                lines.retain(|line| at(line) >= cursor);
                // The next request is from behind the last time: what shares it comes along.
                let last = self.limit.checked_sub(1).and_then(|last| lines.get(last)).map(at);
                lines.truncate(last.map_or(lines.len().min(self.limit), |last| {
                    lines.partition_point(|line| at(line) <= last)
                }));
            }
            (Direction::Backward, cursor) => {
                lines.retain(|line| cursor.is_none_or(|cursor| at(line) <= cursor));
                lines.reverse();
                lines.truncate(self.limit);
            }
        }
        lines
    }
}

impl Line {
    fn as_json(&self) -> LogLine {
        let line = serde_json::json!({ "level": LEVEL, "logger": LOGGER, "message": self.text });
        LogLine { timestamp: self.at, line: line.to_string() }
    }
}

fn entries(lines: Vec<Line>) -> Vec<LogEntry> {
    let fields = BTreeMap::from([("logger", LOGGER)]);
    let entry = |line: Line| LogEntry {
        timestamp: line.at,
        message: line.text,
        level: LEVEL,
        fields: fields.clone(),
    };
    lines.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(at_ms: i64) -> Line {
        Line { at: Timestamp::from_millisecond(at_ms).unwrap(), text: format!("line of {at_ms}") }
    }

    fn times(wanted: &Wanted, lines: &[i64]) -> Vec<i64> {
        let lines = wanted.of(lines.iter().copied().map(line).collect());
        lines.iter().map(|line| line.at.as_millisecond()).collect()
    }

    fn wanted(cursor: Option<i64>, direction: Direction, limit: usize) -> Wanted {
        Wanted { cursor, direction, limit, search: String::new() }
    }

    #[test]
    fn both_directions_begin_at_their_cursor() {
        let all = [1, 2, 3, 4, 5];
        assert_eq!(times(&wanted(None, Direction::Forward, 2), &all), [4, 5]);
        assert_eq!(times(&wanted(Some(2), Direction::Forward, 2), &all), [2, 3]);
        assert_eq!(times(&wanted(None, Direction::Backward, 2), &all), [5, 4]);
        assert_eq!(times(&wanted(Some(3), Direction::Backward, 9), &all), [3, 2, 1]);
        assert_eq!(times(&wanted(Some(9), Direction::Forward, 0), &all), [0; 0]);
    }

    #[test]
    fn a_search_leaves_what_holds_its_text() {
        let search = Wanted { search: "of 3".into(), ..wanted(None, Direction::Forward, 9) };
        assert_eq!(times(&search, &[1, 2, 3, 30]), [3, 30]);
    }

    #[test]
    fn a_line_of_the_first_generation_is_an_object() {
        let parsed: serde_json::Value = serde_json::from_str(&line(7).as_json().line).unwrap();
        assert_eq!(parsed["message"], "line of 7");
        assert!(parsed["level"].is_string() && parsed["logger"].is_string());
    }

    proptest! {
        #[test]
        fn who_follows_gets_every_line_once(
            gaps in prop::collection::vec(0i64..3, 0..60), limit in 1usize..8,
        ) {
            let mut at = 0;
            let all: Vec<i64> = gaps.into_iter().map(|gap| { at += gap; at }).collect();
            let (mut got, mut cursor) = (Vec::new(), 0);
            loop {
                let page = times(&wanted(Some(cursor), Direction::Forward, limit), &all);
                let Some(last) = page.last() else { break };
                cursor = last + 1;
                got.extend(page);
            }
            prop_assert_eq!(got, all);
        }
    }
}
