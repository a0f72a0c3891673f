//! One sandbox of a load: create, first command, a while of life, delete. It deletes what it made whatever
//! happens in between.

use crate::client::Client;
use crate::output::Refusal;
use flames_api::model::{ExecEvent, ExecRequest};
use futures::StreamExt;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What every life of a load has in common.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) client: Client,
    /// The body of the create.
    pub(super) request: Value,
    pub(super) command: Option<ExecRequest>,
    pub(super) keep: Duration,
    pub(super) live: Semaphore,
    /// Bounds the deletes under way: thousands at once, at the end of a load, would each open a connection.
    pub(super) deleting: Semaphore,
    pub(super) stop: CancellationToken,
}

/// How a life went.
#[derive(Debug)]
pub(super) struct Life {
    /// From when the create was meant to begin until it was sent.
    pub(super) waited: Duration,
    pub(super) create: Result<Created, Fault>,
    /// `None` if there was no command, or no time for one.
    pub(super) first_command: Option<Result<Duration, Fault>>,
    pub(super) delete: Option<Result<Duration, Fault>>,
    pub(super) answered_at: Instant,
}

/// What the daemon made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Created {
    pub(super) id: String,
    pub(super) took: Duration,
    /// How it came to be (`warm`, `restored`, `cold`), where the daemon says so.
    pub(super) path: Option<String>,
    /// The daemon's own stages: name and milliseconds.
    pub(super) stages: Vec<(String, f64)>,
}

/// What did not go well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// To count by: the HTTP status and the problem's code, or what broke.
    pub(super) kind: String,
    pub(super) detail: String,
    pub(super) judgement: Judgement,
    pub(super) after: Duration,
}

/// Whether somebody is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The daemon said "not now" and when to come back.
    Refused,
    /// Anything else.
    Failed,
}

impl Plan {
    /// Lives; `None` if the load was stopped before the create was sent.
    pub(super) async fn live(&self, intended: Instant) -> Option<Life> {
        let place = self.stop.run_until_cancelled(self.live.acquire()).await?;
        let sent = Instant::now();
        let create = self.create(sent).await;
        let mut life = Life {
            waited: sent - intended,
            create,
            first_command: None,
            delete: None,
            answered_at: Instant::now(),
        };
        if let Ok(created) = &life.create {
            life.first_command =
                self.stop.run_until_cancelled(self.first_output(&created.id)).await.flatten();
            let _ = self.stop.run_until_cancelled(tokio::time::sleep(self.keep)).await;
            life.delete = Some(self.delete(&created.id).await);
        }
        drop(place);
        Some(life)
    }

    async fn create(&self, sent: Instant) -> Result<Created, Fault> {
        let answer = self.client.create_as(&self.request).await;
        let took = sent.elapsed();
        answer.map_err(|error| Fault::of(&error, took)).and_then(|answer| Created::of(&answer, took))
    }

    async fn first_output(&self, id: &str) -> Option<Result<Duration, Fault>> {
        let command = self.command.as_ref()?;
        let sent = Instant::now();
        let answer = first_output(&self.client, id, command).await;
        Some(answer.map(|()| sent.elapsed()).map_err(|error| Fault::of(&error, sent.elapsed())))
    }

    async fn delete(&self, id: &str) -> Result<Duration, Fault> {
        // Never closed.
        let _place = self.deleting.acquire().await;
        let sent = Instant::now();
        let answer = self.client.delete(id).await;
        answer.map(|()| sent.elapsed()).map_err(|error| Fault::of(&error, sent.elapsed()))
    }
}

/// Runs a command until its first output, or its end if it prints nothing.
async fn first_output(client: &Client, id: &str, command: &ExecRequest) -> anyhow::Result<()> {
    let mut events = client.exec(id, command).await?;
    while let Some(event) = events.next().await {
        match event? {
            ExecEvent::Started { .. } => {}
            ExecEvent::Stdout { .. } | ExecEvent::Stderr { .. } => return Ok(()),
            ExecEvent::Exit { exit_code: 0, .. } => return Ok(()),
            ExecEvent::Exit { status, .. } => anyhow::bail!("the command ended with {status}"),
            ExecEvent::Error { problem } => return Err(Refusal(*problem).into()),
        }
    }
    anyhow::bail!("the stream of the command broke off")
}

impl Created {
    fn of(answer: &Value, took: Duration) -> Result<Self, Fault> {
        // At the top, or in one of its parts: where the path stands is the daemon's choice.
        let text = |name: &str| {
            let parts = || answer.as_object()?.values().find_map(|part| part.get(name));
            answer.get(name).or_else(parts).and_then(Value::as_str).map(str::to_owned)
        };
        let Some(id) = text("id") else {
            let detail = "the answer names no sandbox: is the daemon of another version?".to_owned();
            return Err(Fault { kind: "answer".into(), detail, judgement: Judgement::Failed, after: took });
        };
        Ok(Self { id, took, path: text("path"), stages: stages(answer) })
    }
}

/// Every duration among the timings of an answer: a newer daemon may have stages that this does not know.
fn stages(answer: &Value) -> Vec<(String, f64)> {
    let timings = answer.get("timings").and_then(Value::as_object);
    let stage = |(name, value): (&String, &Value)| {
        Some((name.strip_suffix("_ms")?.replace('_', " "), value.as_f64()?))
    };
    timings.into_iter().flatten().filter_map(stage).collect()
}

impl Fault {
    fn of(error: &anyhow::Error, after: Duration) -> Self {
        let detail = format!("{error:#}");
        let refusal = error.chain().find_map(|cause| cause.downcast_ref::<Refusal>());
        let Some(Refusal(problem)) = refusal else {
            return Self { kind: broken(error), detail, judgement: Judgement::Failed, after };
        };
        let judgement = match (problem.status, problem.retry_after_s) {
            (429 | 503, Some(_)) => Judgement::Refused,
            _ => Judgement::Failed,
        };
        Self { kind: format!("{} {}", problem.status, problem.code), detail, judgement, after }
    }
}

/// What broke where no daemon answered.
fn broken(error: &anyhow::Error) -> String {
    match error.chain().find_map(|cause| cause.downcast_ref::<reqwest::Error>()) {
        Some(error) if error.is_connect() => "connect".to_owned(),
        Some(error) if error.is_timeout() => "timeout".to_owned(),
        Some(_) => "connection".to_owned(),
        None => "command".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_api::Problem;
    use http::StatusCode;

    #[test]
    fn an_answer_of_a_newer_daemon_keeps_stages_and_path_that_this_client_does_not_know() {
        let answer = serde_json::json!({
            "id": "i1", "path": "warm", "timings": { "create_ms": 1.5, "handshake_ms": 2, "why": "x", "none_ms": null }
        });
        let created = Created::of(&answer, Duration::from_millis(3)).unwrap();
        assert_eq!((created.id.as_str(), created.path.as_deref()), ("i1", Some("warm")));
        assert_eq!(created.stages, [("create".to_owned(), 1.5), ("handshake".to_owned(), 2.0)]);
        assert_eq!(Created::of(&serde_json::json!({}), Duration::ZERO).unwrap_err().kind, "answer");
    }

    #[test]
    fn only_not_now_with_a_time_to_come_back_is_a_refusal() {
        let judged = |status, retry_after_s| {
            let problem = Problem { retry_after_s, ..Problem::new(status, "full", "no room") };
            let fault = Fault::of(&Refusal(problem).into(), Duration::ZERO);
            (fault.kind, fault.judgement)
        };
        let (busy, many) = (StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(judged(busy, Some(1)), ("503 full".to_owned(), Judgement::Refused));
        assert_eq!(judged(many, Some(1)), ("429 full".to_owned(), Judgement::Refused));
        assert_eq!(judged(busy, None).1, Judgement::Failed);
        assert_eq!(judged(StatusCode::NOT_FOUND, Some(1)).1, Judgement::Failed);
    }
}
