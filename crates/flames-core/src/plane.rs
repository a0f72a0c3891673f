//! The control plane of one installation: what the API calls.

use crate::activity::Activity;
use crate::clock::Clock;
use crate::deadlines::Deadlines;
use crate::idempotency::Repeats;
use crate::late::Late;
use crate::monitor::Monitor;
use crate::ports::Ports;
use crate::providers::Providers;
use crate::sandbox::admit::Limits;
use crate::sandbox::record::Records;
use crate::sandbox::room::Room;
use crate::snapshot::in_use::InUse;
use crate::snapshot::record::SnapshotRecords;
use crate::template_settings::SettingsInForce;
use crate::token::TokenKey;
use flames_metrics::Metrics;
use flames_node::Node;
use flames_provider::Result;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owns every sandbox: brings it through its states and ends it in time.
///
/// Its records are the truth; what it holds in memory is rebuilt from them at a start.
#[derive(Debug)]
pub struct ControlPlane {
    pub(crate) records: Records,
    pub(crate) node: Arc<dyn Node>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    pub(crate) tokens: TokenKey,
    pub(crate) providers: Providers,
    pub(crate) repeats: Repeats,
    pub(crate) ports: Ports,
    pub(crate) routes_turn: tokio::sync::Mutex<()>,
    pub(crate) snapshot_records: SnapshotRecords,
    pub(crate) snapshots_in_use: InUse,
    pub(crate) room: Room,
    pub(crate) template_settings: SettingsInForce,
    pub(crate) deadlines: Deadlines,
    pub(crate) late: Late,
    pub(crate) activity: Arc<Activity>,
    pub(crate) monitor: Monitor,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl ControlPlane {
    /// Connects the parts, brings the records in line with what lives on the host, and starts the
    /// reconcilers.
    ///
    /// # Errors
    /// What a provider or the node answers.
    pub async fn start(
        providers: Providers,
        node: Arc<dyn Node>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Arc<Self>> {
        Self::start_measured(providers, node, clock, limits, Metrics::default()).await
    }

    /// The same, counting and timing into `metrics`.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn start_measured(
        providers: Providers,
        node: Arc<dyn Node>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        metrics: Metrics,
    ) -> Result<Arc<Self>> {
        let tokens = TokenKey::load_or_create(&providers.state).await?;
        let activity = Arc::new(Activity::new(Arc::clone(&clock)));
        let plane = Arc::new(Self {
            records: Records::new(Arc::clone(&providers.state)),
            snapshot_records: SnapshotRecords::new(Arc::clone(&providers.state)),
            snapshots_in_use: InUse::default(),
            room: Room::default(),
            repeats: Repeats::new(Arc::clone(&providers.cache)),
            ports: Ports::default(),
            routes_turn: tokio::sync::Mutex::default(),
            providers,
            node,
            clock,
            limits,
            tokens,
            template_settings: SettingsInForce::default(),
            deadlines: Deadlines::default(),
            late: Late::default(),
            activity,
            monitor: Monitor::new(metrics),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        });
        plane.reconcile_at_start().await?;
        let capacity = plane.node.capacity().await;
        plane.room.set_limit(plane.limits.memory, &capacity);
        plane.monitor.metrics().show_targets(capacity.execution);
        plane.read_template_settings().await?;
        plane.apply_pools().await?;
        plane.show_pools().await;
        plane.spawn_reconcilers();
        plane.spawn_worker()?;
        Ok(plane)
    }

    /// The host that runs the sandboxes.
    pub fn node(&self) -> &Arc<dyn Node> {
        &self.node
    }

    /// What a create may ask for.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Ends the reconcilers, waits for creates and destroys that are under way, and gives back what was
    /// prepared ahead. Sandboxes go on: the next daemon adopts them.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.node.shutdown().await;
    }
}
