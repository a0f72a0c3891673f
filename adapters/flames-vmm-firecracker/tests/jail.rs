//! What a jailed Firecracker is, as seen from outside, and what is refused before one is started.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flames_vmm::conformance::{Factory, Guest};
use flames_vmm::{
    ErrorKind, ExitCause, MacAddress, Network, PrepareFor, Retry, RunningVm, StopDeadlines, VmSpec, VmmDriver,
};
use flames_vmm_firecracker::{FirecrackerConfig, FirecrackerDriver, JailMode, JailerConfig};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use support::{FirecrackerFactory, Namespace};

const FIRST_UID: u32 = 2_000_000;
const NO_CAPABILITY: &str = "0000000000000000";

#[tokio::test]
async fn a_jailed_vmm_is_nobody_in_a_world_of_its_own() {
    let Some(factory) = FirecrackerFactory::jailed().await else { return };
    // What a careless parent left open, without close-on-exec.
    let left_open = std::fs::File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    let (spec, vm) = boot(&factory, factory.spec(Guest::Ready).await).await;
    let process = Process(vm.handle().pid);

    is_nobody(&process);
    is_in_its_own_namespaces(&process);
    sees_only_its_cage(&process, &spec);
    has_inherited_nothing(&process);
    is_limited(&process, &spec);
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

fn is_nobody(process: &Process) {
    let uid = process.uid();
    assert!((FIRST_UID..FIRST_UID + 1000).contains(&uid), "{uid}");
    for name in ["Uid", "Gid"] {
        assert_eq!(process.status(name), [uid; 4].map(|id| id.to_string()).join("\t"));
    }
    assert_eq!(process.status("Groups"), "");
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(process.status(name), NO_CAPABILITY, "{name}");
    }
    assert_eq!(process.status("NoNewPrivs"), "1");
    assert_eq!(process.status("Seccomp"), "2", "a filter is on");
    for thread in std::fs::read_dir(process.path("task")).unwrap() {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "a thread without a filter: {status}");
    }
}

fn is_in_its_own_namespaces(process: &Process) {
    for name in ["pid", "mnt", "net", "ipc", "uts"] {
        let of = |folder: &Path| std::fs::read_link(folder.join("ns").join(name)).unwrap();
        assert_ne!(of(&process.path("")), of(Path::new("/proc/self")), "{name}");
    }
    assert!(process.status("NSpid").ends_with("\t1"), "it is the first of its pid namespace");
}

fn sees_only_its_cage(process: &Process, spec: &VmSpec) {
    let cage = spec.run_dir.join("jail/firecracker").join(spec.id.as_str()).join("root");
    let root = process.path("root");
    assert_eq!(std::fs::metadata(&root).unwrap().ino(), std::fs::metadata(cage).unwrap().ino());
    let seen: BTreeSet<String> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // The jailer brings its program, a note of its pid, and the folders `dev` and `run`.
    let given = [
        "api.sock",
        "dev",
        "disk-0",
        "firecracker",
        "firecracker.pid",
        "log.pipe",
        "memory",
        "metrics.pipe",
        "run",
        "state",
    ];
    assert_eq!(seen, given.map(str::to_owned).into());
    // The host's files are shared with other VMs: the mounts themselves forbid to write.
    let mounts = process.read("mountinfo");
    for name in ["/disk-0", "/memory", "/state"] {
        let mount = mounts.lines().find(|line| line.split(' ').nth(4) == Some(name)).unwrap();
        let options = mount.split(' ').nth(5).unwrap();
        assert!(options.starts_with("ro,nosuid,nodev,noexec"), "{mount}");
    }
    // And nobody but the VM sees them there.
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains("/jail/firecracker/"));
}

fn has_inherited_nothing(process: &Process) {
    assert_eq!(process.read("environ"), "");
    let open = std::fs::read_dir(process.path("fd")).unwrap();
    let open: Vec<PathBuf> =
        open.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap_or_default()).collect();
    let known = |target: &PathBuf| {
        let text = target.to_string_lossy();
        let kinds =
            ["anon_inode:", "socket:", "/dev/kvm", "/memory", "/disk-0", "/log.pipe", "/metrics.pipe"];
        let is_console = text.ends_with("/console.in") || text.ends_with("/console.out");
        kinds.iter().any(|kind| text.starts_with(kind)) || is_console || text.ends_with("/vmm.stderr")
    };
    let strange: Vec<_> = open.iter().filter(|target| !known(target)).collect();
    assert!(strange.is_empty(), "{strange:?} of {open:?}");
}

fn is_limited(process: &Process, spec: &VmSpec) {
    let limits = process.read("limits");
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let words =
        |name: &str| limit(name)[26..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words("Max open files"), ["2048", "2048"]);
    assert_eq!(words("Max core file size"), ["0", "0"]);

    let groups = process.read("cgroup");
    let own = format!("/flames-tests/{}", spec.id);
    for name in controllers() {
        let is_of = |line: &&str| {
            line.split(':')
                .nth(1)
                .is_some_and(|names| names.is_empty() || names.split(',').any(|own| own == name))
        };
        assert!(groups.lines().filter(is_of).any(|line| line.ends_with(&own)), "{name} in {groups}");
    }
    let memory = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(|mount| format!("{mount}{own}"));
    let values: Vec<String> = memory
        .iter()
        .flat_map(|folder| [format!("{folder}/memory.limit_in_bytes"), format!("{folder}/memory.max")])
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .collect();
    let expected = spec.memory.bytes() + (64 << 20);
    assert_eq!(values, [format!("{expected}\n")]);
    let parent = ["cpu/flames-tests/cpu.shares", "flames-tests/cpu.weight"];
    let weights: Vec<String> = parent
        .iter()
        .filter_map(|file| std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).ok())
        .collect();
    assert!(weights == ["102400\n"] || weights == ["10000\n"], "{weights:?}");
}

/// Those of memory, cpu and pids that this host has.
fn controllers() -> Vec<&'static str> {
    let first = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let unified = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let has = |name: &&str| {
        let mounted = |line: &str| line.contains(" cgroup ") && line.contains(&format!(",{name} "));
        unified.split_whitespace().any(|found| found == *name) || first.lines().any(mounted)
    };
    ["memory", "cpu", "pids"].into_iter().filter(has).collect()
}

#[tokio::test]
async fn two_vms_are_two_users_and_nothing_of_either_is_left() {
    let Some(factory) = FirecrackerFactory::jailed().await else { return };
    let (first_spec, first) = boot(&factory, factory.spec(Guest::Ready).await).await;
    let (second_spec, second) = boot(&factory, factory.spec(Guest::Ready).await).await;
    let uids = [&first, &second].map(|vm| Process(vm.handle().pid).uid());
    assert_ne!(uids[0], uids[1]);
    first.stop(StopDeadlines::KILL).await.unwrap();
    second.stop(StopDeadlines::KILL).await.unwrap();
    for (spec, uid) in [(&first_spec, uids[0]), (&second_spec, uids[1])] {
        let claim = JailerConfig::default().claims.join(uid.to_string());
        let owner = std::fs::read_to_string(&claim).unwrap_or_default();
        assert!(!owner.starts_with(&first.handle().pid.to_string()), "{owner}");
        let left: BTreeSet<String> = std::fs::read_dir(&spec.run_dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(left, ["console.log", "metrics.log", "vmm.log", "vmm.stderr"].map(str::to_owned).into());
        assert!(cgroups_of(spec).is_empty(), "{:?}", cgroups_of(spec));
    }
}

#[tokio::test]
async fn a_daemon_that_died_with_its_vm_leaves_nothing_to_the_next_one() {
    let Some(factory) = FirecrackerFactory::jailed().await else { return };
    let (spec, vm) = boot(&factory, factory.spec(Guest::Ready).await).await;
    let handle = vm.handle();
    let left = std::fs::read(spec.run_dir.join("vmm.json")).unwrap();
    vm.stop(StopDeadlines::KILL).await.unwrap();
    // As if nobody had been there to see the end.
    std::fs::write(spec.run_dir.join("vmm.json"), left).unwrap();
    std::fs::create_dir_all(spec.run_dir.join("jail/firecracker")).unwrap();
    assert!(factory.driver().adopt(&handle).await.unwrap().is_none());
    assert!(!spec.run_dir.join("jail").exists() && !spec.run_dir.join("vmm.json").exists());
}

#[tokio::test]
async fn a_jailed_vmm_opens_the_tap_of_its_namespace() {
    let Some(factory) = FirecrackerFactory::jailed().await else { return };
    let namespace = Namespace::make();
    let mac = MacAddress([0x06, 0x00, 0xac, 0x10, 0x00, 0x02]);
    let network = |tap: &str| Network::Tap { netns: namespace.path(), tap: tap.into(), mac };
    let spec = VmSpec { network: network("tap0"), ..really_booting(&factory).await };
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let handle = std::fs::read(spec.run_dir.join("vmm.json")).unwrap();
    let handle: flames_vmm::VmHandle = serde_json::from_slice(&handle).unwrap();
    let inside = std::fs::metadata(Process(handle.pid).path("ns/net")).unwrap().ino();
    assert_eq!(inside, std::fs::metadata(namespace.path()).unwrap().ino());
    drop(prepared);

    let spec = VmSpec { network: network("no-such-tap"), ..really_booting(&factory).await };
    let error = factory.driver().prepare(spec, PrepareFor::Boot).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no-such-tap"), "{error}");
}

#[tokio::test]
async fn a_used_up_range_of_user_ids_is_told_and_nothing_is_started() {
    let Some(factory) = FirecrackerFactory::jailed().await else { return };
    let claims = factory.folder().join("uids");
    let jailer = JailerConfig { uids: 1, claims, ..factory.config().jailer.clone() };
    let driver = factory.driver_with(FirecrackerConfig { jailer, ..factory.config().clone() });
    let spec = factory.spec(Guest::Ready).await;
    let _only = driver.prepare(spec, PrepareFor::Boot).await.unwrap();
    let spec = factory.spec(Guest::Ready).await;
    let error = driver.prepare(spec.clone(), PrepareFor::Boot).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("make the range larger"), "{error}");
    assert_eq!(std::fs::read_dir(&spec.run_dir).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_not_the_jailer_is_named() {
    let Some(_factory) = FirecrackerFactory::jailed().await else { return };
    for binary in ["/nonexistent/jailer", "true"] {
        let jailer = JailerConfig { binary: binary.into(), ..JailerConfig::default() };
        let driver = FirecrackerDriver::new(FirecrackerConfig { jailer, ..FirecrackerConfig::default() });
        let error = driver.version().await.unwrap_err();
        assert_eq!((error.kind(), error.retry_hint()), (ErrorKind::Unavailable, Retry::Never));
        assert!(error.to_string().contains(binary), "{error}");
    }
}

#[tokio::test]
async fn a_vm_without_a_jail_runs_as_the_daemon_without_its_capabilities() {
    let Some(factory) = FirecrackerFactory::find(JailMode::NoneInsecure).await else { return };
    let (_spec, vm) = boot(&factory, factory.spec(Guest::Ready).await).await;
    let process = Process(vm.handle().pid);
    assert_eq!(process.uid(), rustix::process::geteuid().as_raw());
    assert_eq!((process.status("CapEff"), process.status("Seccomp")), (NO_CAPABILITY.into(), "2".into()));
    let patient = std::time::Duration::from_secs(40);
    let exit = vm.stop(StopDeadlines { graceful: patient, forced: patient }).await.unwrap();
    assert_eq!(exit.cause, ExitCause::GuestShutdown, "{exit:?}");
}

/// One process, through its folder in `/proc`.
struct Process(u32);

impl Process {
    fn path(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.0.to_string()).join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn status(&self, name: &str) -> String {
        let status = self.read("status");
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap().trim().to_owned()
    }

    fn uid(&self) -> u32 {
        self.status("Uid").split_whitespace().next().unwrap().parse().unwrap()
    }
}

fn cgroups_of(spec: &VmSpec) -> Vec<PathBuf> {
    let own = Path::new("flames-tests").join(spec.id.as_str());
    let mounts =
        ["", "memory", "cpu", "cpu,cpuacct", "pids"].map(|name| Path::new("/sys/fs/cgroup").join(name));
    mounts.iter().map(|mount| mount.join(&own)).filter(|folder| folder.exists()).collect()
}

/// Of a kernel that no snapshot stands for.
async fn really_booting(factory: &FirecrackerFactory) -> VmSpec {
    let mut spec = factory.spec(Guest::Ready).await;
    let kernel = factory.folder().join("another-vmlinux");
    let _there_already = std::os::unix::fs::symlink(&spec.kernel, &kernel);
    spec.kernel = kernel;
    spec
}

async fn boot(factory: &FirecrackerFactory, spec: VmSpec) -> (VmSpec, Box<dyn RunningVm>) {
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    (spec, vm)
}
