//! The registry and how it is written.

use crate::buckets;
use crate::egress::{Egress, EgressFigures};
use crate::families::{Families, NO_ERROR};
use crate::labels::{
    AlertTurn, AtLevel, Ended, InPool, InState, Kind, Of, Operation, OperationEnded, Outcome, Request, Route,
    Stage, Told, Way,
};
use crate::names::Names;
use crate::pools::Pools;
use crate::process::{Process, ProcessFigures};
use crate::sample::{Sample, Tally};
use flames_pool::{BootLevel, BootPath, Execution, PoolStatus};
use flames_provider::decorate::CallMetrics;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

/// What one daemon counts and times. Clones share their numbers.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    families: Families,
    templates: Names,
    pools: Arc<Pools>,
    process: Arc<Process>,
    egress: Arc<Egress>,
    tally: Tally,
}

/// A create that went well.
#[derive(Clone, Copy, Debug)]
pub struct Created<'a> {
    /// What it was created from.
    pub template: &'a str,
    /// The way it went.
    pub path: BootPath,
    /// What was asked for.
    pub level: BootLevel,
    /// From the request until it was handed out.
    pub seconds: f64,
    /// Its stages with their seconds. Those that this path does not have may be left out.
    pub stages: &'a [(&'static str, f64)],
}

impl Metrics {
    /// Metrics of a daemon of this version, all at zero.
    pub fn new(version: &str) -> Self {
        let mut registry = Registry::default();
        let families = Families::register(&mut registry, version);
        let (pools, process) = (Arc::new(Pools::default()), Arc::new(Process::default()));
        let egress = Arc::new(Egress::default());
        registry.register_collector(Box::new(Arc::clone(&egress)));
        registry.register_collector(Box::new(Arc::clone(&pools)));
        registry.register_collector(Box::new(Arc::clone(&process)));
        let (templates, tally) = (Names::default(), Tally::default());
        Self(Arc::new(Inner { registry, families, templates, pools, process, egress, tally }))
    }

    /// For the decorators of the providers.
    pub fn calls(&self) -> CallMetrics {
        self.0.families.calls.clone()
    }

    /// Counts a create that went well.
    pub fn created(&self, create: &Created<'_>) {
        let inner = &self.0;
        let (template, path) = (inner.templates.label(create.template), create.path.name());
        for (stage, seconds) in create.stages {
            let labels = Stage { stage, path, template: Arc::clone(&template) };
            inner.families.stages.get_or_create(&labels).observe(*seconds);
        }
        let way = Way { path, level: create.level.name() };
        inner.families.creates.get_or_create(&way).observe(create.seconds);
        if let Some(strategy) = inner.pools.strategy_of(create.template).filter(|_| create.level.parts().warm)
        {
            let labels = InPool { template, strategy, path };
            inner.families.pooled.get_or_create(&labels).observe(create.seconds);
        }
        inner.families.created.get_or_create(&Ended { outcome: Outcome::Ok.name(), error: NO_ERROR }).inc();
        inner.tally.created(create.level, buckets::index_of(create.seconds));
    }

    /// Counts a create that went wrong, by the kind of its error.
    pub fn create_ended(&self, outcome: Outcome, error: &'static str) {
        self.0.families.created.get_or_create(&Ended { outcome: outcome.name(), error }).inc();
        self.0.tally.ended(outcome);
    }

    /// Times the first command of a sandbox.
    pub fn first_command(&self, took: Duration) {
        self.0.families.first_command.observe(took.as_secs_f64());
    }

    /// Counts an operation by its outcome (the kind of its error, if it failed), and times it if it went well.
    pub fn operated(&self, operation: Operation, took: Duration, outcome: Result<(), &'static str>) {
        let operation = operation.name();
        if outcome.is_ok() {
            self.0.families.operations.get_or_create(&Of { operation }).observe(took.as_secs_f64());
        }
        let outcome = outcome.err().unwrap_or("ok");
        self.0.families.operated.get_or_create(&OperationEnded { operation, outcome }).inc();
    }

    /// Counts a guest that did not acknowledge the handshake and was destroyed.
    pub fn handshake_failed(&self, during: Operation) {
        self.0.families.handshake_failures.get_or_create(&Of { operation: during.name() }).inc();
        self.0.tally.handshake_failed();
    }

    /// Counts an HTTP request. `route` is the router's pattern, of which there are few.
    pub fn request(&self, method: &'static str, route: &Arc<str>, status: u16, took: Duration) {
        let families = &self.0.families;
        let labels = Request { method, route: Arc::clone(route), status };
        families.requests.get_or_create(&labels).inc();
        let labels = Route { method, route: Arc::clone(route) };
        families.request_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts an alert that began to fire or was resolved, and says how many fire now.
    pub fn alert_turned(&self, rule: &str, state: &'static str, firing: usize) {
        // Rules come from the configuration: as many as somebody wrote there.
        self.0.families.alert_turns.get_or_create(&AlertTurn { rule: rule.into(), state }).inc();
        self.0.families.alerts_firing.set(gauge(firing));
    }

    /// Counts a notice to the webhook: `delivered` or `failed`.
    pub fn told(&self, outcome: &'static str) {
        self.0.families.told.get_or_create(&Told { outcome }).inc();
    }

    /// Counts a gauge that could not be brought up to date.
    pub fn refresh_failed(&self) {
        self.0.families.refresh_failures.inc();
    }

    /// Sets the boot levels' targets on a machine that runs guests so.
    pub fn show_targets(&self, execution: Execution) {
        for level in BootLevel::ALL {
            let target = self.0.families.targets.get_or_create(&AtLevel { level: level.name() });
            target.set(level.target_on(execution).as_secs_f64());
        }
    }

    /// Sets how many sandboxes are in each state. A state that is left out keeps its number: name them all.
    pub fn show_sandboxes(&self, by_state: impl IntoIterator<Item = (&'static str, usize)>) {
        for (state, count) in by_state {
            self.0.families.sandboxes.get_or_create(&InState { state }).set(gauge(count));
        }
    }

    /// Sets how many resources of a kind are owned, and how many are not.
    pub fn show_resources(&self, kind: &'static str, owned: usize, orphaned: usize) {
        self.0.families.owned.get_or_create(&Kind { kind }).set(gauge(owned));
        self.0.families.orphaned.get_or_create(&Kind { kind }).set(gauge(orphaned));
        self.0.tally.orphans(kind, orphaned);
    }

    /// Sets what the pools look like.
    pub fn show_pools(&self, pools: Vec<PoolStatus>) {
        self.0.pools.set(pools);
    }

    /// Sets what each run of a sandbox sent, received and was refused; runs that are left out have ended.
    pub fn show_egress(&self, figures: Vec<EgressFigures>) {
        self.0.egress.set(figures);
    }

    /// Sets what the daemon itself uses.
    pub fn show_process(&self, figures: ProcessFigures) {
        self.0.process.set(figures);
    }

    /// Everything as OpenMetrics text, see [`crate::CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.0.registry);
        text
    }

    /// The numbers that alerts look at; `at` is the time since any fixed moment.
    pub fn sample(&self, at: Duration) -> Sample {
        self.0.tally.sample(at, self.0.pools.counts())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(env!("CARGO_PKG_VERSION"))
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
