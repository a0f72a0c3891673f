//! What a jailed Firecracker is, as seen from outside, and what is refused before one is started.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flames_vmm::conformance::{
    Confined, Factory, Guest, Seen, is_confined, is_refused_and_nothing_started,
    keeps_a_disk_that_disappears, nothing_is_held_after_the_end, refuses_a_kernel_that_is_no_elf,
};
use flames_vmm::jail::{JailConfig, JailMode};
use flames_vmm::{
    Disk, DiskAccess, ErrorKind, ExitCause, MacAddress, Network, PrepareFor, Retry, RunningVm, StopDeadlines,
    VmSpec, VmmDriver,
};
use flames_vmm_firecracker::{FirecrackerConfig, FirecrackerDriver};
use std::os::unix::fs::MetadataExt;
use support::{FIRST_UID, FirecrackerFactory, Namespace, PARENT_CGROUP, UIDS};

#[tokio::test]
async fn a_jailed_vmm_is_nobody_in_a_world_of_its_own() {
    let Some(factory) = FirecrackerFactory::jailed().await else { return };
    // What a careless parent left open, without close-on-exec.
    let left_open = std::fs::File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    let (spec, vm) = boot(&factory, with_own_disk(&factory, factory.spec(Guest::Ready).await)).await;
    let (other_spec, other) = boot(&factory, with_own_disk(&factory, factory.spec(Guest::Ready).await)).await;
    is_confined(vm.as_ref(), &confined(&spec));
    is_confined(other.as_ref(), &confined(&other_spec));
    let uids = [&vm, &other].map(|vm| Seen(vm.handle().pid).uid());
    assert_ne!(uids[0], uids[1], "two VMs are two users");
    nothing_is_held_after_the_end(&factory, &spec, vm).await;
    nothing_is_held_after_the_end(&factory, &other_spec, other).await;
}

fn confined(spec: &VmSpec) -> Confined {
    // The jailer brings its program, a note of its pid, and the folders `dev` and `run`.
    let root = [
        "api.sock",
        "dev",
        "disk-0",
        "disk-1",
        "firecracker",
        "firecracker.pid",
        "log.pipe",
        "memory",
        "metrics.pipe",
        "run",
        "state",
    ];
    let open = [
        "anon_inode:",
        "socket:",
        "/dev/kvm",
        "/memory",
        "/disk-",
        "/log.pipe",
        "/metrics.pipe",
        "*/console.in",
        "*/console.out",
        "*/vmm.stderr",
    ];
    Confined {
        uids: FIRST_UID..FIRST_UID + UIDS,
        parent_cgroup: PARENT_CGROUP.to_owned(),
        memory_limit: spec.memory.bytes() + (64 << 20),
        threads: u64::from(spec.vcpus) + 16,
        root: root.into(),
        writable: vec!["/", "/disk-1"],
        open: open.into(),
        network: None,
    }
}

fn with_own_disk(factory: &FirecrackerFactory, mut spec: VmSpec) -> VmSpec {
    let path = factory.folder().join(format!("{}.disk", spec.id));
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    spec.disks.push(Disk { path, access: DiskAccess::ReadWrite });
    spec
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
    let inside = std::fs::metadata(Seen(handle.pid).path("ns/net")).unwrap().ino();
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
    let jail = JailConfig { uids: 1, ready: 0, claims, ..factory.config().jail.clone() };
    let driver = factory.driver_with(FirecrackerConfig { jail, ..factory.config().clone() });
    let spec = factory.spec(Guest::Ready).await;
    let _only = driver.prepare(spec, PrepareFor::Boot).await.unwrap();
    let spec = factory.spec(Guest::Ready).await;
    is_refused_and_nothing_started(&driver, spec, ErrorKind::Unavailable, &["make the range larger"]).await;
}

#[tokio::test]
async fn a_demanded_controller_that_is_missing_is_named_and_nothing_is_started() {
    let Some(factory) = FirecrackerFactory::jailed().await else { return };
    let controllers = vec!["memory".to_owned(), "teleport".to_owned()];
    let jail = JailConfig { controllers, ..factory.config().jail.clone() };
    let driver = factory.driver_with(FirecrackerConfig { jail, ..factory.config().clone() });
    let spec = factory.spec(Guest::Ready).await;
    let words = ["teleport", "none-insecure"];
    let error = is_refused_and_nothing_started(&driver, spec, ErrorKind::Unavailable, &words).await;
    assert_eq!(error.retry_hint(), Retry::Never);
}

#[tokio::test]
async fn what_is_not_the_jailer_is_named() {
    let Some(_factory) = FirecrackerFactory::jailed().await else { return };
    for binary in ["/nonexistent/jailer", "true"] {
        let config = FirecrackerConfig { jailer: binary.into(), ..FirecrackerConfig::default() };
        let driver = FirecrackerDriver::new(config);
        let error = driver.version().await.unwrap_err();
        assert_eq!((error.kind(), error.retry_hint()), (ErrorKind::Unavailable, Retry::Never));
        assert!(error.to_string().contains(binary), "{error}");
    }
}

#[tokio::test]
async fn a_kernel_that_is_no_elf_is_refused_by_name_and_nothing_is_started() {
    let Some(factory) = FirecrackerFactory::jailed().await else { return };
    refuses_a_kernel_that_is_no_elf(&factory, factory.folder()).await;
}

#[tokio::test]
async fn a_disk_that_disappears_is_the_vms_to_its_end_and_no_other_vms() {
    let Some(factory) = FirecrackerFactory::jailed().await else { return };
    let spec = with_own_disk(&factory, factory.spec(Guest::Ready).await);
    keeps_a_disk_that_disappears(&factory, spec).await;
}

#[tokio::test]
async fn a_vm_without_a_jail_runs_as_the_daemon_without_its_capabilities() {
    let Some(factory) = FirecrackerFactory::find(JailMode::NoneInsecure).await else { return };
    let (_spec, vm) = boot(&factory, factory.spec(Guest::Ready).await).await;
    let process = Seen(vm.handle().pid);
    assert_eq!(process.uid(), rustix::process::geteuid().as_raw());
    assert_eq!(process.status("CapEff"), "0000000000000000");
    assert_eq!((process.status("Seccomp"), process.status("NoNewPrivs")), ("2".into(), "1".into()));
    let patient = std::time::Duration::from_secs(40);
    let exit = vm.stop(StopDeadlines { graceful: patient, forced: patient }).await.unwrap();
    assert_eq!(exit.cause, ExitCause::GuestShutdown, "{exit:?}");
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
