//! What a jailed QEMU is, as seen from outside, and what is refused before one is started.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flames_vmm::conformance::{
    Confined, Factory, Guest, Seen, is_confined, is_refused_and_nothing_started,
    keeps_a_disk_that_disappears, nothing_is_held_after_the_end, refuses_a_kernel_that_is_no_elf,
};
use flames_vmm::jail::{JailConfig, JailMode};
use flames_vmm::{
    Disk, DiskAccess, ErrorKind, MacAddress, Network, PrepareFor, Retry, RunningVm, StopDeadlines, VmSpec,
    VmmDriver,
};
use flames_vmm_qemu::{QemuConfig, QemuDriver};
use support::{FIRST_UID, Namespace, PARENT_CGROUP, QemuFactory, UIDS};

const MAC: MacAddress = MacAddress([0x06, 0x00, 0xac, 0x10, 0x00, 0x02]);

#[tokio::test]
async fn a_jailed_vmm_is_nobody_in_a_world_of_its_own() {
    let Some(factory) = QemuFactory::jailed() else { return };
    // What a careless parent left open, without close-on-exec.
    let left_open = std::fs::File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    let spec = with_own_disk(&factory, factory.spec(Guest::Ready).await);
    let vm = boot(&factory, &spec).await;
    is_confined(vm.as_ref(), &confined(&spec, "kernel"));
    assert_eq!(Seen(vm.handle().pid).status("CapBnd"), "0000000000000000", "no program brings one back");

    vm.pause().await.unwrap();
    let parts = vm.snapshot(factory.folder()).await.unwrap();
    let clone_spec = with_own_disk(&factory, factory.spec(Guest::Ready).await);
    let prepared = factory.driver().prepare(clone_spec.clone(), PrepareFor::Restore(parts)).await.unwrap();
    let clone = prepared.restore().await.unwrap();
    is_confined(clone.as_ref(), &confined(&clone_spec, "memory"));
    let uids = [&vm, &clone].map(|vm| Seen(vm.handle().pid).uid());
    assert_ne!(uids[0], uids[1], "two VMs are two users");
    nothing_is_held_after_the_end(&factory, &spec, vm).await;
    nothing_is_held_after_the_end(&factory, &clone_spec, clone).await;
}

#[tokio::test]
async fn a_jailed_vmm_opens_the_tap_of_its_namespace() {
    let Some(factory) = QemuFactory::jailed() else { return };
    let Some(namespace) = Namespace::make() else { return };
    let network = Network::Tap { netns: namespace.path(), tap: "tap0".into(), mac: MAC };
    let spec = with_own_disk(&factory, VmSpec { network, ..factory.spec(Guest::Ready).await });
    let vm = boot(&factory, &spec).await;
    let expected = Confined { network: Some(namespace.path()), ..confined(&spec, "kernel") };
    is_confined(vm.as_ref(), &expected);
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

#[tokio::test]
async fn a_daemon_that_died_with_its_vm_leaves_nothing_to_the_next_one() {
    let Some(factory) = QemuFactory::jailed() else { return };
    let spec = factory.spec(Guest::Ready).await;
    let vm = boot(&factory, &spec).await;
    let (handle, groups) = (vm.handle(), Seen(vm.handle().pid).own_groups());
    let left = std::fs::read(spec.run_dir.join("vmm.json")).unwrap();
    vm.stop(StopDeadlines::KILL).await.unwrap();
    // As if nobody had been there to see the end.
    let stored: serde_json::Value = serde_json::from_slice(&left).unwrap();
    let (claim, owner) = (&stored["held"]["claim"]["file"], &stored["held"]["claim"]["owner"]);
    std::fs::write(claim.as_str().unwrap(), owner.as_str().unwrap()).unwrap();
    std::fs::write(spec.run_dir.join("vmm.json"), left).unwrap();
    for group in &groups {
        std::fs::create_dir(&group.folder).unwrap();
    }
    assert!(factory.driver().adopt(&handle).await.unwrap().is_none());
    assert!(groups.iter().all(|group| !group.folder.exists()), "{groups:?}");
}

#[tokio::test]
async fn a_vmm_that_cannot_start_holds_nothing_of_its_host() {
    let Some(factory) = QemuFactory::jailed() else { return };
    let Some(namespace) = Namespace::make() else { return };
    let network = Network::Tap { netns: namespace.path(), tap: "no-such-tap".into(), mac: MAC };
    let config = QemuConfig {
        jail: JailConfig { uids: 1, ready: 0, claims: factory.folder().join("uids"), ..jail() },
        ..support::config()
    };
    let driver = QemuDriver::new(config);
    for _ in 0..2 {
        // With one id only, the second start shows that the first has given it back.
        let spec = VmSpec { network: network.clone(), ..factory.spec(Guest::Ready).await };
        let error = driver.prepare(spec, PrepareFor::Boot).await.unwrap_err();
        assert!(error.to_string().contains("no-such-tap"), "{error}");
    }
}

#[tokio::test]
async fn a_used_up_range_of_user_ids_is_told_and_nothing_is_started() {
    let Some(factory) = QemuFactory::jailed() else { return };
    let config = QemuConfig {
        jail: JailConfig { uids: 1, ready: 0, claims: factory.folder().join("uids"), ..jail() },
        ..support::config()
    };
    let driver = QemuDriver::new(config);
    let _only = driver.prepare(factory.spec(Guest::Ready).await, PrepareFor::Boot).await.unwrap();
    let spec = factory.spec(Guest::Ready).await;
    is_refused_and_nothing_started(&driver, spec, ErrorKind::Unavailable, &["make the range larger"]).await;
}

#[tokio::test]
async fn a_demanded_controller_that_is_missing_is_named_and_nothing_is_started() {
    let Some(factory) = QemuFactory::jailed() else { return };
    let controllers = vec!["memory".to_owned(), "teleport".to_owned()];
    let driver =
        QemuDriver::new(QemuConfig { jail: JailConfig { controllers, ..jail() }, ..support::config() });
    let spec = factory.spec(Guest::Ready).await;
    let words = ["teleport", "none-insecure"];
    let error = is_refused_and_nothing_started(&driver, spec, ErrorKind::Unavailable, &words).await;
    assert_eq!(error.retry_hint(), Retry::Never);
}

#[tokio::test]
async fn what_is_not_qemu_is_named_with_the_mend() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("qemu-old");
    std::fs::write(&old, "#!/bin/sh\necho QEMU emulator version 4.2.1\n").unwrap();
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (binary, says) in [("true".into(), "is not QEMU"), (old, "QEMU 4.2.1 is too old")] {
        let driver = QemuDriver::new(QemuConfig { binary, ..support::config() });
        let error = driver.version().await.unwrap_err();
        assert_eq!((error.kind(), error.retry_hint()), (ErrorKind::Unavailable, Retry::Never));
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_kernel_that_is_no_elf_is_refused_by_name_and_nothing_is_started() {
    let Some(factory) = QemuFactory::jailed() else { return };
    refuses_a_kernel_that_is_no_elf(&factory, factory.folder()).await;
}

#[tokio::test]
async fn a_disk_that_disappears_is_the_vms_to_its_end_and_no_other_vms() {
    let Some(factory) = QemuFactory::jailed() else { return };
    let spec = with_own_disk(&factory, factory.spec(Guest::Ready).await);
    keeps_a_disk_that_disappears(&factory, spec).await;
}

#[tokio::test]
async fn a_vm_without_a_jail_runs_as_the_daemon_without_its_capabilities() {
    let Some(factory) = QemuFactory::find() else { return };
    let open = JailConfig { mode: JailMode::NoneInsecure, ..jail() };
    let driver = QemuDriver::new(QemuConfig { jail: open, ..support::config() });
    let prepared = driver.prepare(factory.spec(Guest::Ready).await, PrepareFor::Boot).await.unwrap();
    let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    let process = Seen(vm.handle().pid);
    assert_eq!(process.uid(), rustix::process::geteuid().as_raw());
    assert_eq!(process.status("CapEff"), "0000000000000000");
    assert_eq!((process.status("Seccomp"), process.status("NoNewPrivs")), ("2".into(), "1".into()));
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

fn jail() -> JailConfig {
    support::config().jail
}

/// The guest, 64 MiB of translated code and 128 of QEMU's own.
fn confined(spec: &VmSpec, own: &'static str) -> Confined {
    let open =
        ["socket:", "anon_inode:", "/memfd:", "/memory", "/dev/", "*/vmm.log", "*.erofs", "*/own-disk"];
    Confined {
        uids: FIRST_UID..FIRST_UID + UIDS,
        parent_cgroup: PARENT_CGROUP.to_owned(),
        memory_limit: spec.memory.bytes() + (192 << 20),
        threads: u64::from(spec.vcpus) + 80,
        root: ["dev", "etc", "lib", "lib64", "usr", own].into(),
        // QEMU before 8.2 opens it for writing, and maps it privately.
        writable: vec!["/memory"],
        open: open.into(),
        network: None,
    }
}

fn with_own_disk(factory: &QemuFactory, mut spec: VmSpec) -> VmSpec {
    let path = factory.folder().join(spec.id.as_str()).with_extension("folder");
    std::fs::create_dir(&path).unwrap();
    let path = path.join("own-disk");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    spec.disks.push(Disk { path, access: DiskAccess::ReadWrite });
    spec
}

async fn boot(factory: &QemuFactory, spec: &VmSpec) -> Box<dyn RunningVm> {
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    vm
}
