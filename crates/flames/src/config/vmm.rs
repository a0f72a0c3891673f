//! `[vmm]`: which VMM runs sandboxes, and how it is confined.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The virtual machine monitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Vmm {
    /// Which VMM runs sandboxes.
    pub(crate) driver: VmmDriver,
    /// The QEMU program: a name that PATH finds, or a path.
    pub(crate) qemu: PathBuf,
    /// The Firecracker program: a name that PATH finds, or a path.
    pub(crate) firecracker: PathBuf,
    /// Firecracker's jailer, of the same release.
    pub(crate) jailer: PathBuf,
    /// Whether each VM is confined to a jail of its own.
    pub(crate) jail: Jail,
    /// Where the memory of a guest that Firecracker restores comes from.
    pub(crate) restore_memory: RestoreMemory,
    /// Whether Firecracker keeps track of the pages that guests write: snapshots of VMs that were restored, or were
    /// snapshotted before, then write those alone, over a copy of the earlier one.
    pub(crate) track_dirty_pages: bool,
    /// First of the user and group ids that jailed VMs get, one each.
    #[schemars(range(min = 1))]
    pub(crate) first_uid: u32,
    /// How many of them there are: as many jailed VMs can run at once.
    #[schemars(range(min = 1))]
    pub(crate) uids: u32,
    /// Control group controllers without which no jailed VM is started, of `memory`, `cpu`, `pids` and `io`.
    pub(crate) cgroup_controllers: Vec<String>,
    /// How much of a sandbox's console is kept, in KiB.
    #[schemars(range(min = 4, max = 1_048_576))]
    pub(crate) console_limit_kib: u64,
    /// Further words of guests' kernel command line, for a kernel of one's own. A word NAME=VALUE that the kernel does not
    /// know is in the environment of its first process.
    #[schemars(inner(regex(pattern = r"^[!-~]+$")))]
    pub(crate) kernel_args: Vec<String>,
}

/// Which VMM runs sandboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VmmDriver {
    /// Firecracker where it is installed, KVM is fast and the daemon is root; QEMU elsewhere.
    #[default]
    Auto,
    /// QEMU, in software.
    Qemu,
    /// Firecracker, jailed.
    Firecracker,
}

/// Where the memory of a guest that Firecracker restores comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RestoreMemory {
    /// The snapshot's file: clones share the pages that they only read.
    #[default]
    File,
    /// A page-fault handler of Flames' own, one per VM, which fetches ahead what earlier clones touched first. Needs
    /// /dev/userfaultfd.
    Userfaultfd,
}

/// Whether each VM is confined to a jail of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Jail {
    /// A user, a root directory, namespaces and limits of its own, where the daemon is root. Without root QEMU runs
    /// without a jail, and Firecracker not at all.
    #[default]
    Jailed,
    /// No jail, for debugging: whoever breaks out of a VMM is the daemon's user.
    NoneInsecure,
}

impl Default for Vmm {
    fn default() -> Self {
        Self {
            driver: VmmDriver::Auto,
            qemu: PathBuf::from("qemu-system-x86_64"),
            firecracker: PathBuf::from("firecracker"),
            jailer: PathBuf::from("jailer"),
            jail: Jail::default(),
            restore_memory: RestoreMemory::default(),
            track_dirty_pages: false,
            first_uid: 1_000_000,
            uids: 65_536,
            cgroup_controllers: ["memory", "cpu", "pids"].map(str::to_owned).into(),
            console_limit_kib: 1024,
            kernel_args: Vec::new(),
        }
    }
}
