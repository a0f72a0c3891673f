//! A control plane with its node and its listeners: for `flames up`, and embedded for the life of one command.

use crate::config::{Alerts, Config};
use crate::e2b;
use crate::places::{Places, make_private_dir};
use crate::providers;
use crate::webhook::Webhook;
use anyhow::{Context, bail};
use flames_api::auth::Trust;
use flames_api::server::{self, Bounds};
use flames_api::{Api, router};
use flames_core::clock::SystemClock;
use flames_core::monitor::AlertRules;
use flames_core::pools::pool_config;
use flames_core::rate::RateLimit;
use flames_core::sandbox::admit::{Limits, Timeout};
use flames_core::sandbox::record::Resources;
use flames_core::sandbox::room::MemoryLimit;
use flames_core::{ApiKey, ApiKeys, ControlPlane, Providers};
use flames_metrics::Metrics;
use flames_node::{LocalNode, MiB, Node, NodeConfig, PoolConfig, TemplateSnapshots};
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    api: Api,
    shutdown: CancellationToken,
    listeners: TaskTracker,
    bounds: Bounds,
    socket: PathBuf,
    _lock: DirLock,
}

/// The right to use a data directory. The kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
struct DirLock(#[expect(dead_code, reason = "held for its lock")] File);

impl Daemon {
    /// Opens the parts over a data directory and serves its unix socket.
    async fn start(
        config: &Config,
        providers: Providers,
        node: LocalNode,
        socket: PathBuf,
        lock: DirLock,
    ) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock);
        let keys = ApiKeys::new(Arc::clone(&providers.state), clock.clone());
        let per_minute = NonZeroU32::new(config.api.requests_per_minute);
        let rate = RateLimit::new(Arc::clone(&providers.cache), clock.clone(), per_minute);
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        let providers = providers.measured(&metrics.calls());
        let node = Arc::new(node);
        let plane = ControlPlane::start_measured(providers, node, clock, limits(config), metrics).await?;
        let api = Api { plane, keys, rate, max_upload_bytes: config.api.max_upload_mib << 20 };
        let daemon = Self {
            api,
            shutdown: CancellationToken::new(),
            listeners: TaskTracker::new(),
            bounds: Bounds { connections_per_client: NonZeroU32::new(config.api.connections_per_client) },
            socket,
            _lock: lock,
        };
        daemon.serve_socket()?;
        Ok(daemon)
    }

    /// Serves clients that can open the socket: its mode lets in this user and root.
    fn serve_socket(&self) -> anyhow::Result<()> {
        let explain = || format!("the socket {} cannot be opened", self.socket.display());
        // Left by a daemon that was killed: the lock says that nobody serves it.
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).with_context(explain)?;
        std::fs::set_permissions(&self.socket, Permissions::from_mode(0o600)).with_context(explain)?;
        let router = router(self.api.clone(), Trust::SocketOwner);
        self.listeners.spawn(server::serve_unix(listener, router, self.shutdown.clone()));
        Ok(())
    }

    /// Serves clients that have an API key. Gives the first key, if this made it.
    pub(crate) async fn serve_tcp(&self, listener: TcpListener) -> anyhow::Result<Option<ApiKey>> {
        let first_key = self.api.keys.ensure_first().await?;
        let router = router(self.api.clone(), Trust::ApiKey);
        self.listeners.spawn(server::serve_tcp(listener, router, self.bounds, self.shutdown.clone()));
        Ok(first_key)
    }

    /// Evaluates the rules of the configuration, and tells the webhook, if there is one.
    async fn watch_alerts(&self, config: &Alerts) -> anyhow::Result<()> {
        if !config.enabled {
            return Ok(());
        }
        let plane = &self.api.plane;
        let rules = config.rules(plane.node().capacity().await.execution);
        let rules = rules.map_err(|mistakes| anyhow::anyhow!("alerts.rules: {mistakes:?}"))?;
        let webhook = Webhook::of(config, plane.monitor().metrics().clone())?;
        let turns = plane.watch_alerts(AlertRules { rules, every: Duration::from_secs(config.every_s) });
        if let Some(webhook) = webhook {
            let shutdown = self.shutdown.clone();
            self.listeners.spawn(async move { shutdown.run_until_cancelled(webhook.follow(turns)).await });
        }
        Ok(())
    }

    /// Serves clients of E2B, who have an API key too.
    pub(crate) fn serve_e2b(&self, listener: e2b::Listener) {
        let history = Arc::new(flames_e2b::History::new(listener.metrics_every()));
        let (plane, shutdown) = (Arc::clone(&self.api.plane), self.shutdown.clone());
        let followed = Arc::clone(&history);
        self.listeners
            .spawn(async move { shutdown.run_until_cancelled(followed.follow(&plane)).await.unwrap_or(()) });
        let router = flames_e2b::router(flames_e2b::E2b {
            history,
            plane: Arc::clone(&self.api.plane),
            keys: self.api.keys.clone(),
            rate: self.api.rate.clone(),
            domain: listener.domain().to_owned(),
            internet: listener.internet(),
        });
        self.listeners.spawn(listener.serve(router, self.bounds, self.shutdown.clone()));
    }

    /// Lets requests end and stops. Sandboxes go on.
    pub(crate) async fn stop(&self) {
        self.shutdown.cancel();
        self.listeners.close();
        self.listeners.wait().await;
        self.api.plane.shutdown().await;
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// The daemon of this machine.
pub(crate) async fn start_machine(config: &Config, places: &Places) -> anyhow::Result<Daemon> {
    for folder in [&places.data, &places.runtime] {
        make_private_dir(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let lock = DirLock::take(&places.data)?;
    reclaim_embedded(config, places).await;
    let providers = providers::open(config, &places.data).await?;
    let node = node(config, places, &places.data, Role::Machine).await?;
    let daemon = Daemon::start(config, providers, node, places.socket(), lock).await?;
    daemon.watch_alerts(&config.alerts).await?;
    Ok(daemon)
}

/// A listener for clients with an API key; `setting` says where another address can be chosen.
pub(crate) async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop who does, or choose another with {setting}")
    })
}

/// A daemon for the life of one command, in a directory of its own.
#[derive(Debug)]
pub(crate) struct Embedded {
    daemon: Daemon,
    directory: tempfile::TempDir,
}

impl Embedded {
    pub(crate) async fn start(config: &Config, places: &Places) -> anyhow::Result<Self> {
        let home = embedded_home(places);
        make_private_dir(&home).with_context(|| format!("{} cannot be made", home.display()))?;
        reclaim_embedded(config, places).await;
        let directory = tempfile::Builder::new().prefix("e").rand_bytes(6).tempdir_in(&home)?;
        let lock = DirLock::take(directory.path())?;
        let node = node(config, places, directory.path(), Role::Command).await?;
        let socket = directory.path().join("s");
        Ok(Self { daemon: Daemon::start(config, Providers::memory(), node, socket, lock).await?, directory })
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.daemon.socket
    }

    /// Destroys what is left in it, and itself.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let node = Arc::clone(self.daemon.api.plane.node());
        self.daemon.stop().await;
        destroy_all(node.as_ref()).await;
        Ok(self.directory.close()?)
    }
}

/// Ends what embedded daemons that were killed have left. Whoever still lives holds its lock.
async fn reclaim_embedded(config: &Config, places: &Places) {
    let Ok(entries) = std::fs::read_dir(embedded_home(places)) else { return };
    for entry in entries.flatten() {
        let directory = entry.path();
        let Ok(_lock) = DirLock::take(&directory) else { continue };
        if let Err(error) = reclaim(config, places, &directory).await {
            tracing::warn!(directory = %directory.display(), %error, "left by a killed command, and not removed");
        }
    }
}

async fn reclaim(config: &Config, places: &Places, directory: &Path) -> anyhow::Result<()> {
    let node = node(config, places, directory, Role::Reclaim).await?;
    node.adopt().await?;
    destroy_all(&node).await;
    node.shutdown().await;
    Ok(std::fs::remove_dir_all(directory)?)
}

async fn destroy_all(node: &dyn Node) {
    for run in node.list().await {
        if let Err(error) = node.destroy(&run.run).await {
            tracing::error!(run = %run.run, %error, "a run was left");
        }
    }
}

fn embedded_home(places: &Places) -> PathBuf {
    places.data.join("embedded")
}

/// What a node is opened for.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// The daemon of this machine: prepares ahead.
    Machine,
    /// One command: uses what is there.
    Command,
    /// To end what another left.
    Reclaim,
}

async fn node(config: &Config, places: &Places, data_dir: &Path, role: Role) -> anyhow::Result<LocalNode> {
    let ready_slots = match role {
        Role::Machine => config.node.ready_slots,
        Role::Command => 1,
        Role::Reclaim => 0,
    };
    let takes_snapshots = matches!(role, Role::Machine) && config.node.template_snapshots;
    let sandbox = &config.sandbox;
    let node = NodeConfig {
        shared_dir: Some(places.data.clone()),
        ready_slots: usize::try_from(ready_slots)?,
        uplink: config.network.uplink(),
        template_snapshots: if takes_snapshots {
            TemplateSnapshots::TakeAfterFirstUse
        } else {
            TemplateSnapshots::UseOnly
        },
        usual_size: (sandbox.default_vcpus, MiB(sandbox.default_memory_mib), MiB(sandbox.default_disk_mib)),
        disk_reserve_bytes: config.node.reserve_disk_mib << 20,
        console_limit_bytes: config.vmm.console_limit_kib << 10,
        kernel_args: config.vmm.kernel_args.clone(),
        extras: config.vmm.extras(),
        boot_deadline: Duration::from_secs(sandbox.boot_deadline_s),
        ..NodeConfig::new(data_dir, &places.assets)
    };
    Ok(LocalNode::open(node, providers::driver(config, &places.data).await?)?)
}

fn limits(config: &Config) -> Limits {
    let sandbox = &config.sandbox;
    Limits {
        default_resources: Resources {
            vcpus: sandbox.default_vcpus,
            memory: MiB(sandbox.default_memory_mib),
            disk: MiB(sandbox.default_disk_mib),
        },
        max_resources: Resources {
            vcpus: sandbox.max_vcpus,
            memory: MiB(sandbox.max_memory_mib),
            disk: MiB(sandbox.max_disk_mib),
        },
        default_timeout: match sandbox.default_timeout_s {
            0 => Timeout::Never,
            seconds => Timeout::After(Duration::from_secs(seconds)),
        },
        max_timeout: Some(sandbox.max_timeout_s).filter(|seconds| *seconds > 0).map(Duration::from_secs),
        default_level: sandbox.default_level.parse().unwrap_or_default(),
        pools: pools(config),
        boot_deadline: Duration::from_secs(sandbox.boot_deadline_s),
        snapshot_deadline: Duration::from_secs(sandbox.snapshot_deadline_s),
        memory: match config.limits.memory_mib {
            None => MemoryLimit::Automatic,
            Some(0) => MemoryLimit::Unlimited,
            Some(mib) => MemoryLimit::Fixed(MiB(mib)),
        },
        retention: Duration::from_secs(u64::from(sandbox.retention_h) * 3600),
        domain: config.api.domain.clone(),
    }
}

/// Those that can be meant: the others were refused when the configuration was read.
fn pools(config: &Config) -> BTreeMap<String, PoolConfig> {
    let pools = config.pools.iter();
    pools.filter_map(|(name, written)| Some((name.clone(), pool_config(name, written).ok()?))).collect()
}

impl DirLock {
    fn take(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("{} cannot be opened", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "another daemon uses {}: stop it, or choose another directory with --data-dir",
                directory.display()
            );
        }
        Ok(Self(file))
    }
}
