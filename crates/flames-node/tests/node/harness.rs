//! A node of one's own in a temporary directory, and what must be left of it: nothing.

use crate::fake_agent::{Agent, FakeWithAgent, Heard};
use flames_node::{
    AGENT_PORT, AccessToken, BootLevel, CreateVm, Dial, EgressPolicy, FailurePoint, GuestClient, GuestStream,
    Identity, LeakKind, LocalNode, MiB, NetworkMode, Node, NodeConfig, ProcessEvent, Result, StartFrom,
    StartProcess, TemplateName, TemplateSnapshots, VmId,
};
use flames_provider::conformance;
use flames_vmm::VmmDriver;
use flames_vmm::fake::FakeWorld;
use flames_vmm_qemu::{QemuConfig, QemuDriver};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A node and the directory it lives in.
pub(crate) struct Home {
    pub(crate) node: LocalNode,
    pub(crate) config: NodeConfig,
    pub(crate) root: tempfile::TempDir,
}

impl Home {
    /// A node without root over a fake VMM, with assets that are empty files.
    pub(crate) fn fake(world: &FakeWorld, agent: Agent, failure: FailurePoint) -> Self {
        let root = tempfile::tempdir().unwrap();
        let assets = root.path().join("assets");
        std::fs::create_dir_all(assets.join("images")).unwrap();
        for file in ["vmlinux", "agent.erofs", "images/mini.erofs"] {
            std::fs::write(assets.join(file), "").unwrap();
        }
        let mut config = NodeConfig::new(root.path().join("data"), assets);
        config.network = NetworkMode::User;
        config.failure = failure;
        Self::open(root, config, FakeWithAgent::new(world, agent))
    }

    /// The same, and what its agents were told.
    pub(crate) fn fake_heard(world: &FakeWorld, agent: Agent) -> (Self, Heard) {
        let driver = FakeWithAgent::new(world, agent);
        let heard = driver.heard();
        (Self::fake(world, agent, FailurePoint::none()).restarted(driver), heard)
    }

    /// A node with QEMU, or `None` (said loudly) where something is missing.
    pub(crate) fn real(network: NetworkMode, failure: FailurePoint) -> Option<Self> {
        let assets = real_assets()?;
        if network == NetworkMode::Namespaces && !is_root() {
            conformance::skip("root", "run as root");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        let mut config = NodeConfig::new(root.path().join("data"), assets);
        config.network = network;
        config.failure = failure;
        Some(Self::open(root, config, qemu()))
    }

    fn open(root: tempfile::TempDir, config: NodeConfig, driver: Arc<dyn VmmDriver>) -> Self {
        let node = LocalNode::open(config.clone(), driver).unwrap();
        Self { node, config, root }
    }

    /// The same node with another daemon: what the first one had in memory is forgotten. VMs go on.
    pub(crate) fn restarted(self, driver: Arc<dyn VmmDriver>) -> Self {
        let Self { node, config, root } = self;
        drop(node);
        Self::open(root, config, driver)
    }

    /// The same, with a daemon that takes snapshots of templates.
    pub(crate) fn taking_template_snapshots(mut self, driver: Arc<dyn VmmDriver>) -> Self {
        self.config.template_snapshots = TemplateSnapshots::TakeAfterFirstUse;
        self.restarted(driver)
    }

    /// A client of a run's agent with a token of one's own choice.
    pub(crate) fn guest_with_token(&self, run: &VmId, token: AccessToken) -> GuestClient {
        GuestClient::new(Arc::new(Direct { node: self.node.clone(), run: run.clone() }), token)
    }

    /// The node keeps the control token in the run's record.
    pub(crate) fn control_token(&self, run: &VmId) -> String {
        let record = std::fs::read(self.root.path().join(format!("data/vms/{run}/run.json"))).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        record["control_token"].as_str().unwrap().to_owned()
    }

    /// Ends everything and checks that nothing at all is left.
    pub(crate) async fn close(self) {
        for run in self.node.list().await {
            self.node.destroy(&run.run).await.unwrap();
        }
        self.node.shutdown().await;
        assert_nothing_left(&self.node, self.root.path()).await;
    }
}

/// Connections to a run's agent that are not the node's own.
#[derive(Debug)]
struct Direct {
    node: LocalNode,
    run: VmId,
}

#[async_trait::async_trait]
impl Dial for Direct {
    async fn dial(&self) -> Result<GuestStream> {
        self.node.connect(&self.run, AGENT_PORT).await
    }
}

pub(crate) fn qemu() -> Arc<dyn VmmDriver> {
    Arc::new(QemuDriver::new(QemuConfig::default()))
}

fn real_assets() -> Option<PathBuf> {
    let Some(assets) = std::env::var_os("FLAMES_ASSETS").map(PathBuf::from) else {
        conformance::skip("assets", "set FLAMES_ASSETS to the folder that `make assets` fills");
        return None;
    };
    if std::process::Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        conformance::skip("qemu", "install qemu-system-x86");
        return None;
    }
    Some(assets)
}

pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// A command of a shell.
pub(crate) fn shell(command: &str) -> StartProcess {
    StartProcess { command: "/bin/sh".into(), args: vec!["-c".into(), command.into()], ..Default::default() }
}

/// What a command of a shell writes, to both.
pub(crate) async fn output(guest: &GuestClient, command: &str) -> String {
    let mut events = guest.start(&shell(command)).await.unwrap();
    let mut text = Vec::new();
    while let Some(event) = events.next().await {
        if let ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) = event.unwrap() {
            text.extend(bytes);
        }
    }
    String::from_utf8(text).unwrap()
}

/// A create with usual values.
pub(crate) fn request(run: &str) -> CreateVm {
    CreateVm {
        run: VmId::parse(run).unwrap(),
        hostname: "i0test".into(),
        from: StartFrom::Template(TemplateName::parse("mini").unwrap()),
        level: BootLevel::default(),
        identity: Identity::New,
        vcpus: 1,
        memory: MiB(256),
        disk: MiB(256),
        env: Some(BTreeMap::from([("GREETING".into(), "hello".into())])),
        access_token: AccessToken::new("0123456789abcdef"),
        default_user: Some("root".into()),
        default_workdir: None,
        network: EgressPolicy::default(),
        boot_deadline: Duration::from_secs(20),
    }
}

/// No resource of any kind, owned or not, and no file in the run directories.
pub(crate) async fn assert_nothing_left(node: &LocalNode, root: &Path) {
    for leak in node.leaks().await.unwrap() {
        assert_eq!((leak.owned, leak.orphaned), (0, 0), "{leak:?}");
    }
    let left: Vec<_> = std::fs::read_dir(root.join("data/vms")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// How many of a kind are owned and orphaned.
pub(crate) async fn count(node: &LocalNode, kind: LeakKind) -> (usize, usize) {
    let leaks = node.leaks().await.unwrap();
    let leak = leaks.iter().find(|leak| leak.kind == kind).unwrap();
    (leak.owned, leak.orphaned)
}
