//! The families, with the names and the help that a scrape shows.

use crate::buckets;
use crate::labels::{
    AlertTurn, AtLevel, Ended, InPool, InState, Kind, Of, Operation, OperationEnded, Outcome, Request, Route,
    Stage, Told, Way,
};
use flames_provider::decorate::CallMetrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};
use std::sync::atomic::AtomicU64;

pub(crate) type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Debug)]
pub(crate) struct Families {
    pub(crate) stages: Seconds<Stage>,
    pub(crate) creates: Seconds<Way>,
    pub(crate) pooled: Seconds<InPool>,
    pub(crate) targets: Family<AtLevel, Gauge<f64, AtomicU64>>,
    pub(crate) created: Family<Ended, Counter>,
    pub(crate) first_command: Histogram,
    pub(crate) operations: Seconds<Of>,
    pub(crate) operated: Family<OperationEnded, Counter>,
    pub(crate) handshake_failures: Family<Of, Counter>,
    pub(crate) sandboxes: Family<InState, Gauge>,
    pub(crate) owned: Family<Kind, Gauge>,
    pub(crate) orphaned: Family<Kind, Gauge>,
    pub(crate) requests: Family<Request, Counter>,
    pub(crate) request_seconds: Seconds<Route>,
    pub(crate) alert_turns: Family<AlertTurn, Counter>,
    pub(crate) alerts_firing: Gauge,
    pub(crate) told: Family<Told, Counter>,
    pub(crate) refresh_failures: Counter,
    pub(crate) calls: CallMetrics,
}

impl Families {
    /// Registers all of them. What is counted per outcome starts at zero, so that the first increase is seen.
    pub(crate) fn register(registry: &mut Registry, version: &str) -> Self {
        let families = Self {
            stages: Family::new_with_constructor(buckets::seconds),
            creates: Family::new_with_constructor(buckets::seconds),
            pooled: Family::new_with_constructor(buckets::seconds),
            targets: Family::default(),
            created: Family::default(),
            first_command: buckets::seconds(),
            operations: Family::new_with_constructor(buckets::seconds),
            operated: Family::default(),
            handshake_failures: Family::default(),
            sandboxes: Family::default(),
            owned: Family::default(),
            orphaned: Family::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(buckets::seconds),
            alert_turns: Family::default(),
            alerts_firing: Gauge::default(),
            told: Family::default(),
            refresh_failures: Counter::default(),
            calls: CallMetrics::register(registry),
        };
        families.register_creates(registry);
        families.register_host(registry);
        families.register_http(registry);
        families.register_alerts(registry);
        let build = Info::new(vec![("version", version.to_owned())]);
        registry.register("flames_build", "The build that runs", build);
        families.start_at_zero();
        families
    }

    fn register_creates(&self, registry: &mut Registry) {
        let help = "Time of each stage of creates that went well";
        seconds(registry, "flames_create_stage", help, self.stages.clone());
        let help =
            "Time from the request of a create until the sandbox was handed out, of those that went well";
        seconds(registry, "flames_create", help, self.creates.clone());
        let help = "The same of creates that asked a pool, by its strategy; those that found no member have another path";
        seconds(registry, "flames_pool_create", help, self.pooled.clone());
        let help = "Target of each boot level on this machine";
        seconds(registry, "flames_create_target", help, self.targets.clone());
        registry.register("flames_creates", "Creates by outcome and kind of error", self.created.clone());
        let help = "Time from the request of a sandbox's first command to its first output";
        seconds(registry, "flames_first_command", help, self.first_command.clone());
        seconds(registry, "flames_operation", "Time of operations on sandboxes", self.operations.clone());
        registry.register("flames_operations", "Operations on sandboxes by outcome", self.operated.clone());
        let help = "Guests whose agent did not acknowledge the handshake, by what they were made for";
        registry.register("flames_handshake_failures", help, self.handshake_failures.clone());
    }

    fn register_host(&self, registry: &mut Registry) {
        registry.register("flames_sandboxes", "Sandboxes by state", self.sandboxes.clone());
        let help = "Resources on the host that a run or a ready slot owns, by kind";
        registry.register("flames_resources_owned", help, self.owned.clone());
        let help = "Resources on the host that nobody owns, by kind: leaks";
        registry.register("flames_resources_orphaned", help, self.orphaned.clone());
        let help = "Times that a gauge could not be brought up to date";
        registry.register("flames_metrics_refresh_failures", help, self.refresh_failures.clone());
    }

    fn register_http(&self, registry: &mut Registry) {
        let help = "HTTP requests by method, route and status";
        registry.register("flames_http_requests", help, self.requests.clone());
        let help = "Time from an HTTP request to the head of its answer";
        seconds(registry, "flames_http_request", help, self.request_seconds.clone());
    }

    fn register_alerts(&self, registry: &mut Registry) {
        let help = "Alerts that began to fire, and that were resolved, by rule";
        registry.register("flames_alerts", help, self.alert_turns.clone());
        registry.register("flames_alerts_firing", "Alerts that fire now", self.alerts_firing.clone());
        let help = "Notices to the webhook by outcome";
        registry.register("flames_alert_notices", help, self.told.clone());
    }

    fn start_at_zero(&self) {
        let _ = self.created.get_or_create(&Ended { outcome: Outcome::Ok.name(), error: NO_ERROR });
        for operation in [Operation::Create, Operation::Resume] {
            let _ = self.handshake_failures.get_or_create(&Of { operation: operation.name() });
        }
    }
}

/// The `error` of a create that went well.
pub(crate) const NO_ERROR: &str = "none";

fn seconds(registry: &mut Registry, name: &str, help: &str, metric: impl Metric) {
    registry.register_with_unit(name, help, Unit::Seconds, metric);
}
