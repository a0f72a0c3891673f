//! The performance monitor: what the control plane counts and times, and the alerts over it.
//!
//! What happens is counted when it happens. What merely is (sandboxes by state, resources of the host, pools) is
//! looked at when somebody scrapes or the alerts are evaluated, in turns that are bounded: a look that costs much is
//! made rarely, so that all looks together take at most a twentieth of one processor.

mod alerts;
mod outcome;

pub use alerts::{AlertInfo, AlertRules};

use crate::SandboxId;
use crate::plane::ControlPlane;
use crate::sandbox::error::CreateSandboxError;
use crate::sandbox::record::Sandbox;
use crate::sandbox::run::sandbox_of;
use crate::sandbox::state::State;
use alerts::Alerts;
use flames_metrics::{
    BootLevel, BootPath, Created, EgressFigures, Metrics, Moved, Operation, ProcessFigures,
};
use flames_node::usage::{self, RunUsage};
use flames_node::{LeakKind, Traffic};
use flames_provider::{ErrorKind, Result};
use outcome::HasKind;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a control plane remembers of itself.
#[derive(Debug)]
pub struct Monitor {
    metrics: Metrics,
    alerts: Alerts,
    sandboxes: Turn,
    resources: Turn,
    egress: Turn,
}

/// When something may be looked at again.
#[derive(Debug)]
struct Turn {
    at_most_every: Duration,
    next: Mutex<Instant>,
}

/// A look that takes longer is given up.
const LOOK_AT_MOST: Duration = Duration::from_secs(5);

/// After a look that took this long, nobody looks for this many times as long.
const REST: u32 = 20;

impl Monitor {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            alerts: Alerts::new(),
            sandboxes: Turn::every(Duration::from_secs(1)),
            resources: Turn::every(Duration::from_secs(5)),
            egress: Turn::every(Duration::from_secs(5)),
        }
    }

    /// The numbers.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts a sandbox that was handed out.
    pub(crate) fn created(&self, sandbox: &Sandbox, path: BootPath, level: BootLevel) {
        let (timings, node) = (&sandbox.timings, &sandbox.timings.node);
        let stages = [
            ("admit", timings.admit_ms),
            ("record", timings.record_ms),
            ("network", node.network_ms),
            ("disk", node.disk_ms),
            ("vmm_spawn", node.vmm_spawn_ms),
            ("kernel_to_agent", node.kernel_to_agent_ms),
            ("restore", node.restore_ms),
            ("agent_init", node.agent_init_ms),
            ("start_up", node.start_up_ms),
        ];
        let stages = stages.map(|(stage, ms)| (stage, ms / 1000.0));
        let template = sandbox.template.as_str();
        self.metrics.created(&Created {
            template,
            path,
            level,
            seconds: timings.create_ms / 1000.0,
            stages: &stages,
        });
    }

    /// Counts a create that failed; one that went well was counted when it was handed out.
    pub(crate) fn create_ended(&self, error: Option<&CreateSandboxError>) {
        let Some(error) = error else { return };
        if error.is_handshake() {
            self.metrics.handshake_failed(Operation::Create);
        }
        self.metrics.create_ended(outcome::of(error), error.kind());
    }

    pub(crate) fn first_command(&self, took_ms: f64) {
        self.metrics.first_command(Duration::try_from_secs_f64(took_ms / 1000.0).unwrap_or_default());
    }

    /// Does something to a sandbox, and counts and times it.
    pub(crate) async fn timed<T, E: HasKind>(
        &self,
        operation: Operation,
        steps: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let asked = Instant::now();
        let done = steps.await;
        if done.as_ref().is_err_and(HasKind::is_handshake) {
            self.metrics.handshake_failed(operation);
        }
        let outcome = done.as_ref().map(drop).map_err(HasKind::kind);
        self.metrics.operated(operation, asked.elapsed(), outcome);
        done
    }
}

impl ControlPlane {
    /// What it counts and times, and its alerts.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Brings those metrics up to date that are looked at and not counted, if it is time. Takes 15 s at most.
    pub async fn refresh_metrics(&self) {
        self.monitor.metrics.show_process(own_figures());
        self.show_pools().await;
        self.monitor.look(&self.monitor.sandboxes, self.look_at_sandboxes()).await;
        self.monitor.look(&self.monitor.resources, self.look_at_resources()).await;
        self.monitor.look(&self.monitor.egress, self.look_at_egress()).await;
    }

    /// Brings the metrics' look at the pools up to date: creates are timed by their pool's strategy.
    pub(crate) async fn show_pools(&self) {
        self.monitor.metrics.show_pools(self.node.pools().await);
    }

    /// What the VMM of each run uses at this moment, with the sandbox that lives in it, if one does.
    pub async fn usage(&self) -> Vec<(Option<SandboxId>, RunUsage)> {
        let usage = self.node.usage().await.into_iter();
        usage.map(|used| (sandbox_of(&used.run), used)).collect()
    }

    async fn look_at_sandboxes(&self) -> bool {
        let Ok(records) = self.records.all().await else { return false };
        let count = |state| records.iter().filter(|stored| stored.sandbox.state == state).count();
        self.monitor.metrics.show_sandboxes(State::ALL.iter().map(|state| (state.as_str(), count(*state))));
        true
    }

    async fn look_at_resources(&self) -> bool {
        let Ok(leaks) = self.node.leaks().await else { return false };
        for leak in leaks {
            self.monitor.metrics.show_resources(name_of(leak.kind), leak.owned, leak.orphaned);
        }
        true
    }

    async fn look_at_egress(&self) -> bool {
        let (mut figures, mut whole) = (Vec::new(), true);
        for info in self.node.list().await {
            let Some(sandbox) = sandbox_of(&info.run) else { continue };
            let moved = match self.node.traffic(&info.run).await {
                Ok(traffic) => Some(moved(&traffic)),
                // It ended in this moment, or nobody counts.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => {
                    continue;
                }
                Err(_) => None,
            };
            whole &= moved.is_some();
            figures.push(EgressFigures { run: info.run.to_string(), sandbox: sandbox.to_string(), moved });
        }
        self.monitor.metrics.show_egress(figures);
        whole
    }
}

fn moved(traffic: &Traffic) -> Moved {
    Moved {
        out_packets: traffic.sent.packets,
        out_bytes: traffic.sent.bytes,
        in_packets: traffic.received.packets,
        in_bytes: traffic.received.bytes,
        dropped: traffic.dropped.iter().map(|(cause, count)| (cause.clone(), count.packets)).collect(),
    }
}

impl Monitor {
    async fn look(&self, turn: &Turn, look: impl Future<Output = bool>) {
        let started = Instant::now();
        if !turn.claim(started) {
            return;
        }
        if !tokio::time::timeout(LOOK_AT_MOST, look).await.unwrap_or(false) {
            self.metrics.refresh_failed();
        }
        turn.took(started, Instant::now());
    }
}

impl Turn {
    fn every(at_most_every: Duration) -> Self {
        Self { at_most_every, next: Mutex::new(Instant::now()) }
    }

    /// True for one caller when it is time; the others see the last look's numbers.
    fn claim(&self, now: Instant) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = now >= *next;
        if is_time {
            // Should the caller go away in the middle, the next one takes over.
            *next = now + LOOK_AT_MOST;
        }
        is_time
    }

    fn took(&self, started: Instant, now: Instant) {
        let rest = ((now - started) * REST).max(self.at_most_every);
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = now + rest;
    }
}

fn own_figures() -> ProcessFigures {
    let own = usage::of(std::process::id()).unwrap_or_default();
    ProcessFigures {
        resident_bytes: own.resident_bytes,
        virtual_bytes: own.virtual_bytes,
        cpu_seconds: own.cpu_seconds,
        open_fds: usage::own_open_fds(),
        threads: own.threads,
    }
}

fn name_of(kind: LeakKind) -> &'static str {
    match kind {
        LeakKind::Process => "process",
        LeakKind::Namespace => "namespace",
        LeakKind::Tap => "tap",
        LeakKind::Nft => "nft",
        LeakKind::Veth => "veth",
        LeakKind::Mount => "mount",
        LeakKind::RunDir => "run-dir",
        LeakKind::Disk => "disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_costly_look_is_followed_by_twenty_times_its_rest_and_one_caller_looks() {
        let turn = Turn::every(Duration::from_secs(1));
        let start = Instant::now();
        assert!(turn.claim(start) && !turn.claim(start));
        let end = start + Duration::from_millis(200);
        turn.took(start, end);
        assert!(!turn.claim(end + Duration::from_millis(3999)));
        assert!(turn.claim(end + Duration::from_secs(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_whose_caller_went_away_does_not_block_the_next_for_ever() {
        let turn = Turn::every(Duration::from_secs(1));
        let start = Instant::now();
        assert!(turn.claim(start));
        assert!(turn.claim(start + LOOK_AT_MOST));
    }
}
