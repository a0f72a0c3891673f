//! What keeps records and hosts in line without being asked.
//!
//! Each reconciler takes no input: it reads what should be and what is, moves one step, and changes nothing
//! when it runs again. A signal may wake one; it never carries data that is acted upon.
//!
//! | reconciler | should be | is | wakes |
//! |---|---|---|---|
//! | start | the records | the runs on the host | once, before the first request |
//! | expiry | no sandbox past its end, none idle beyond its limit | the deadlines, the uses in memory | at the next end, or when one is set |
//! | exits | a record in `failed` for a VMM that ended by itself | the record | when a VMM exits |
//! | ports | a forwarder and a route for each exposed port | those in force | when a record's ports change |
//! | sweep | no record stuck in a passing state, none without its VM, no snapshot without a record | records, runs and snapshots | every [`SWEEP_EVERY`] |

use crate::SandboxId;
use crate::late::{Try, Which};
use crate::plane::ControlPlane;
use crate::sandbox::error::LifecycleError;
use crate::sandbox::pause::PauseMode;
use crate::sandbox::record::{Failure, OnTimeout, Sandbox, Stored};
use crate::sandbox::run::sandbox_of;
use crate::sandbox::settle::Host;
use crate::sandbox::state::State;
use flames_node::{ExitCause, RunExit, VmId};
use flames_provider::{Error, ErrorKind, Result};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// How often records and runs are compared without a reason.
pub const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// What may pass between the end of a passing state's own deadline and the sweep that calls it stuck.
const GRACE: Duration = Duration::from_secs(30);

impl ControlPlane {
    /// Adopts what lives, fails what died while nobody watched, undoes what was half done.
    pub(crate) async fn reconcile_at_start(&self) -> Result<()> {
        let adoption = self.node.adopt().await?;
        let living: HashSet<VmId> = adoption.adopted.into_iter().map(|run| run.run).collect();
        let host = Host { living, snapshots: self.stored_snapshots().await? };
        let records = self.records.all().await.map_err(as_provider_error)?;
        let mut owned = HashSet::new();
        for stored in records {
            if stored.sandbox.state.has_vm() {
                owned.insert(stored.sandbox.run.clone());
                // Of those that end now it is taken back by that.
                self.room.hold(&stored.sandbox.id, stored.sandbox.expected_use());
            }
            self.step_at_start(&stored, &host).await;
        }
        for run in host.living.difference(&owned) {
            tracing::warn!(%run, "destroying a run that no record owns");
            self.node.destroy(run).await?;
        }
        self.reclaim_snapshots(&host).await.map_err(as_provider_error)
    }

    async fn step_at_start(&self, stored: &Stored, host: &Host) {
        let sandbox = &stored.sandbox;
        match after_restart(sandbox, host.living.contains(&sandbox.run)) {
            Step::Keep => self.watch_anew(sandbox),
            Step::Settle => self.settle(stored, host).await,
            Step::Expire => self.expire_now(sandbox).await,
            Step::Destroy => self.destroy_logged(&sandbox.id).await,
            Step::Fail(failure) => self.fail_logged(&sandbox.id, failure).await,
        }
    }

    pub(crate) fn spawn_reconcilers(self: &Arc<Self>) {
        let plane = Arc::clone(self);
        self.spawn_until_shutdown(async move { plane.expire().await });
        let plane = Arc::clone(self);
        self.spawn_until_shutdown(async move { plane.watch_exits().await });
        let plane = Arc::clone(self);
        self.spawn_until_shutdown(async move { plane.sweep_now_and_then().await });
        let plane = Arc::clone(self);
        self.spawn_until_shutdown(async move { plane.follow_ports().await });
    }

    fn spawn_until_shutdown(&self, reconciler: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            shutdown.run_until_cancelled(reconciler).await;
        });
    }

    /// Ends sandboxes whose time is over, each in a task of its own so that none waits for another.
    async fn expire(self: &Arc<Self>) {
        loop {
            let now = self.clock.now();
            let (due, next) = self.deadlines.due(now);
            for id in due {
                // Out of the index first: the record decides, and a failed destroy is the sweep's.
                self.deadlines.remove(&id);
                let plane = Arc::clone(self);
                self.tasks.spawn(async move { plane.expire_one(&id).await });
            }
            let changed = self.deadlines.changed();
            match next {
                Some(next) => drop(tokio::time::timeout(span(now, next), changed).await),
                None => changed.await,
            }
        }
    }

    async fn expire_one(&self, id: &SandboxId) {
        match self.get(id).await {
            // Somebody brings it somewhere, and sets its deadline anew at the end of that.
            Ok(sandbox) if matches!(sandbox.state, State::Pausing | State::Resuming) => {}
            Ok(sandbox) if self.is_over(&sandbox) => self.expire_now(&sandbox).await,
            // A later end was set meanwhile, or it was used.
            Ok(sandbox) => self.watch_end(&sandbox),
            Err(LifecycleError::NotFound(_)) => self.forget_end(id),
            Err(error) => tracing::warn!(sandbox = %id, %error, "cannot be expired yet: left to the sweep"),
        }
    }

    fn is_over(&self, sandbox: &Sandbox) -> bool {
        is_past(self.end_of(sandbox), self.clock.now())
    }

    async fn expire_now(&self, sandbox: &Sandbox) {
        let mode = match sandbox.on_timeout {
            OnTimeout::Pause if sandbox.is_up() => PauseMode::Disk,
            OnTimeout::PauseDiskOnly if sandbox.is_up() => PauseMode::DiskOnly,
            _ => {
                self.tell_end(sandbox);
                return self.destroy_logged(&sandbox.id).await;
            }
        };
        match self.late.begin(&sandbox.id, sandbox.ends_at, self.clock.now()) {
            Try::Now(which) => {
                if which == Which::First {
                    self.tell_end(sandbox);
                }
                self.pause_at_end(sandbox, mode, which).await;
            }
            // A failed pause was undone, which set its end anew.
            Try::Later(moment) => self.deadlines.set(&sandbox.id, Some(moment)),
        }
    }

    fn tell_end(&self, sandbox: &Sandbox) {
        let idle = !is_past(sandbox.ends_at, self.clock.now());
        tracing::info!(sandbox = %sandbox.id, on_timeout = ?sandbox.on_timeout, idle, "its time is over");
    }

    /// What cannot be paused goes on rather than being lost, and is tried again: after 1 s, then 2, 4 and so on, at last
    /// every five minutes.
    async fn pause_at_end(&self, sandbox: &Sandbox, mode: PauseMode, which: Which) {
        let id = &sandbox.id;
        match self.pause_steps(id, mode).await {
            Ok(_) => {
                self.late.forget(id);
                if which == Which::Again {
                    tracing::info!(sandbox = %id, "paused after its end: what was in the way is gone");
                }
            }
            Err(LifecycleError::NotRunning { .. } | LifecycleError::NotFound(_)) => self.late.forget(id),
            Err(LifecycleError::Node { source, .. }) if source.kind() == ErrorKind::Unsupported => {
                tracing::error!(sandbox = %id, error = %source, "destroying what this host can never pause");
                self.destroy_logged(id).await;
            }
            Err(error) => {
                match which {
                    Which::First => tracing::error!(
                        sandbox = %id, %error, "cannot be paused at its end: it goes on and is tried again"
                    ),
                    Which::Again => tracing::debug!(sandbox = %id, %error, "still cannot be paused"),
                }
                self.deadlines.set(id, self.late.next(id));
            }
        }
    }

    async fn watch_exits(&self) {
        let mut exits = self.node.exits();
        loop {
            match exits.recv().await {
                Ok(exit) => self.on_exit(exit).await,
                Err(RecvError::Lagged(_)) => self.sweep().await,
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn on_exit(&self, ended: RunExit) {
        // By somebody of this house, who has its record in hand. Reading it for each would fall behind a busy daemon's
        // destroys, and then a sweep reads all of them.
        if ended.exit.cause == ExitCause::Stopped {
            return;
        }
        let Some(id) = sandbox_of(&ended.run) else { return };
        let Ok(sandbox) = self.get(&id).await else { return };
        let asked_for = !matches!(sandbox.state, State::Running | State::Paused);
        if asked_for || sandbox.run != ended.run {
            return;
        }
        tracing::warn!(sandbox = %id, cause = ?ended.exit.cause, "its VMM ended by itself");
        self.fail_logged(&id, Failure::VmExited { exit: ended.exit }).await;
    }

    async fn sweep_now_and_then(&self) {
        let mut tick = tokio::time::interval(SWEEP_EVERY);
        loop {
            tick.tick().await;
            self.sweep().await;
        }
    }

    /// Compares every record with the host.
    pub(crate) async fn sweep(&self) {
        if let Err(error) = self.read_template_settings().await {
            tracing::warn!(%error, "the templates' settings are those of the last look");
        }
        let records = match self.records.all().await {
            Ok(records) => records,
            Err(error) => return tracing::warn!(%error, "no sweep: the records cannot be read"),
        };
        let snapshots = match self.stored_snapshots().await {
            Ok(snapshots) => snapshots,
            Err(error) => return tracing::warn!(%error, "no sweep: the snapshots cannot be listed"),
        };
        let living: HashSet<VmId> = self.node.list().await.into_iter().map(|run| run.run).collect();
        let host = Host { living, snapshots };
        let now = self.clock.now();
        for stored in records {
            let sandbox = &stored.sandbox;
            let patience = self.patience(sandbox.state);
            let lives = host.living.contains(&sandbox.run);
            match sweep_step(sandbox, lives, self.end_of(sandbox), now, patience) {
                Step::Keep => {}
                Step::Settle => self.settle(&stored, &host).await,
                Step::Expire => self.expire_now(sandbox).await,
                Step::Destroy => self.destroy_logged(&sandbox.id).await,
                Step::Fail(failure) => self.fail_logged(&sandbox.id, failure).await,
            }
        }
        if let Err(error) = self.reclaim_snapshots(&host).await {
            tracing::warn!(%error, "left-over snapshots are looked for at the next sweep");
        }
    }

    /// How long somebody may be at work on a sandbox in this state.
    fn patience(&self, state: State) -> Duration {
        let deadline = match state {
            State::Pausing | State::Resuming => self.limits.boot_deadline.max(self.limits.snapshot_deadline),
            _ => self.limits.boot_deadline,
        };
        deadline + GRACE
    }

    pub(crate) async fn fail_logged(&self, id: &SandboxId, failure: Failure) {
        self.forget_end(id);
        if let Err(error) = self.fail(id, failure).await {
            tracing::warn!(sandbox = %id, %error, "could not be marked as failed yet");
        }
    }
}

/// What a reconciler does about one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Keep,
    Settle,
    Expire,
    Destroy,
    Fail(Failure),
}

/// What to do about a record that an earlier daemon wrote.
fn after_restart(sandbox: &Sandbox, lives: bool) -> Step {
    match sandbox.state {
        State::Running | State::Paused if lives => Step::Keep,
        State::Running | State::Paused => Step::Fail(Failure::LostWhileDown),
        State::Failed | State::Snapshotted => Step::Keep,
        State::Pausing | State::Resuming => Step::Settle,
        // Half done: nobody waits for the create any more, and the pool fills itself anew.
        _ => Step::Destroy,
    }
}

/// What to do about a record while the daemon runs. Young ones are left alone: somebody is at work on them.
fn sweep_step(
    sandbox: &Sandbox,
    lives: bool,
    end: Option<Timestamp>,
    now: Timestamp,
    patience: Duration,
) -> Step {
    if now.duration_since(sandbox.changed_at)
        < SignedDuration::try_from(patience).unwrap_or(SignedDuration::MAX)
    {
        return Step::Keep;
    }
    match sandbox.state {
        State::Stopping | State::Stopped => Step::Destroy,
        State::Pausing | State::Resuming => Step::Settle,
        state if state.is_transitional() => Step::Fail(Failure::Stuck { state }),
        State::Running | State::Paused if !lives => Step::Fail(Failure::LostWhileDown),
        // The host could not take its VM away when it failed.
        State::Failed if lives => sandbox.failure.clone().map_or(Step::Keep, Step::Fail),
        _ if is_past(end, now) => Step::Expire,
        _ => Step::Keep,
    }
}

/// True for an end that has come; `None` never comes.
fn is_past(end: Option<Timestamp>, now: Timestamp) -> bool {
    end.is_some_and(|end| end <= now)
}

/// How long from `now` to `then`; zero if that is past.
fn span(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO)
}

pub(crate) fn as_provider_error(error: LifecycleError) -> Error {
    match error {
        LifecycleError::Store(error) => error,
        other => Error::new(ErrorKind::Corrupt, "record", "sandbox/").detail(other.to_string()),
    }
}
