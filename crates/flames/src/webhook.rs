//! Tells a webhook which alerts fire and which are resolved, in order.
//!
//! A post that gets no good answer is made again twice, later each time; then it is given up, logged and counted.
//! The URL is a secret: it is in no log and in no error.

use crate::config::Alerts;
use flames_core::monitor::AlertInfo;
use flames_metrics::Metrics;
use jiff::Timestamp;
use reqwest::redirect::Policy;
use serde::Serialize;
use std::time::Duration;
use tokio::sync::mpsc;
use url::Url;

/// Posts to one URL.
#[derive(Debug)]
pub(crate) struct Webhook {
    http: reqwest::Client,
    url: Url,
    host: String,
    metrics: Metrics,
}

/// What is posted.
#[derive(Debug, Serialize)]
struct Notice<'a> {
    version: u32,
    /// `firing` or `resolved`.
    state: &'static str,
    alert: &'a AlertInfo,
    /// Which daemon says so.
    host: &'a str,
    sent_at: Timestamp,
}

/// The version of the body. New fields do not raise it.
const VERSION: u32 = 1;

/// Before the second and before the third try.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Why a post did not arrive.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    /// Another try may help.
    #[error("{0}")]
    ForNow(String),
    /// The other side does not want it.
    #[error("{0}")]
    ForGood(String),
}

impl Webhook {
    /// The webhook of the configuration, if it names one.
    pub(crate) fn of(config: &Alerts, metrics: Metrics) -> anyhow::Result<Option<Self>> {
        let Some(url) = &config.webhook else { return Ok(None) };
        let url = url.expose().map_err(|problem| anyhow::anyhow!("alerts.webhook {problem}"))?;
        let timeout = Duration::from_secs(config.webhook_timeout_s);
        // A redirect would carry the notice to somebody whom nobody named.
        let http = reqwest::Client::builder().timeout(timeout).redirect(Policy::none()).build()?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Some(Self { http, url, host: host.trim().to_owned(), metrics }))
    }

    /// Tells every turn until there are no more.
    pub(crate) async fn follow(self, mut turns: mpsc::Receiver<AlertInfo>) {
        while let Some(alert) = turns.recv().await {
            match self.tell(&alert).await {
                Ok(()) => self.metrics.told("delivered"),
                Err(error) => {
                    tracing::error!(rule = alert.rule, %error, "the webhook was not told of an alert");
                    self.metrics.told("failed");
                }
            }
        }
    }

    async fn tell(&self, alert: &AlertInfo) -> Result<(), Undelivered> {
        let mut pauses = PAUSES.iter();
        loop {
            let failed = match self.post(alert).await {
                Err(failed @ Undelivered::ForNow(_)) => failed,
                settled => return settled,
            };
            let Some(pause) = pauses.next() else { return Err(failed) };
            tracing::warn!(rule = alert.rule, error = %failed, "the webhook is told again in {pause:?}");
            tokio::time::sleep(*pause).await;
        }
    }

    async fn post(&self, alert: &AlertInfo) -> Result<(), Undelivered> {
        let (state, sent_at) = (alert.state.name(), Timestamp::now());
        let notice = Notice { version: VERSION, state, alert, host: &self.host, sent_at };
        let sent = self.http.post(self.url.clone()).json(&notice).send().await;
        let status = match sent {
            Ok(answer) => answer.status(),
            Err(error) => return Err(Undelivered::ForNow(describe(error))),
        };
        match status.as_u16() {
            200..=299 => Ok(()),
            429 | 500..=599 => Err(Undelivered::ForNow(format!("it answered {status}"))),
            _ => Err(Undelivered::ForGood(format!("it answered {status}"))),
        }
    }
}

/// An error with its causes, without the URL.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_metrics::alert::{AlertState, Severity};
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    fn alert(state: AlertState) -> AlertInfo {
        AlertInfo {
            rule: "leaks".into(),
            subject: Some("tap".into()),
            severity: Severity::Warning,
            summary: "Something is left.".into(),
            state,
            value: 2.0,
            threshold: 0.0,
            since: Timestamp::UNIX_EPOCH,
            resolved_at: None,
        }
    }

    /// Answers one request with each of these, and gives the bodies.
    async fn server(answers: Vec<&'static str>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hunter2", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let mut bodies = Vec::new();
            for answer in answers {
                bodies.push(answer_one(listener.accept().await.unwrap().0, answer).await);
            }
            bodies
        });
        (url, serving)
    }

    async fn answer_one(stream: TcpStream, answer: &str) -> String {
        let mut stream = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let answer = format!("HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(body).unwrap()
    }

    fn webhook(url: &str, metrics: &Metrics) -> Webhook {
        let text = format!("[alerts]\nwebhook = \"{url}\"\nwebhook_timeout_s = 1\n");
        let config = crate::config::Config::parse("f.toml", &text).unwrap();
        Webhook::of(&config.alerts, metrics.clone()).unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_server_that_fails_once_is_told_again_and_the_order_stays() {
        let (url, serving) = server(vec!["503 Busy", "204 Fine", "200 Fine"]).await;
        let (sender, turns) = mpsc::channel(4);
        let metrics = Metrics::default();
        for state in [AlertState::Firing, AlertState::Resolved] {
            sender.send(alert(state)).await.unwrap();
        }
        drop(sender);
        webhook(&url, &metrics).follow(turns).await;
        let bodies: Vec<serde_json::Value> =
            serving.await.unwrap().iter().map(|body| serde_json::from_str(body).unwrap()).collect();
        let states: Vec<_> = bodies.iter().map(|body| body["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["firing", "firing", "resolved"]);
        assert_eq!((&bodies[0]["version"], &bodies[0]["alert"]["rule"]), (&1.into(), &"leaks".into()));
        assert_eq!(
            (&bodies[0]["alert"]["subject"], &bodies[0]["alert"]["value"]),
            (&"tap".into(), &2.0.into())
        );
        assert!(metrics.encode().contains("flames_alert_notices_total{outcome=\"delivered\"} 2"));
    }

    #[tokio::test]
    async fn a_server_that_does_not_want_it_is_not_asked_again() {
        let (url, serving) = server(vec!["404 Not Found"]).await;
        let metrics = Metrics::default();
        let error = webhook(&url, &metrics).tell(&alert(AlertState::Firing)).await.unwrap_err();
        assert!(matches!(error, Undelivered::ForGood(_)), "{error}");
        assert_eq!(serving.await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn an_error_does_not_hold_the_url() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hunter2?key=hunter2", listener.local_addr().unwrap());
        drop(listener);
        let metrics = Metrics::default();
        let error = webhook(&url, &metrics).post(&alert(AlertState::Firing)).await.unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
