//! What an operator can choose about the jail: the same for every driver.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Whether VMs are confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JailMode {
    /// Each VM has a user, group, root directory, namespaces and limits of its own.
    #[default]
    Jailed,
    /// Only what needs no right on the host: whoever breaks out of a VMM is the daemon's user. For debugging.
    NoneInsecure,
}

/// Settings of the jail. Drivers of one host share them: user ids come from one range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct JailConfig {
    /// How VMs are confined.
    pub mode: JailMode,
    /// First of the user and group ids that VMs get, one each.
    pub first_uid: u32,
    /// How many there are.
    pub uids: u32,
    /// Where it is noted which ids are in use; lost at a reboot, as the VMs are.
    pub claims: PathBuf,
    /// How many jails are made before they are needed.
    pub ready: usize,
    /// The control group that holds those of the VMs.
    pub parent_cgroup: String,
    /// Controllers without which no VM is started.
    pub controllers: Vec<String>,
    /// Weight of all VMs together against the host's other groups on the CPU, each of which has 100; 1 to
    /// 10,000. The daemon is one of the others: it must not starve when all guests are busy.
    pub cpu_weight: u32,
    /// Memory that the VMM itself and the page cache of the VM's own disk may take beside the guest's, in MiB.
    pub memory_overhead_mib: u32,
    /// Share of a CPU that the VMM's own threads may take beside the virtual CPUs, in percent.
    pub cpu_overhead_percent: u32,
    /// What one VM may ask of the device that holds its own disk.
    pub io: IoLimit,
}

/// Rates of a block device; absent ones are not limited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct IoLimit {
    /// Bytes per second, of reads and of writes each.
    pub bytes_per_second: Option<u64>,
    /// Operations per second, of reads and of writes each.
    pub operations_per_second: Option<u64>,
}

impl Default for JailConfig {
    fn default() -> Self {
        Self {
            mode: JailMode::default(),
            first_uid: 1_000_000,
            uids: 65_536,
            claims: PathBuf::from("/run/flames/uids"),
            ready: 2,
            parent_cgroup: "flames".to_owned(),
            controllers: ["memory", "cpu", "pids"].map(str::to_owned).into(),
            cpu_weight: 300,
            memory_overhead_mib: 64,
            cpu_overhead_percent: 50,
            io: IoLimit::default(),
        }
    }
}

impl Default for IoLimit {
    /// More than a guest needs, and less than keeps everybody else from a fast disk.
    fn default() -> Self {
        Self { bytes_per_second: Some(1 << 30), operations_per_second: Some(50_000) }
    }
}
