//! Real guests for the driver's tests: a kernel for the host, and a tiny root file system that behaves as its
//! greeting says.
//!
//! The kernel is one that boots also where KVM emulates guest kernels ([`TestKernel`]). There a boot takes half a
//! minute, so one guest of each kind of machine is booted and every test continues its snapshot: all of the driver is
//! used but the kernel's boot.
#![allow(dead_code, reason = "each test binary uses its part")]

use async_trait::async_trait;
use flames_provider::conformance::skip;
use flames_testkit::TestKernel;
use flames_vmm::conformance::{CONSOLE_LIMIT, Factory, Guest, end_vms_below, eventually};
use flames_vmm::faults::Program;
use flames_vmm::jail::{JailConfig, JailMode};
use flames_vmm::{
    BootChannel, Disk, DiskAccess, MacAddress, MiB, Network, PrepareFor, SnapshotParts, StopDeadlines,
    VmHandle, VmId, VmSpec, VmmDriver,
};
use flames_vmm_firecracker::{
    BalloonConfig, FirecrackerConfig, FirecrackerDriver, HugePages, MmdsConfig, RestoreMemory,
};
use serde_json::{Value, json};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

const INIT: &str = include_str!("../guest/init.sh");
const BUSYBOX: &str = "/bin/busybox";

#[derive(Debug)]
pub(crate) struct FirecrackerFactory {
    kernel: PathBuf,
    image: PathBuf,
    template: SnapshotParts,
    network: Option<Namespace>,
    huge_pages: Option<HugePagesOfTheHost>,
    config: FirecrackerConfig,
    small_disk: OnceLock<SmallDisk>,
    folder: tempfile::TempDir,
    made: AtomicU32,
}

impl FirecrackerFactory {
    /// `None`, loudly, where something is missing; a failure where that must not be.
    pub(crate) async fn jailed() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("root", "run as root: VMs are jailed");
            return None;
        }
        Self::find(JailMode::Jailed).await
    }

    /// Whose snapshots hold what was written since the last one, laid over it.
    pub(crate) async fn with_tracked_pages() -> Option<Self> {
        let mut factory = Self::jailed().await?;
        factory.config.track_dirty_pages = true;
        Some(factory)
    }

    /// Whose guests' memory comes from a page-fault handler.
    pub(crate) async fn with_page_faults() -> Option<Self> {
        Self::jailed().await?.faulting().await
    }

    /// The same, and guests have a balloon.
    pub(crate) async fn with_page_faults_and_devices() -> Option<Self> {
        Self::with_devices().await?.faulting().await
    }

    /// Whose guests' memory consists of huge pages; they come from a page-fault handler.
    pub(crate) async fn with_huge_pages() -> Option<Self> {
        let mut factory = Self::jailed().await?.faulting().await?;
        factory.huge_pages = Some(HugePagesOfTheHost::at_least(HUGE_PAGES)?);
        factory.config.huge_pages = Some(HugePages::TwoMegabytes);
        factory.template = Cache::of(TestKernel::find()?).template(Machine::HugePages).await;
        Some(factory)
    }

    async fn faulting(mut self) -> Option<Self> {
        let factory = &mut self;
        let own = std::env::current_exe().unwrap();
        let path = own.ancestors().nth(2).unwrap().join("examples/page-faults");
        assert!(path.exists(), "build it: cargo build -p flames-vmm-firecracker --examples");
        factory.config.memory = RestoreMemory::Userfaultfd;
        factory.config.page_faults = Program { path, arguments: Vec::new() };
        if let Err(error) = FirecrackerDriver::new(factory.config.clone()).version().await {
            skip("firecracker", &error.to_string());
            return None;
        }
        Some(self)
    }

    /// Whose guests have a network interface with the metadata service behind it, and a balloon with statistics.
    pub(crate) async fn with_devices() -> Option<Self> {
        let mut factory = Self::jailed().await?;
        let network = Namespace::make();
        factory.config = with_devices(factory.config.clone());
        factory.template = Cache::of(TestKernel::find()?).template(Machine::Devices(&network)).await;
        factory.network = Some(network);
        Some(factory)
    }

    pub(crate) async fn find(jail: JailMode) -> Option<Self> {
        let kernel = TestKernel::find()?;
        let config = config(jail);
        if let Err(error) = FirecrackerDriver::new(config.clone()).version().await {
            skip("firecracker", &error.to_string());
            return None;
        }
        if Command::new("mkfs.erofs").arg("--version").output().is_err() || !Path::new(BUSYBOX).exists() {
            skip("firecracker", "install erofs-utils and busybox-static");
            return None;
        }
        let cache = Cache::of(kernel);
        let (kernel, image) = (cache.kernel(), cache.image());
        let template = cache.template(Machine::Plain).await;
        let folder = tempfile::tempdir().unwrap();
        Some(Self {
            kernel,
            image,
            template,
            network: None,
            huge_pages: None,
            config,
            small_disk: OnceLock::new(),
            folder,
            made: AtomicU32::new(0),
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> &FirecrackerConfig {
        &self.config
    }

    /// The snapshot of a guest that waits for its greeting.
    pub(crate) fn template(&self) -> SnapshotParts {
        self.template.clone()
    }

    /// A driver that differs in its settings.
    pub(crate) fn driver_with(&self, config: FirecrackerConfig) -> FirecrackerDriver {
        FirecrackerDriver::new(config).standing_in(self.kernel.clone(), self.template.clone())
    }
}

pub(crate) const PARENT_CGROUP: &str = "flames-tests";
pub(crate) const FIRST_UID: u32 = 2_000_000;
pub(crate) const UIDS: u32 = 1000;

/// A test that failed leaves VMs, which outlive their daemon as they should.
impl Drop for FirecrackerFactory {
    fn drop(&mut self) {
        end_vms_below(self.folder.path());
    }
}

/// What the metadata service answers.
pub(crate) const REGION: &str = "beside-the-sea";

fn with_devices(config: FirecrackerConfig) -> FirecrackerConfig {
    let contents = json!({ "region": REGION }).as_object().unwrap().clone();
    FirecrackerConfig {
        mmds: Some(MmdsConfig { contents }),
        balloon: Some(BalloonConfig { statistics_interval_s: 1, free_page_reporting: true }),
        ..config
    }
}

/// Two guests of 64 MiB, and some.
const HUGE_PAGES: u64 = 72;

/// Huge pages of the host, reserved for a test; gone when dropped.
#[derive(Debug)]
struct HugePagesOfTheHost {
    before: String,
}

impl HugePagesOfTheHost {
    const COUNT: &str = "/proc/sys/vm/nr_hugepages";

    /// `None`, loudly, where they would take the memory that others need.
    fn at_least(count: u64) -> Option<Self> {
        let number = |text: &str| text.split_whitespace().find_map(|word| word.parse::<u64>().ok());
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
        let of =
            |name: &str| memory.lines().find(|line| line.starts_with(name)).and_then(number).unwrap_or(0);
        let wanted_kib = count * 2048;
        if of("Hugepagesize:") != 2048 || of("MemAvailable:") < 8 * wanted_kib {
            skip("firecracker", "huge pages of 2 MiB, and eight times the memory that they take");
            return None;
        }
        let before = std::fs::read_to_string(Self::COUNT).unwrap();
        let reserved = Self { before: before.trim().to_owned() };
        let all = number(&before).unwrap() + count;
        let _refused = std::fs::write(Self::COUNT, all.to_string());
        if number(&std::fs::read_to_string(Self::COUNT).unwrap()) != Some(all) {
            skip("firecracker", "the kernel has no huge pages left: free some memory");
            return None;
        }
        Some(reserved)
    }
}

impl Drop for HugePagesOfTheHost {
    fn drop(&mut self) {
        std::fs::write(Self::COUNT, &self.before).unwrap();
    }
}

/// The machines of which a snapshot is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Machine<'a> {
    Plain,
    /// With a network interface, the metadata service and a balloon.
    Devices(&'a Namespace),
    HugePages,
}

impl Machine<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Devices(_) => "devices",
            Self::HugePages => "huge-pages",
        }
    }

    fn config(self) -> FirecrackerConfig {
        let config = config(JailMode::NoneInsecure);
        match self {
            Self::Plain => config,
            Self::Devices(_) => with_devices(config),
            Self::HugePages => FirecrackerConfig { huge_pages: Some(HugePages::TwoMegabytes), ..config },
        }
    }

    fn of(self, spec: VmSpec) -> VmSpec {
        match self {
            Self::Plain | Self::HugePages => spec,
            // Free pages are reported as long as 128 MiB are free.
            Self::Devices(namespace) => VmSpec { network: namespace.network(), memory: MiB(256), ..spec },
        }
    }
}

/// Ids of a range of the tests' own, noted where other daemons note theirs.
fn config(mode: JailMode) -> FirecrackerConfig {
    let jail = JailConfig {
        mode,
        first_uid: FIRST_UID,
        uids: UIDS,
        parent_cgroup: PARENT_CGROUP.to_owned(),
        // Or the suite's deadlines would measure what else runs on the host.
        cpu_weight: 10_000,
        ..JailConfig::default()
    };
    FirecrackerConfig { jail, kernel_args: TestKernel::ARGS.map(str::to_owned).into(), ..Default::default() }
}

#[async_trait]
impl Factory for FirecrackerFactory {
    fn driver(&self) -> Arc<dyn VmmDriver> {
        Arc::new(self.driver_with(self.config.clone()))
    }

    async fn spec(&self, guest: Guest) -> VmSpec {
        // Control groups are named after it: the same for all tests of the host.
        let id = format!("t{}-{}", std::process::id(), self.made.fetch_add(1, Ordering::Relaxed));
        let spec = spec(&id, self.folder.path(), &self.kernel, &self.image, guest.name());
        match &self.network {
            Some(namespace) => Machine::Devices(namespace).of(spec),
            None => spec,
        }
    }

    async fn crash(&self, handle: &VmHandle) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(handle.pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::SEGV).unwrap();
    }

    async fn is_alive(&self, handle: &VmHandle) -> bool {
        // A zombie has no executable any more.
        std::fs::read_link(format!("/proc/{}/exe", handle.pid)).is_ok_and(|exe| exe == handle.executable)
    }

    async fn small_disk(&self) -> Option<PathBuf> {
        let made = SmallDisk::make(self.folder.path().join("small"));
        Some(self.small_disk.get_or_init(|| made).0.clone())
    }
}

/// A file system of 1 MiB: device states fit, memories do not. Gone when dropped.
#[derive(Debug)]
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn make(folder: PathBuf) -> Self {
        std::fs::create_dir(&folder).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &folder, "tmpfs", flags, Some(c"size=1m")).unwrap();
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

fn spec(id: &str, folder: &Path, kernel: &Path, image: &Path, behaviour: &str) -> VmSpec {
    let run_dir = folder.join(id);
    std::fs::DirBuilder::new().mode(0o700).create(&run_dir).unwrap();
    VmSpec {
        id: VmId::parse(id).unwrap(),
        run_dir,
        vcpus: 1,
        memory: MiB(64),
        kernel: kernel.to_owned(),
        kernel_args: ["root=/dev/vda", "rootfstype=erofs", "ro", "init=/init"].map(str::to_owned).into(),
        disks: vec![Disk { path: image.to_owned(), access: DiskAccess::ReadOnly }],
        network: Network::None,
        boot_channel: BootChannel { greeting: format!(r#"{{"controlToken":"00","test":"{behaviour}"}}"#) },
        console_limit_bytes: CONSOLE_LIMIT,
    }
}

/// What tests make once, and keep for the tests that come after: each test may be a process of its own.
struct Cache {
    kernel: TestKernel,
    folder: PathBuf,
    _lock: File,
}

impl Cache {
    /// Held by one process at a time.
    fn of(kernel: TestKernel) -> Self {
        let said = Command::new("firecracker").arg("--version").output().unwrap().stdout;
        // The first line: it logs the time of its end after that.
        let version = said.split(|byte| *byte == b'\n').next().unwrap();
        let mut hasher = DefaultHasher::new();
        (INIT, TestKernel::ARGS, version, std::fs::metadata(kernel.packed()).unwrap().len())
            .hash(&mut hasher);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fc-{:016x}", hasher.finish()));
        std::fs::create_dir_all(&folder).unwrap();
        let lock = File::create(folder.join("lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        Self { kernel, folder, _lock: lock }
    }

    fn kernel(&self) -> PathBuf {
        self.made("vmlinux", |unfinished| self.kernel.unpack(unfinished).unwrap())
    }

    fn image(&self) -> PathBuf {
        self.made("guest.erofs", |unfinished| build(unfinished, &self.folder))
    }

    fn made(&self, name: &str, make: impl FnOnce(&Path)) -> PathBuf {
        let file = self.folder.join(name);
        if !file.exists() {
            let unfinished = self.folder.join(format!("{name}.new"));
            make(&unfinished);
            std::fs::rename(unfinished, &file).unwrap();
        }
        file
    }

    /// The snapshot of a guest that waits for its greeting.
    async fn template(&self, machine: Machine<'_>) -> SnapshotParts {
        let folder = self.folder.join(machine.name());
        let stored = folder.join("parts.json");
        if !stored.exists() {
            let _half = std::fs::remove_dir_all(&folder);
            std::fs::create_dir(&folder).unwrap();
            let parts = boot_and_snapshot(machine, &self.kernel(), &self.image(), &folder).await;
            std::fs::write(&stored, serde_json::to_vec(&parts).unwrap()).unwrap();
        }
        serde_json::from_slice(&std::fs::read(&stored).unwrap()).unwrap()
    }
}

/// Through the driver alone: boot, ready, pause, snapshot, stop.
async fn boot_and_snapshot(machine: Machine<'_>, kernel: &Path, image: &Path, into: &Path) -> SnapshotParts {
    let folder = tempfile::tempdir().unwrap();
    let driver = FirecrackerDriver::new(machine.config());
    let spec = spec("template", folder.path(), kernel, image, "template");
    let spec = machine.of(spec);
    let vm = driver.prepare(spec, PrepareFor::Boot).await.unwrap().boot().await.unwrap();
    let (vm, _ready) = vm.ready().await.unwrap();
    vm.pause().await.unwrap();
    let parts = vm.snapshot(into).await.unwrap();
    vm.stop(StopDeadlines::KILL).await.unwrap();
    parts
}

fn build(image: &Path, folder: &Path) {
    let work = tempfile::tempdir_in(folder).unwrap();
    let root = work.path().join("root");
    for name in ["bin", "dev", "proc", "sys"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    std::fs::write(root.join("init"), INIT).unwrap();
    std::fs::set_permissions(root.join("init"), PermissionsExt::from_mode(0o755)).unwrap();
    let made = Command::new("mkfs.erofs").arg(image).arg(&root).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// One request to a Firecracker, over its API socket: the status and what it answered, `null` for nothing.
pub(crate) fn api(run_dir: &Path, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut socket = UnixStream::connect(run_dir.join("api.sock")).unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    write!(socket, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
        .unwrap();
    let mut answer = BufReader::new(socket);
    let mut head = Vec::new();
    while head.last().is_none_or(|line: &String| !line.is_empty()) {
        let mut line = String::new();
        answer.read_line(&mut line).unwrap();
        head.push(line.trim_end().to_owned());
    }
    let status = head[0].split(' ').nth(1).unwrap().parse().unwrap();
    let length =
        head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut text = vec![0; length.unwrap_or(0)];
    answer.read_exact(&mut text).unwrap();
    (status, serde_json::from_slice(&text).unwrap_or_default())
}

/// Asks a guest for memory, and waits until its balloon has as much.
pub(crate) async fn inflate(spec: &VmSpec, amount_mib: u64) {
    let (status, refusal) = api(&spec.run_dir, "PATCH", "/balloon", &json!({ "amount_mib": amount_mib }));
    assert_eq!(status, 204, "{refusal}");
    let actual = || api(&spec.run_dir, "GET", "/balloon/statistics", &Value::Null).1["actual_mib"].clone();
    eventually("the balloon has its size", async || actual() == amount_mib).await;
}

/// A network namespace with a TAP in it; gone when dropped.
#[derive(Debug)]
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn make() -> Self {
        let namespace = Self(format!("vmm-fc-{}", std::process::id()));
        ip(&["netns", "add", &namespace.0]);
        ip(&["-n", &namespace.0, "tuntap", "add", "tap0", "mode", "tap"]);
        namespace
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    pub(crate) fn network(&self) -> Network {
        Network::Tap { netns: self.path(), tap: "tap0".into(), mac: MacAddress([6, 0, 0xac, 0x10, 0, 2]) }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}
