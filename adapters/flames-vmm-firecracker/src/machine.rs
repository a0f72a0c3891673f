//! The machine for a spec, as requests to Firecracker: pure functions.

use crate::api::{
    BackendType, Balloon, BootSource, Drive, EntropyDevice, MachineConfiguration, MemoryBackend, MmdsConfig,
    MmdsContentsObject, MmdsVersion, NetworkInterface, NetworkOverride, RateLimiter, SerialDevice,
    SnapshotLoadParams, TokenBucket,
};
use crate::config::{BalloonConfig, FirecrackerConfig, Limit, RestoreMemory};
use crate::files;
use flames_vmm::{Disk, DiskAccess, Network, VmSpec};
use serde::Serialize;
use serde_json::Value;

/// What is asked of one path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setting {
    pub(crate) path: String,
    pub(crate) value: Value,
}

/// The guest's one interface, in Firecracker's words.
const INTERFACE: &str = "eth0";
/// Rates are given per second.
const REFILL_MS: i64 = 1000;

/// What is set before a boot. Nothing is set before a restore but what the snapshot does not hold.
pub(crate) fn for_boot(spec: &VmSpec, config: &FirecrackerConfig) -> serde_json::Result<Vec<Setting>> {
    let mut settings = vec![
        put("/machine-config", &machine(spec, config))?,
        put("/boot-source", &boot_source(spec, config))?,
        put("/entropy", &EntropyDevice { rate_limiter: None })?,
    ];
    for (index, disk) in spec.disks.iter().enumerate() {
        let drive = drive(index, disk, config);
        settings.push(put(&format!("/drives/{}", drive.drive_id), &drive)?);
    }
    if let Network::Tap { tap, mac, .. } = &spec.network {
        let interface = interface(tap, mac.to_string(), config);
        settings.push(put(&format!("/network-interfaces/{INTERFACE}"), &interface)?);
    }
    settings.extend(metadata(spec, config)?);
    if let Some(balloon) = &config.balloon {
        settings.push(put("/balloon", &empty_balloon(balloon))?);
    }
    settings.extend(for_restore(config)?);
    Ok(settings)
}

/// Off unless it is asked for: secrets travel over the boot channel.
fn metadata(spec: &VmSpec, config: &FirecrackerConfig) -> serde_json::Result<Vec<Setting>> {
    let (Some(mmds), Network::Tap { .. }) = (&config.mmds, &spec.network) else { return Ok(Vec::new()) };
    let service = MmdsConfig {
        network_interfaces: vec![INTERFACE.to_owned()],
        version: Some(MmdsVersion::V2),
        ipv4_address: None,
        imds_compat: None,
    };
    let contents = MmdsContentsObject(mmds.contents.clone());
    Ok(vec![put("/mmds/config", &service)?, put("/mmds", &contents)?])
}

/// What a snapshot does not hold, and is set again before each restore.
pub(crate) fn for_restore(config: &FirecrackerConfig) -> serde_json::Result<Vec<Setting>> {
    let Some(rate) = config.console_bytes_per_second else { return Ok(Vec::new()) };
    let serial = SerialDevice { serial_out_path: None, rate_limiter: Some(token_bucket(rate)) };
    Ok(vec![put("/serial", &serial)?])
}

/// The guest runs when this is answered.
pub(crate) fn load(network: &Network, config: &FirecrackerConfig) -> SnapshotLoadParams {
    let host_dev_name = match network {
        Network::Tap { tap, .. } => Some(tap.clone()),
        Network::None | Network::User { .. } => None,
    };
    let replug = |host_dev_name| vec![NetworkOverride { iface_id: INTERFACE.to_owned(), host_dev_name }];
    let (backend_type, path) = match config.restore_memory() {
        RestoreMemory::File => (BackendType::File, files::MEMORY),
        RestoreMemory::Userfaultfd => (BackendType::Uffd, files::FAULTS),
    };
    let memory = MemoryBackend { backend_type, backend_path: path.to_owned() };
    SnapshotLoadParams {
        snapshot_path: files::STATE.to_owned(),
        mem_file_path: None,
        mem_backend: Some(memory),
        enable_diff_snapshots: None,
        track_dirty_pages: Some(config.track_dirty_pages),
        resume_vm: Some(true),
        network_overrides: host_dev_name.map(replug),
        vsock_override: None,
        clock_realtime: Some(config.clock_realtime),
    }
}

/// What the machine needs of the kernel, then what the guest's user space wants. `flames.boot` tells the agent
/// where its boot channel is: there is no virtio-serial here.
fn kernel_command_line(spec: &VmSpec, config: &FirecrackerConfig) -> String {
    let machine = ["quiet", "console=ttyS0", "flames.boot=ttyS0", "reboot=k", "panic=-1", "pci=off"];
    let words = machine.into_iter().chain(spec.kernel_args.iter().map(String::as_str));
    words.chain(config.kernel_args.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
}

fn machine(spec: &VmSpec, config: &FirecrackerConfig) -> MachineConfiguration {
    MachineConfiguration {
        vcpu_count: spec.vcpus,
        mem_size_mib: spec.memory.0,
        smt: None,
        cpu_template: config.cpu_template,
        track_dirty_pages: Some(config.track_dirty_pages),
        huge_pages: config.huge_pages,
    }
}

fn boot_source(spec: &VmSpec, config: &FirecrackerConfig) -> BootSource {
    BootSource {
        kernel_image_path: files::KERNEL.to_owned(),
        initrd_path: None,
        boot_args: Some(kernel_command_line(spec, config)),
    }
}

fn drive(index: usize, disk: &Disk, config: &FirecrackerConfig) -> Drive {
    Drive {
        // Letters, digits and underscores only.
        drive_id: format!("disk{index}"),
        // The kernel command line says which one is the root.
        is_root_device: false,
        partuuid: None,
        path_on_host: Some(files::disk(index)),
        is_read_only: Some(disk.access == DiskAccess::ReadOnly),
        cache_type: config.cache_type,
        io_engine: config.io_engine,
        rate_limiter: rate_limiter(&config.drive_limit),
        socket: None,
    }
}

fn interface(tap: &str, guest_mac: String, config: &FirecrackerConfig) -> NetworkInterface {
    NetworkInterface {
        iface_id: INTERFACE.to_owned(),
        host_dev_name: tap.to_owned(),
        guest_mac: Some(guest_mac),
        mtu: None,
        rx_rate_limiter: rate_limiter(&config.receive_limit),
        tx_rate_limiter: rate_limiter(&config.send_limit),
    }
}

/// Takes nothing by itself, and gives back under pressure what it was made to take.
fn empty_balloon(config: &BalloonConfig) -> Balloon {
    Balloon {
        amount_mib: 0,
        deflate_on_oom: true,
        stats_polling_interval_s: Some(config.statistics_interval_s),
        free_page_hinting: None,
        free_page_reporting: Some(config.free_page_reporting),
    }
}

fn rate_limiter(limit: &Limit) -> Option<RateLimiter> {
    let bandwidth = limit.bytes_per_second.map(token_bucket);
    let ops = limit.operations_per_second.map(token_bucket);
    (bandwidth.is_some() || ops.is_some()).then_some(RateLimiter { bandwidth, ops })
}

/// So much each second.
pub(crate) fn token_bucket(size: i64) -> TokenBucket {
    TokenBucket { size, one_time_burst: None, refill_time: REFILL_MS }
}

fn put(path: &str, value: &impl Serialize) -> serde_json::Result<Setting> {
    request(path.to_owned(), value)
}

pub(crate) fn request(path: String, value: &impl Serialize) -> serde_json::Result<Setting> {
    Ok(Setting { path, value: serde_json::to_value(value)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_vmm::{BootChannel, MacAddress, MiB, VmId};
    use serde_json::json;

    fn spec() -> VmSpec {
        VmSpec {
            id: VmId::parse("vm").unwrap(),
            run_dir: "/run/vm".into(),
            vcpus: 2,
            memory: MiB(256),
            kernel: "/kernels/vmlinux".into(),
            kernel_args: vec!["root=/dev/vda".into()],
            disks: vec![Disk { path: "/images/a".into(), access: DiskAccess::ReadOnly }],
            network: Network::Tap {
                netns: "/run/netns/x".into(),
                tap: "tap0".into(),
                mac: MacAddress([6, 0, 0xac, 0x10, 0, 2]),
            },
            boot_channel: BootChannel { greeting: "a secret".into() },
            console_limit_bytes: 1,
        }
    }

    fn value<'a>(settings: &'a [Setting], path: &str) -> &'a Value {
        &settings.iter().find(|setting| setting.path == path).unwrap().value
    }

    #[test]
    fn firecracker_is_told_names_in_its_cage_and_never_the_greeting() {
        let settings = for_boot(&spec(), &FirecrackerConfig::default()).unwrap();
        let disk = json!({"drive_id": "disk0", "is_root_device": false, "path_on_host": "disk-0", "is_read_only": true});
        assert_eq!(value(&settings, "/drives/disk0"), &disk);
        assert_eq!(value(&settings, "/boot-source")["kernel_image_path"], "kernel");
        let all = format!("{settings:?}");
        assert!(!all.contains("/images") && !all.contains("secret"), "{all}");
    }

    #[test]
    fn limits_become_token_buckets_of_a_second() {
        let send_limit = Limit { bytes_per_second: Some(1 << 20), operations_per_second: None };
        let config = FirecrackerConfig { send_limit, ..FirecrackerConfig::default() };
        let settings = for_boot(&spec(), &config).unwrap();
        let interface = value(&settings, "/network-interfaces/eth0");
        let bucket = json!({"bandwidth": {"size": 1_048_576, "refill_time": 1000}});
        assert_eq!((&interface["tx_rate_limiter"], interface.get("rx_rate_limiter")), (&bucket, None));
        assert_eq!(interface["guest_mac"], "06:00:ac:10:00:02");
    }

    #[test]
    fn a_restore_resumes_in_the_same_call_and_plugs_the_clone_into_its_own_tap() {
        let load = load(&spec().network, &FirecrackerConfig::default());
        assert_eq!(load.resume_vm, Some(true));
        let plugged = NetworkOverride { iface_id: "eth0".into(), host_dev_name: "tap0".into() };
        assert_eq!(load.network_overrides, Some(vec![plugged]));
    }

    #[test]
    fn the_metadata_service_is_off_unless_asked_for_and_then_wants_a_token() {
        let off = for_boot(&spec(), &FirecrackerConfig::default()).unwrap();
        assert!(off.iter().all(|setting| !setting.path.starts_with("/mmds")));
        let contents = json!({"region": "here"}).as_object().unwrap().clone();
        let mmds = Some(crate::config::MmdsConfig { contents });
        let on = for_boot(&spec(), &FirecrackerConfig { mmds, ..FirecrackerConfig::default() }).unwrap();
        assert_eq!(value(&on, "/mmds/config"), &json!({"network_interfaces": ["eth0"], "version": "V2"}));
        assert_eq!(value(&on, "/mmds"), &json!({"region": "here"}));
    }

    #[test]
    fn huge_pages_come_from_a_page_fault_handler() {
        let backend =
            |config: FirecrackerConfig| load(&spec().network, &config).mem_backend.unwrap().backend_type;
        assert_eq!(backend(FirecrackerConfig::default()), BackendType::File);
        let huge_pages = Some(crate::api::HugePages::TwoMegabytes);
        assert_eq!(
            backend(FirecrackerConfig { huge_pages, ..FirecrackerConfig::default() }),
            BackendType::Uffd
        );
    }
}
