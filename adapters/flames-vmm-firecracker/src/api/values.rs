//! The values of Firecracker's API, as its published description names them.
//!
//! A test holds each against the facts extracted from that description (`api/facts.json`): fields, types,
//! which are required, legal values. Values that a driver may choose to leave out are `Option`s, and are left
//! out then: Firecracker refuses fields that it does not know, so an older release is told only what it knows.

use serde::{Deserialize, Serialize};

/// Defines values of the API: each field is one of the description's, each derives what the test needs.
macro_rules! api_values {
    ($($(#[$meta:meta])* struct $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
            #[cfg_attr(test, derive(schemars::JsonSchema))]
            #[allow(dead_code, reason = "the published API is typed whole; the driver uses its part")]
            pub(crate) struct $name {
                $(
                    #[serde(skip_serializing_if = "Absent::is_absent")]
                    pub(crate) $field: $type,
                )*
            }
        )*
    };
}

/// Defines the legal words of a field.
macro_rules! api_words {
    ($($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$word:meta])* $variant:ident),* $(,)? })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
            #[cfg_attr(test, derive(schemars::JsonSchema))]
            #[allow(dead_code, reason = "the published API is typed whole; the driver uses its part")]
            $vis enum $name { $($(#[$word])* $variant),* }
        )*
    };
}

/// What is left out of a request.
trait Absent {
    fn is_absent(&self) -> bool {
        false
    }
}

impl<T> Absent for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl Absent for String {}
impl Absent for bool {}
impl Absent for u8 {}
impl Absent for u32 {}
impl Absent for i64 {}
impl<T> Absent for Vec<T> {}

macro_rules! always_present {
    ($($name:ty),* $(,)?) => { $(impl Absent for $name {})* };
}

always_present!(ActionType, BackendType, InstanceState, VmTarget);

api_values! {
    /// `PUT /machine-config`
    struct MachineConfiguration {
        vcpu_count: u8,
        mem_size_mib: u32,
        smt: Option<bool>,
        cpu_template: Option<CpuTemplate>,
        track_dirty_pages: Option<bool>,
        huge_pages: Option<HugePages>,
    }

    /// `PUT /boot-source`
    struct BootSource {
        kernel_image_path: String,
        initrd_path: Option<String>,
        boot_args: Option<String>,
    }

    /// `PUT /drives/{drive_id}`
    struct Drive {
        drive_id: String,
        is_root_device: bool,
        partuuid: Option<String>,
        path_on_host: Option<String>,
        is_read_only: Option<bool>,
        cache_type: Option<CacheType>,
        io_engine: Option<IoEngine>,
        rate_limiter: Option<RateLimiter>,
        socket: Option<String>,
    }

    /// `PATCH /drives/{drive_id}`
    struct PartialDrive {
        drive_id: String,
        path_on_host: Option<String>,
        rate_limiter: Option<RateLimiter>,
    }

    /// `PUT /network-interfaces/{iface_id}`
    struct NetworkInterface {
        iface_id: String,
        host_dev_name: String,
        guest_mac: Option<String>,
        mtu: Option<u32>,
        rx_rate_limiter: Option<RateLimiter>,
        tx_rate_limiter: Option<RateLimiter>,
    }

    /// `PATCH /network-interfaces/{iface_id}`
    struct PartialNetworkInterface {
        iface_id: String,
        rx_rate_limiter: Option<RateLimiter>,
        tx_rate_limiter: Option<RateLimiter>,
    }

    /// Limits of a device: bytes and operations.
    struct RateLimiter {
        bandwidth: Option<TokenBucket>,
        ops: Option<TokenBucket>,
    }

    /// `size` tokens, made anew within `refill_time` milliseconds.
    struct TokenBucket {
        size: i64,
        one_time_burst: Option<i64>,
        refill_time: i64,
    }

    /// `PUT /balloon`
    struct Balloon {
        amount_mib: u32,
        deflate_on_oom: bool,
        stats_polling_interval_s: Option<u32>,
        free_page_hinting: Option<bool>,
        free_page_reporting: Option<bool>,
    }

    /// `PATCH /balloon`
    struct BalloonUpdate {
        amount_mib: u32,
    }

    /// `PATCH /balloon/statistics`
    struct BalloonStatsUpdate {
        stats_polling_interval_s: u32,
    }

    /// `GET /balloon/statistics`: bytes and counts since the guest booted.
    struct BalloonStats {
        target_pages: u32,
        actual_pages: u32,
        target_mib: u32,
        actual_mib: u32,
        swap_in: Option<i64>,
        swap_out: Option<i64>,
        major_faults: Option<i64>,
        minor_faults: Option<i64>,
        free_memory: Option<i64>,
        total_memory: Option<i64>,
        available_memory: Option<i64>,
        disk_caches: Option<i64>,
        hugetlb_allocations: Option<i64>,
        hugetlb_failures: Option<i64>,
        oom_kill: Option<i64>,
        alloc_stall: Option<i64>,
        async_scan: Option<i64>,
        direct_scan: Option<i64>,
        async_reclaim: Option<i64>,
        direct_reclaim: Option<i64>,
    }

    /// `PATCH /balloon/hinting/start`
    struct BalloonStartCmd {
        acknowledge_on_stop: Option<bool>,
    }

    /// `GET /balloon/hinting/status`
    struct BalloonHintingStatus {
        host_cmd: u32,
        guest_cmd: Option<u32>,
    }

    /// `PUT /hotplug/memory`: memory that a guest may get while it runs.
    struct MemoryHotplugConfig {
        total_size_mib: Option<u32>,
        slot_size_mib: Option<u32>,
        block_size_mib: Option<u32>,
    }

    /// `PATCH /hotplug/memory`
    struct MemoryHotplugSizeUpdate {
        requested_size_mib: Option<u32>,
    }

    /// `GET /hotplug/memory`
    struct MemoryHotplugStatus {
        total_size_mib: Option<u32>,
        slot_size_mib: Option<u32>,
        block_size_mib: Option<u32>,
        plugged_size_mib: Option<u32>,
        requested_size_mib: Option<u32>,
    }

    /// `PUT /mmds/config`
    struct MmdsConfig {
        network_interfaces: Vec<String>,
        version: Option<MmdsVersion>,
        ipv4_address: Option<String>,
        imds_compat: Option<bool>,
    }

    /// `PUT /entropy`
    struct EntropyDevice {
        rate_limiter: Option<RateLimiter>,
    }

    /// `PUT /serial`
    struct SerialDevice {
        serial_out_path: Option<String>,
        rate_limiter: Option<TokenBucket>,
    }

    /// `PUT /logger`
    struct Logger {
        level: Option<LogLevel>,
        log_path: Option<String>,
        show_level: Option<bool>,
        show_log_origin: Option<bool>,
        module: Option<String>,
    }

    /// `PUT /metrics`
    struct Metrics {
        metrics_path: String,
    }

    /// `PUT /actions`
    struct InstanceActionInfo {
        action_type: ActionType,
    }

    /// `PATCH /vm`
    struct Vm {
        state: VmTarget,
    }

    /// `PUT /snapshot/create`
    struct SnapshotCreateParams {
        snapshot_path: String,
        mem_file_path: String,
        snapshot_type: Option<SnapshotType>,
    }

    /// `PUT /snapshot/load`
    struct SnapshotLoadParams {
        snapshot_path: String,
        mem_file_path: Option<String>,
        mem_backend: Option<MemoryBackend>,
        enable_diff_snapshots: Option<bool>,
        track_dirty_pages: Option<bool>,
        resume_vm: Option<bool>,
        network_overrides: Option<Vec<NetworkOverride>>,
        vsock_override: Option<VsockOverride>,
        clock_realtime: Option<bool>,
    }

    /// Where a restored guest's memory comes from: a file, or a page-fault handler's socket.
    struct MemoryBackend {
        backend_type: BackendType,
        backend_path: String,
    }

    /// Connects an interface of the snapshot to another TAP.
    struct NetworkOverride {
        iface_id: String,
        host_dev_name: String,
    }

    /// Gives a clone's vsock another socket. Flames uses no vsock.
    struct VsockOverride {
        uds_path: String,
    }

    /// `GET /`
    struct InstanceInfo {
        app_name: String,
        id: String,
        state: InstanceState,
        vmm_version: String,
    }

    /// `GET /version`
    struct FirecrackerVersion {
        firecracker_version: String,
    }

    /// The body of a refusal.
    struct Error {
        fault_message: Option<String>,
    }
}

/// `PUT /mmds`: anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct MmdsContentsObject(pub(crate) serde_json::Map<String, serde_json::Value>);

api_words! {
    /// A mask over the processor's features, so that a snapshot fits another model.
    pub enum CpuTemplate { C3, T2, T2S, T2CL, T2A, V1N1, None }

    /// What backs the guest's memory.
    pub enum HugePages {
        None,
        #[serde(rename = "2M")]
        TwoMegabytes,
    }

    /// Whether a guest's flush reaches the host's disk.
    pub enum CacheType { Unsafe, Writeback }

    /// How Firecracker reads and writes a drive's file. `Async` is io_uring.
    pub enum IoEngine { Sync, Async }

    /// How much Firecracker logs.
    pub(crate) enum LogLevel { Error, Warning, Info, Debug, Trace, Off }

    /// What may be asked of an instance.
    pub(crate) enum ActionType { FlushMetrics, InstanceStart, SendCtrlAltDel }

    /// What a VM shall be.
    pub(crate) enum VmTarget { Paused, Resumed }

    /// How the metadata service wants to be asked: `V2` with a token, which a request that a server was tricked into
    /// does not have.
    pub(crate) enum MmdsVersion { V1, V2 }

    /// What an instance is.
    pub(crate) enum InstanceState {
        #[serde(rename = "Not started")]
        NotStarted,
        Running,
        Paused,
    }

    /// All of the memory, or what was written since the last snapshot.
    pub(crate) enum SnapshotType { Full, Diff }

    /// Who serves page faults.
    pub(crate) enum BackendType { File, Uffd }
}
