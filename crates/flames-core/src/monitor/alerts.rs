//! Alerts of a daemon: evaluated on a clock's tick, told in the log, counted, and handed to whoever sends them on.

use crate::plane::ControlPlane;
use flames_metrics::alert::{Alert, AlertState, Board, Rule, Severity, Turn};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

/// What is watched, and how often.
#[derive(Clone, Debug)]
pub struct AlertRules {
    /// The rules; none watches nothing.
    pub rules: Vec<Rule>,
    /// How often they are evaluated.
    pub every: Duration,
}

/// An alert that is not quiet, with its times on the wall clock.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertInfo {
    /// The rule's name.
    pub rule: String,
    /// The pool or the kind of resource; `None` when the rule has one alert only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// What it means.
    pub summary: String,
    /// Where it is.
    pub state: AlertState,
    /// The newest value, in the signal's unit.
    pub value: f64,
    /// The rule's bound.
    pub threshold: f64,
    /// Since when it is pending or fires; of a resolved one, when it had begun to fire.
    pub since: Timestamp,
    /// When it was resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(crate) struct Alerts {
    board: Mutex<Board>,
    /// What the times of samples count from. Not the wall clock: that one may be set back.
    started: Instant,
}

/// How many turns may wait for whoever sends them on.
const WAITING: usize = 256;

impl Alerts {
    pub(crate) fn new() -> Self {
        Self { board: Mutex::new(Board::new(Vec::new())), started: Instant::now() }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self) -> Duration {
        self.started.elapsed()
    }
}

impl ControlPlane {
    /// The alerts that are not quiet: firing ones first.
    pub fn alerts(&self) -> Vec<AlertInfo> {
        let alerts = self.monitor.alerts.board().alerts();
        alerts.into_iter().map(|alert| self.info(alert)).collect()
    }

    /// The rules in force.
    pub fn alert_rules(&self) -> Vec<Rule> {
        self.monitor.alerts.board().rules().to_vec()
    }

    /// Evaluates rules until the shutdown. Gives what begins to fire and what is resolved, in order, for whoever
    /// sends it on; nothing waits for that.
    pub fn watch_alerts(self: &Arc<Self>, watch: AlertRules) -> mpsc::Receiver<AlertInfo> {
        let (turns, receiver) = mpsc::channel(WAITING);
        *self.monitor.alerts.board() = Board::new(watch.rules);
        let (plane, shutdown) = (Arc::clone(self), self.shutdown.clone());
        let watching = async move {
            let mut tick = tokio::time::interval(watch.every);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                plane.evaluate(&turns).await;
            }
        };
        self.tasks.spawn(async move { shutdown.run_until_cancelled(watching).await });
        receiver
    }

    async fn evaluate(&self, listener: &mpsc::Sender<AlertInfo>) {
        self.refresh_metrics().await;
        let sample = self.monitor.metrics.sample(self.monitor.alerts.at());
        let (turns, firing) = {
            let mut board = self.monitor.alerts.board();
            (board.observe(sample), board.firing())
        };
        for Turn(alert) in turns {
            let info = self.info(alert);
            info.log();
            self.monitor.metrics.alert_turned(&info.rule, info.state.name(), firing);
            if let Err(mpsc::error::TrySendError::Full(info)) = listener.try_send(info) {
                tracing::error!(rule = info.rule, "too many alerts wait to be sent on: this one is not");
                self.monitor.metrics.told("failed");
            }
        }
    }

    fn info(&self, alert: Alert) -> AlertInfo {
        let (at, now) = (self.monitor.alerts.at(), self.clock.now());
        let on_clock = |then: Duration| {
            let ago = SignedDuration::try_from(at.saturating_sub(then)).unwrap_or(SignedDuration::ZERO);
            now.checked_sub(ago).unwrap_or(now)
        };
        AlertInfo {
            rule: alert.rule,
            subject: Some(alert.subject).filter(|subject| !subject.is_empty()),
            severity: alert.severity,
            summary: alert.summary,
            state: alert.state,
            value: alert.value,
            threshold: alert.threshold,
            since: on_clock(alert.since),
            resolved_at: alert.resolved_at.map(on_clock),
        }
    }
}

impl AlertInfo {
    fn log(&self) {
        let (rule, subject, value, bound) = (&self.rule, self.subject.as_deref(), self.value, self.threshold);
        match (self.state, self.severity) {
            (AlertState::Firing, Severity::Critical) => {
                tracing::error!(rule, subject, value, bound, "alert fires: {}", self.summary);
            }
            (AlertState::Firing, Severity::Warning) => {
                tracing::warn!(rule, subject, value, bound, "alert fires: {}", self.summary);
            }
            _ => tracing::info!(rule, subject, value, bound, "alert is resolved"),
        }
    }
}
