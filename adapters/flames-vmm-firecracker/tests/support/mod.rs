//! Real guests for the driver's tests: a kernel for the host, and a tiny root file system that behaves as its
//! greeting says.
//!
//! `FLAMES_FC_TESTBED` names a folder with `vmlinux-6.1-emulated-kvm.xz`, a kernel that boots also where KVM
//! emulates guest kernels. There a boot takes half a minute, so one guest is booted and every test continues
//! its snapshot: all of the driver is used but the kernel's boot.
#![allow(dead_code, reason = "each test binary uses its part")]

use async_trait::async_trait;
use flames_provider::conformance::skip;
use flames_vmm::conformance::{CONSOLE_LIMIT, Factory, Guest, end_vms_below};
use flames_vmm::faults::Program;
use flames_vmm::jail::{JailConfig, JailMode};
use flames_vmm::{
    BootChannel, Disk, DiskAccess, MiB, Network, PrepareFor, SnapshotParts, StopDeadlines, VmHandle, VmId,
    VmSpec, VmmDriver,
};
use flames_vmm_firecracker::{FirecrackerConfig, FirecrackerDriver, RestoreMemory};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

const INIT: &str = include_str!("../guest/init.sh");
const BUSYBOX: &str = "/bin/busybox";
const KERNEL: &str = "vmlinux-6.1-emulated-kvm.xz";

/// What the testbed's kernel wants on a host that emulates it. Its guest saves no AVX state, and so glibc must
/// use none.
const KERNEL_ARGS: [&str; 10] = [
    "lpj=10000000",
    "tsc=reliable",
    "no-kvmapf",
    "no-steal-acc",
    "mitigations=off",
    "noxsave",
    "highres=off",
    "clearcpuid=308,295,141,154,288,298,158,306,515,151,59,114,534,145,297,580",
    "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-AVX,-AVX512F,-AVX512VL,-AVX_Fast_Unaligned_Load,-ERMS,-XSAVE,-XSAVEC",
    "panic=1",
];

#[derive(Debug)]
pub(crate) struct FirecrackerFactory {
    kernel: PathBuf,
    image: PathBuf,
    template: SnapshotParts,
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
        let mut factory = Self::jailed().await?;
        let own = std::env::current_exe().unwrap();
        let path = own.ancestors().nth(2).unwrap().join("examples/page-faults");
        assert!(path.exists(), "build it: cargo build -p flames-vmm-firecracker --examples");
        factory.config.memory = RestoreMemory::Userfaultfd;
        factory.config.page_faults = Program { path, arguments: Vec::new() };
        if let Err(error) = FirecrackerDriver::new(factory.config.clone()).version().await {
            skip("firecracker", &error.to_string());
            return None;
        }
        Some(factory)
    }

    pub(crate) async fn find(jail: JailMode) -> Option<Self> {
        let testbed = std::env::var_os("FLAMES_FC_TESTBED").map(|folder| PathBuf::from(folder).join(KERNEL));
        let Some(packed) = testbed.filter(|packed| packed.exists()) else {
            skip("firecracker", "set FLAMES_FC_TESTBED to the folder of the test kernel");
            return None;
        };
        let config = config(jail);
        if let Err(error) = FirecrackerDriver::new(config.clone()).version().await {
            skip("firecracker", &error.to_string());
            return None;
        }
        if Command::new("mkfs.erofs").arg("--version").output().is_err() || !Path::new(BUSYBOX).exists() {
            skip("firecracker", "install erofs-utils and busybox-static");
            return None;
        }
        let cache = Cache::of(&packed);
        let (kernel, image) = (cache.kernel(&packed), cache.image());
        let template = cache.template(&kernel, &image).await;
        let folder = tempfile::tempdir().unwrap();
        Some(Self {
            kernel,
            image,
            template,
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
    FirecrackerConfig { jail, kernel_args: KERNEL_ARGS.map(str::to_owned).into(), ..Default::default() }
}

#[async_trait]
impl Factory for FirecrackerFactory {
    fn driver(&self) -> Arc<dyn VmmDriver> {
        Arc::new(self.driver_with(self.config.clone()))
    }

    async fn spec(&self, guest: Guest) -> VmSpec {
        // Control groups are named after it: the same for all tests of the host.
        let id = format!("t{}-{}", std::process::id(), self.made.fetch_add(1, Ordering::Relaxed));
        spec(&id, self.folder.path(), &self.kernel, &self.image, guest.name())
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
    folder: PathBuf,
    _lock: File,
}

impl Cache {
    /// Held by one process at a time.
    fn of(packed: &Path) -> Self {
        let said = Command::new("firecracker").arg("--version").output().unwrap().stdout;
        // The first line: it logs the time of its end after that.
        let version = said.split(|byte| *byte == b'\n').next().unwrap();
        let mut hasher = DefaultHasher::new();
        (INIT, KERNEL_ARGS, version, std::fs::metadata(packed).unwrap().len()).hash(&mut hasher);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fc-{:016x}", hasher.finish()));
        std::fs::create_dir_all(&folder).unwrap();
        let lock = File::create(folder.join("lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        Self { folder, _lock: lock }
    }

    fn kernel(&self, packed: &Path) -> PathBuf {
        self.made("vmlinux", |unfinished| {
            let out = File::create(unfinished).unwrap();
            assert!(Command::new("xz").arg("-dc").arg(packed).stdout(out).status().unwrap().success());
        })
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
    async fn template(&self, kernel: &Path, image: &Path) -> SnapshotParts {
        let folder = self.folder.join("template");
        let stored = folder.join("parts.json");
        if !stored.exists() {
            let _half = std::fs::remove_dir_all(&folder);
            std::fs::create_dir(&folder).unwrap();
            let parts = boot_and_snapshot(kernel, image, &folder).await;
            std::fs::write(&stored, serde_json::to_vec(&parts).unwrap()).unwrap();
        }
        serde_json::from_slice(&std::fs::read(&stored).unwrap()).unwrap()
    }
}

/// Through the driver alone: boot, ready, pause, snapshot, stop.
async fn boot_and_snapshot(kernel: &Path, image: &Path, into: &Path) -> SnapshotParts {
    let folder = tempfile::tempdir().unwrap();
    let driver = FirecrackerDriver::new(config(JailMode::NoneInsecure));
    let spec = spec("template", folder.path(), kernel, image, "template");
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
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}
