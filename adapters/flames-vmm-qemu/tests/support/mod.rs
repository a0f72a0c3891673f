//! Real guests for the driver's tests: our kernel, and a tiny root file system that behaves as it is told.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod agent;

use async_trait::async_trait;
use flames_vmm::conformance::{CONSOLE_LIMIT, Factory, Guest};
use flames_vmm::jail::JailConfig;
use flames_vmm::{BootChannel, Disk, DiskAccess, MiB, Network, VmHandle, VmId, VmSpec, VmmDriver};
use flames_vmm_qemu::{QemuConfig, QemuDriver};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

const INIT: &str = include_str!("../guest/init.sh");
const BUSYBOX: &str = "/bin/busybox";

#[derive(Debug)]
pub(crate) struct QemuFactory {
    kernel: PathBuf,
    image: PathBuf,
    /// Before the folder that it is mounted in.
    small_disk: OnceLock<SmallDisk>,
    folder: tempfile::TempDir,
    made: AtomicU32,
}

impl QemuFactory {
    /// `None`, loudly, where something is missing; a failure where that must not be.
    pub(crate) fn find() -> Option<Self> {
        let kernel = assets().join("vmlinux");
        if !kernel.exists() {
            flames_provider::conformance::skip("assets", "build the guest kernel (guest/kernel/build.sh)");
            return None;
        }
        if !runs("qemu-system-x86_64") || !runs("mkfs.erofs") || !Path::new(BUSYBOX).exists() {
            let mend = "install qemu-system-x86, erofs-utils and busybox-static";
            flames_provider::conformance::skip("qemu", mend);
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        Some(Self { kernel, image: image(), folder, made: AtomicU32::new(0), small_disk: OnceLock::new() })
    }

    /// Where VMs are jailed, too.
    pub(crate) fn jailed() -> Option<Self> {
        if let Some(impediment) = flames_vmm::jail::impediment() {
            flames_provider::conformance::skip("root", &impediment);
            return None;
        }
        Self::find()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Ids and control groups of the tests' own, the ids noted where other daemons note theirs.
pub(crate) fn config() -> QemuConfig {
    let jail = JailConfig {
        first_uid: FIRST_UID,
        uids: UIDS,
        parent_cgroup: PARENT_CGROUP.to_owned(),
        // As much as whoever reads their consoles: QEMU drops what is not read in time.
        cpu_weight: 100,
        ..JailConfig::default()
    };
    QemuConfig { jail, ..QemuConfig::default() }
}

pub(crate) const FIRST_UID: u32 = 2_100_000;
pub(crate) const UIDS: u32 = 1000;
pub(crate) const PARENT_CGROUP: &str = "flames-tests-qemu";

#[async_trait]
impl Factory for QemuFactory {
    fn driver(&self) -> Arc<dyn VmmDriver> {
        Arc::new(QemuDriver::new(config()))
    }

    async fn spec(&self, guest: Guest) -> VmSpec {
        let id = format!("vm-{}", self.made.fetch_add(1, Ordering::Relaxed));
        let run_dir = self.folder.path().join(&id);
        std::fs::DirBuilder::new().mode(0o700).create(&run_dir).unwrap();
        let words = ["root=/dev/vda", "rootfstype=erofs", "ro", "init=/init"];
        let behaviour = format!("flames.test={}", guest.name());
        VmSpec {
            id: VmId::parse(id).unwrap(),
            run_dir,
            vcpus: 1,
            memory: MiB(128),
            kernel: self.kernel.clone(),
            kernel_args: words.into_iter().map(str::to_owned).chain([behaviour]).collect(),
            disks: vec![Disk { path: self.image.clone(), access: DiskAccess::ReadOnly }],
            network: Network::None,
            boot_channel: BootChannel { greeting: r#"{"controlToken":"00"}"#.to_owned() },
            console_limit_bytes: CONSOLE_LIMIT,
        }
    }

    /// By the one signal that the first process of a pid namespace does not survive when it comes from outside.
    async fn crash(&self, handle: &VmHandle) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(handle.pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    async fn is_alive(&self, handle: &VmHandle) -> bool {
        // A zombie has no executable any more.
        std::fs::read_link(format!("/proc/{}/exe", handle.pid)).is_ok_and(|exe| exe == handle.executable)
    }

    async fn small_disk(&self) -> Option<PathBuf> {
        let made = SmallDisk::make(self.folder.path().join("small"))?;
        Some(self.small_disk.get_or_init(|| made).0.clone())
    }
}

/// A test that failed leaves VMs, which outlive their daemon as they should.
impl Drop for QemuFactory {
    fn drop(&mut self) {
        flames_vmm::conformance::end_vms_below(self.folder.path());
    }
}

/// A file system of 1 MiB: device states fit, memories do not. Gone when dropped.
#[derive(Debug)]
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, loudly, without root.
    fn make(folder: PathBuf) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            flames_provider::conformance::skip("root", "run as root to mount a small file system");
            return None;
        }
        std::fs::create_dir(&folder).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &folder, "tmpfs", flags, Some(c"size=1m")).unwrap();
        Some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// A network namespace with a TAP in it; gone when dropped.
#[derive(Debug)]
pub(crate) struct Namespace(String);

impl Namespace {
    /// `None`, loudly, without root.
    pub(crate) fn make() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            flames_provider::conformance::skip("root", "run as root to make a network namespace");
            return None;
        }
        let namespace = Self(format!("vmm-qemu-{}", std::process::id()));
        ip(&["netns", "add", &namespace.0]);
        ip(&["-n", &namespace.0, "tuntap", "add", "tap0", "mode", "tap"]);
        Some(namespace)
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

pub(crate) fn assets() -> PathBuf {
    let in_checkout = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/assets");
    std::env::var_os("FLAMES_ASSETS").map_or_else(in_checkout, PathBuf::from)
}

pub(crate) fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// The root file system, built once per content.
fn image() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (INIT, std::fs::metadata(BUSYBOX).unwrap().len()).hash(&mut hasher);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let image = folder.join(format!("test-guest-{:016x}.erofs", hasher.finish()));
    if !image.exists() {
        build(&image, folder);
    }
    image
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
    let unfinished = work.path().join("image");
    let made = Command::new("mkfs.erofs").arg(&unfinished).arg(&root).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    // Tests run in parallel: whoever is last replaces the same content.
    std::fs::rename(unfinished, image).unwrap();
}
