//! What an operator can choose.

use crate::api::{CacheType, CpuTemplate, HugePages, IoEngine};
use flames_vmm::MiB;
use flames_vmm::faults::Program;
use flames_vmm::jail::JailConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the Firecracker driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FirecrackerConfig {
    /// The program; looked up in `PATH` if it has no slash. A static binary, or the jail holds no libc for it.
    pub binary: PathBuf,
    /// The jailer; looked up in `PATH` if it has no slash. Of the same release as Firecracker.
    pub jailer: PathBuf,
    /// How VMs are confined.
    pub jail: JailConfig,
    /// A compiled seccomp filter, for builds that bring none (those for the gnu target).
    pub seccomp_filter: Option<PathBuf>,
    /// Mask over the processor's features, so that a snapshot fits another model.
    pub cpu_template: Option<CpuTemplate>,
    /// What backs guests' memory.
    pub huge_pages: Option<HugePages>,
    /// Where a restored guest's memory comes from. Huge pages always come from a page-fault handler: Firecracker maps
    /// them from no file.
    pub memory: RestoreMemory,
    /// The program that serves page faults.
    pub page_faults: Program,
    /// How long the order of first touches is recorded, in milliseconds from the first one; 0 for not at all.
    pub working_set_ms: u64,
    /// Keep track of written pages: a snapshot of a VM that was restored, or snapshotted before, is that snapshot's copy
    /// with the pages that were written since. Whole it is in any case.
    pub track_dirty_pages: bool,
    /// How drives are read and written.
    pub io_engine: Option<IoEngine>,
    /// Whether a guest's flush reaches the host's disk. Absent, it does not.
    pub cache_type: Option<CacheType>,
    /// Limits of each drive. These and the next two are also those of guests that are restored or adopted, whatever
    /// they were when these booted.
    pub drive_limit: Limit,
    /// Limits of what a guest receives.
    pub receive_limit: Limit,
    /// Limits of what a guest sends.
    pub send_limit: Limit,
    /// Largest rate of the guest's console in bytes per second.
    pub console_bytes_per_second: Option<i64>,
    /// The metadata service; absent, guests have none.
    pub mmds: Option<MmdsConfig>,
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

/// Where a restored guest's memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreMemory {
    /// The snapshot's file, mapped: clones share the pages that they only read.
    #[default]
    File,
    /// A page-fault handler, which fetches ahead what earlier guests of the snapshot touched first.
    Userfaultfd,
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

/// The metadata service in Firecracker, which answers guests at a link-local address. Whatever it holds, everything in
/// the guest may read. Guests that were snapshotted without it do not get it; those with it get today's contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MmdsConfig {
    /// What it answers.
    pub contents: serde_json::Map<String, serde_json::Value>,
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
            jailer: PathBuf::from("jailer"),
            jail: JailConfig::default(),
            seccomp_filter: None,
            cpu_template: None,
            huge_pages: None,
            memory: RestoreMemory::default(),
            page_faults: Program::default(),
            working_set_ms: 2000,
            track_dirty_pages: false,
            io_engine: None,
            cache_type: None,
            drive_limit: Limit::default(),
            receive_limit: Limit::default(),
            send_limit: Limit::default(),
            console_bytes_per_second: None,
            mmds: None,
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

impl Default for BalloonConfig {
    fn default() -> Self {
        Self { statistics_interval_s: 5, free_page_reporting: true }
    }
}

impl FirecrackerConfig {
    pub(crate) fn restore_memory(&self) -> RestoreMemory {
        match self.huge_pages {
            Some(HugePages::TwoMegabytes) => RestoreMemory::Userfaultfd,
            Some(HugePages::None) | None => self.memory,
        }
    }

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
