//! What a QEMU process gets from its host, and what it does not.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flames_vmm::conformance::{Factory, Guest};
use flames_vmm::{
    Disk, DiskAccess, ErrorKind, ExitCause, MacAddress, MiB, Network, PrepareFor, PreparedVm, Retry,
    RunningVm, StopDeadlines, VmSpec, VmmDriver,
};
use flames_vmm_qemu::{QemuConfig, QemuDriver};
use std::os::fd::AsRawFd;
use support::QemuFactory;

const MAC: MacAddress = MacAddress([0x06, 0x00, 0xac, 0x10, 0x00, 0x02]);

#[tokio::test]
async fn qemu_gets_no_environment_no_descriptor_and_few_rights() {
    let Some(factory) = QemuFactory::find() else { return };
    // What a careless parent left open, without close-on-exec.
    let left_open = std::fs::File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    let (_spec, vm) = boot(&factory, factory.spec(Guest::Ready).await).await;

    let process = format!("/proc/{}", vm.handle().pid);
    let read = |name: &str| std::fs::read_to_string(format!("{process}/{name}")).unwrap();
    assert_eq!(read("environ"), "");
    let open = std::fs::read_dir(format!("{process}/fd")).unwrap();
    let open: Vec<_> =
        open.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap_or_default()).collect();
    assert!(
        !open.iter().any(|target| target.ends_with("zero")),
        "{} leaked: {open:?}",
        left_open.as_raw_fd()
    );
    let status = read("status");
    for line in ["NoNewPrivs:\t1", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    let limits = read("limits");
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(limit("Max open files").contains(" 2048 "), "{limits}");
    assert!(limit("Max core file size").contains(" 0 "), "{limits}");
    let group = read("stat").rsplit_once(')').unwrap().1.split_whitespace().nth(2).unwrap().to_owned();
    assert_eq!(group, vm.handle().pid.to_string(), "it has a process group of its own");
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

#[tokio::test]
async fn a_tap_is_opened_inside_its_namespace() {
    let Some(factory) = QemuFactory::find() else { return };
    let Some(namespace) = support::Namespace::make() else { return };
    let network = Network::Tap { netns: namespace.path(), tap: "tap0".into(), mac: MAC };
    let (_spec, vm) = boot(&factory, VmSpec { network, ..factory.spec(Guest::Ready).await }).await;
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(of(&vm.handle().pid.to_string()), of("self"));
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

#[tokio::test]
async fn a_tap_that_does_not_exist_is_named() {
    let Some(factory) = QemuFactory::find() else { return };
    let Some(namespace) = support::Namespace::make() else { return };
    let network = Network::Tap { netns: namespace.path(), tap: "no-such-tap".into(), mac: MAC };
    let error = refused(&factory, VmSpec { network, ..factory.spec(Guest::Ready).await }).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no-such-tap"), "{error}");
}

#[tokio::test]
async fn a_forwarded_port_in_use_is_named() {
    let Some(factory) = QemuFactory::find() else { return };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host_port = taken.local_addr().unwrap().port();
    let network = Network::User { host_port, guest_port: 49_983, mac: MAC };
    let error = refused(&factory, VmSpec { network, ..factory.spec(Guest::Ready).await }).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&host_port.to_string()), "{error}");
}

#[tokio::test]
async fn two_vms_never_write_to_one_disk() {
    let Some(factory) = QemuFactory::find() else { return };
    let disk = Disk { path: factory.folder().join("disk"), access: DiskAccess::ReadWrite };
    std::fs::write(&disk.path, vec![0; 1 << 20]).unwrap();
    let with_disk = |mut spec: VmSpec| {
        spec.disks.push(disk.clone());
        spec
    };
    let (_spec, vm) = boot(&factory, with_disk(factory.spec(Guest::Ready).await)).await;
    let error = refused(&factory, with_disk(factory.spec(Guest::Ready).await)).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("lock"), "{error}");
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

#[tokio::test]
async fn an_answer_without_an_end_is_read_no_further_than_its_limit() {
    let Some(factory) = QemuFactory::find() else { return };
    let mut spec = factory.spec(Guest::Ready).await;
    spec.kernel_args.push("flames.test=babbles".to_owned());
    let booting = factory.driver().prepare(spec, PrepareFor::Boot).await.unwrap().boot().await.unwrap();
    let error = booting.ready().await.expect_err("it is no answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the agent's answer is none"), "{error}");
}

#[tokio::test]
async fn a_guest_with_two_cpus_boots() {
    let Some(factory) = QemuFactory::find() else { return };
    let (_spec, vm) = boot(&factory, VmSpec { vcpus: 2, ..factory.spec(Guest::Ready).await }).await;
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

#[tokio::test]
async fn a_missing_qemu_is_named_with_its_mend() {
    let config = QemuConfig { binary: "/nonexistent/qemu".into(), ..QemuConfig::default() };
    let error = QemuDriver::new(config).version().await.unwrap_err();
    assert_eq!((error.kind(), error.retry_hint()), (ErrorKind::Unavailable, Retry::Never));
    assert!(error.to_string().contains("install qemu-system-x86"), "{error}");
}

#[tokio::test]
async fn a_run_directory_too_deep_for_a_socket_is_refused() {
    let Some(factory) = QemuFactory::find() else { return };
    let mut spec = factory.spec(Guest::Ready).await;
    spec.run_dir = spec.run_dir.join("x".repeat(100));
    assert_eq!(refused(&factory, spec).await.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_snapshot_is_sparse_and_fits_no_smaller_machine() {
    use std::os::unix::fs::MetadataExt;
    let Some(factory) = QemuFactory::find() else { return };
    let (spec, vm) = boot(&factory, factory.spec(Guest::Ready).await).await;
    vm.pause().await.unwrap();
    let parts = vm.snapshot(factory.folder()).await.unwrap();
    let memory = std::fs::metadata(&parts.memory).unwrap();
    assert_eq!(memory.len(), spec.memory.bytes());
    // A jailed clone has a user of its own, who reads it; an old QEMU opens it for writing, too.
    let device_state = std::fs::metadata(&parts.device_state).unwrap();
    assert_eq!(device_state.mode() & 0o777, 0o600);
    assert!(memory.blocks() * 512 < memory.len() / 2, "{} blocks", memory.blocks());

    let no_disk = VmSpec { disks: Vec::new(), ..factory.spec(Guest::Ready).await };
    let other_memory = VmSpec { memory: MiB(256), ..factory.spec(Guest::Ready).await };
    for other in [no_disk, other_memory] {
        let run_dir = other.run_dir.clone();
        let prepared = factory.driver().prepare(other, PrepareFor::Restore(parts.clone())).await;
        let error = prepared.expect_err("another machine");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(!run_dir.join(flames_vmm::HANDLE_FILE).exists(), "its process has ended");
    }
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

#[tokio::test]
async fn the_panic_of_a_restored_guest_is_told_from_a_shutdown() {
    let Some(factory) = QemuFactory::find() else { return };
    let mut spec = factory.spec(Guest::Ready).await;
    spec.kernel_args.push("flames.test=panics-later".to_owned());
    let (_spec, vm) = boot(&factory, spec).await;
    vm.pause().await.unwrap();
    let parts = vm.snapshot(factory.folder()).await.unwrap();
    vm.stop(StopDeadlines::KILL).await.unwrap();
    let clone = factory.spec(Guest::Ready).await;
    let prepared = factory.driver().prepare(clone, PrepareFor::Restore(parts)).await.unwrap();
    let exit = prepared.restore().await.unwrap().exited().await;
    assert_eq!(exit.cause, ExitCause::GuestPanic, "{exit:?}");
}

async fn boot(factory: &QemuFactory, spec: VmSpec) -> (VmSpec, Box<dyn RunningVm>) {
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    (spec, vm)
}

async fn refused(factory: &QemuFactory, spec: VmSpec) -> flames_vmm::Error {
    let prepared: Result<Box<dyn PreparedVm>, _> = factory.driver().prepare(spec, PrepareFor::Boot).await;
    prepared.expect_err("it starts")
}
