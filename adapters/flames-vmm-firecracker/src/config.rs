//! What an operator can choose.

use crate::api::{CacheType, CpuTemplate, HugePages, IoEngine};
use flames_vmm::MiB;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the Firecracker driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FirecrackerConfig {
    /// The program; looked up in `PATH` if it has no slash. A static binary, or the jail holds no libc for it.
    pub binary: PathBuf,
    /// How VMs are confined.
    pub jail: JailMode,
    /// Settings of the jail.
    pub jailer: JailerConfig,
    /// A compiled seccomp filter, for builds that bring none (those for the gnu target).
    pub seccomp_filter: Option<PathBuf>,
    /// Mask over the processor's features, so that a snapshot fits another model.
    pub cpu_template: Option<CpuTemplate>,
    /// What backs guests' memory.
    pub huge_pages: Option<HugePages>,
    /// Keep track of written pages, so that snapshots may hold differences only.
    pub track_dirty_pages: bool,
    /// How drives are read and written.
    pub io_engine: Option<IoEngine>,
    /// Whether a guest's flush reaches the host's disk. Absent, it does not.
    pub cache_type: Option<CacheType>,
    /// Limits of each drive.
    pub drive_limit: Limit,
    /// Limits of what a guest receives.
    pub receive_limit: Limit,
    /// Limits of what a guest sends.
    pub send_limit: Limit,
    /// Largest rate of the guest's console in bytes per second.
    pub console_bytes_per_second: Option<i64>,
    /// Gives memory back that the guest does not use.
    pub balloon: Option<BalloonConfig>,
    /// Advances the guest's kvm-clock by the time that a snapshot slept. The agent sets the wall clock in any
    /// case; a guest whose clock source is the time stamp counter has no use for this.
    pub clock_realtime: bool,
    /// Further words of the kernel command line.
    pub kernel_args: Vec<String>,
    /// Largest number of virtual CPUs of one VM; Firecracker's own limit is 32.
    pub max_vcpus: u8,
    /// Largest guest memory of one VM, in MiB.
    pub max_memory_mib: u32,
    /// How long Firecracker may take to start or to answer, in milliseconds.
    pub command_timeout_ms: u64,
    /// How long it may take to write a snapshot, in milliseconds.
    pub snapshot_timeout_ms: u64,
}

/// Whether VMs are confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JailMode {
    /// Each VM by Firecracker's jailer: user, group, root directory, namespaces and limits of its own.
    #[default]
    Jailer,
    /// Not at all but for seccomp: a guest that breaks out of Firecracker is the daemon's user. For debugging.
    NoneInsecure,
}

/// Settings of the jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct JailerConfig {
    /// The program; looked up in `PATH` if it has no slash. Of the same release as Firecracker.
    pub binary: PathBuf,
    /// First of the user and group ids that VMs get, one each.
    pub first_uid: u32,
    /// How many there are.
    pub uids: u32,
    /// Where it is noted which ids are in use; lost at a reboot, as the VMs are.
    pub claims: PathBuf,
    /// The control group that holds those of the VMs.
    pub parent_cgroup: String,
    /// Weight of all VMs together against the host's other groups on the CPU, each of which has 100; 1 to
    /// 10,000. Without it a hundred VMs weigh as much as one service.
    pub cpu_weight: u32,
    /// Memory that Firecracker itself and the page cache of the VM's own disk may take beside the guest's.
    pub memory_overhead_mib: u32,
    /// Share of a CPU that Firecracker's own threads may take beside the virtual CPUs, in percent.
    pub cpu_overhead_percent: u32,
}

/// Rates of a device; absent ones are not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limit {
    /// Bytes per second.
    pub bytes_per_second: Option<i64>,
    /// Operations per second.
    pub operations_per_second: Option<i64>,
}

/// The balloon in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BalloonConfig {
    /// How often the guest reports its use of memory, in seconds; 0 for never.
    pub statistics_interval_s: u32,
    /// The guest tells which pages it no longer uses, and they go back to the host.
    pub free_page_reporting: bool,
}

impl Default for FirecrackerConfig {
    fn default() -> Self {
        Self {
            binary: PathBuf::from("firecracker"),
            jail: JailMode::default(),
            jailer: JailerConfig::default(),
            seccomp_filter: None,
            cpu_template: None,
            huge_pages: None,
            track_dirty_pages: false,
            io_engine: None,
            cache_type: None,
            drive_limit: Limit::default(),
            receive_limit: Limit::default(),
            send_limit: Limit::default(),
            console_bytes_per_second: None,
            balloon: None,
            clock_realtime: false,
            kernel_args: Vec::new(),
            max_vcpus: 32,
            max_memory_mib: 64 * 1024,
            command_timeout_ms: 10_000,
            snapshot_timeout_ms: 120_000,
        }
    }
}

impl Default for JailerConfig {
    fn default() -> Self {
        Self {
            binary: PathBuf::from("jailer"),
            first_uid: 1_000_000,
            uids: 65_536,
            claims: PathBuf::from("/run/flames/uids"),
            parent_cgroup: "flames".to_owned(),
            cpu_weight: 1000,
            memory_overhead_mib: 64,
            cpu_overhead_percent: 50,
        }
    }
}

impl Default for BalloonConfig {
    fn default() -> Self {
        Self { statistics_interval_s: 5, free_page_reporting: true }
    }
}

impl FirecrackerConfig {
    pub(crate) fn command_timeout(&self) -> Duration {
        Duration::from_millis(self.command_timeout_ms)
    }

    pub(crate) fn snapshot_timeout(&self) -> Duration {
        Duration::from_millis(self.snapshot_timeout_ms)
    }

    pub(crate) fn max_memory(&self) -> MiB {
        MiB(self.max_memory_mib)
    }
}
