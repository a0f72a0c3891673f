//! The values that a driver takes and gives. Facts, no behaviour; parsed at the edge, not re-checked inside.

use flames_provider::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Everything a VMM needs to know about one microVM.
#[derive(Clone, Debug)]
pub struct VmSpec {
    /// Names the VM in paths, process arguments and errors.
    pub id: VmId,
    /// A directory of this VM alone (mode 0700, made by the caller): sockets, console log, memory file.
    pub run_dir: PathBuf,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Guest memory.
    pub memory: MiB,
    /// An uncompressed ELF kernel.
    pub kernel: PathBuf,
    /// What the guest's user space wants on the kernel command line; the driver adds what its machine needs.
    pub kernel_args: Vec<String>,
    /// In the guest's order: the first is `/dev/vda`.
    pub disks: Vec<Disk>,
    /// How the guest is connected.
    pub network: Network,
    /// What is said over the private channel before the agent starts to serve.
    pub boot_channel: BootChannel,
    /// The console log keeps at most this many bytes (the newest).
    pub console_limit_bytes: u64,
}

/// What the driver writes to the agent over the private boot channel: one JSON line, never logged.
#[derive(Clone)]
pub struct BootChannel {
    /// The first line the agent reads, without its newline.
    pub greeting: String,
}

impl fmt::Debug for BootChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootChannel(secret)")
    }
}

/// What the agent answered over the boot channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentReady {
    /// The agent's version.
    pub version: String,
}

/// A block device of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// A raw file on the host.
    pub path: PathBuf,
    /// Whether the guest may write to it.
    pub access: DiskAccess,
}

/// Whether a guest may write to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskAccess {
    /// Shared with other VMs: nobody may ever write to it.
    ReadOnly,
    /// This VM's own.
    ReadWrite,
}

/// How the guest's network card is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// No network card.
    None,
    /// A TAP device that exists already, inside a network namespace.
    Tap {
        /// Path of the namespace, for example `/run/netns/fl-0`; the VMM is started inside it.
        netns: PathBuf,
        /// Name of the TAP inside the namespace.
        tap: String,
        /// The guest's hardware address.
        mac: MacAddress,
    },
    /// The VMM's user-mode network, for daemons without root: no way out, one port forwarded from loopback.
    User {
        /// Free port on 127.0.0.1 that reaches `guest_port`.
        host_port: u16,
        /// The agent's port.
        guest_port: u16,
        /// The guest's hardware address.
        mac: MacAddress,
    },
}

/// What a VMM process is started for. Every VM can be snapshotted later, however it was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareFor {
    /// [`crate::PreparedVm::boot`] comes next.
    Boot,
    /// [`crate::PreparedVm::restore`] comes next, from these parts. The spec must ask for the machine that they
    /// were taken of (CPUs, memory, number of disks, network): a driver notices other memory and what is missing,
    /// and not what is too many. Identity, files and host port are the clone's own.
    Restore(SnapshotParts),
}

/// What a driver can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Snapshots of every VM, and restores of every snapshot that this version of the VMM wrote.
    pub snapshots: bool,
    /// Runs guests on hardware virtualisation.
    pub hardware_virtualisation: bool,
    /// Can give a guest a network without any right on the host ([`Network::User`]).
    pub user_network: bool,
    /// Largest number of virtual CPUs.
    pub max_vcpus: u8,
    /// Largest guest memory.
    pub max_memory: MiB,
}

/// What a restarted daemon needs to find a VM again. Stored as JSON next to the VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmHandle {
    /// Which VM.
    pub id: VmId,
    /// Which driver wrote this.
    pub driver: String,
    /// Process id of the VMM.
    pub pid: u32,
    /// Start time of that process in clock ticks since boot (field 22 of `/proc/<pid>/stat`): a pid comes back, this pair does not.
    pub start_ticks: u64,
    /// The executable (`/proc/<pid>/exe`).
    pub executable: PathBuf,
    /// The VM's own directory.
    pub run_dir: PathBuf,
}

/// What a VMM says of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmDescription {
    /// Running or paused.
    pub state: VmState,
    /// Process id of the VMM.
    pub pid: u32,
    /// The VMM's exact version.
    pub vmm_version: String,
}

/// Whether virtual CPUs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmState {
    /// They run.
    Running,
    /// They do not, and can be resumed.
    Paused,
}

/// The files of a snapshot: written once, never changed afterwards. Clones map the memory, so its file must not
/// be written or shortened while one of them lives; removing its name does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotParts {
    /// Guest memory.
    pub memory: PathBuf,
    /// Device state.
    pub device_state: PathBuf,
    /// Exact version of the VMM that wrote them: only that version may read them.
    pub vmm_version: String,
}

/// How long each way of stopping may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopDeadlines {
    /// For the guest to power itself off; zero skips the question.
    pub graceful: Duration,
    /// For the process to be gone after it was killed.
    pub forced: Duration,
}

impl StopDeadlines {
    /// No question, five seconds for the kernel to take the process away.
    pub const KILL: Self = Self { graceful: Duration::ZERO, forced: Duration::from_secs(5) };
}

/// The end of a VMM process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Why it ended.
    pub cause: ExitCause,
    /// The VMM's last lines of output and of the console, for a person.
    pub last_output: String,
}

/// Why a VMM process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCause {
    /// The guest powered off or rebooted, by itself or because [`crate::RunningVm::stop`] asked it to: its
    /// disks are in order.
    GuestShutdown,
    /// The guest's kernel panicked.
    GuestPanic,
    /// [`crate::RunningVm::stop`] ended it by force.
    Stopped,
    /// It exited with this code and without being asked.
    Crashed {
        /// Exit code, if the process was our child and exited by itself.
        code: Option<i32>,
        /// Signal that ended it, if known.
        signal: Option<i32>,
    },
    /// The process is gone, and it was not our child: nobody can know why.
    Unknown,
}

/// The name of a VM: 1 to 64 of `a-z 0-9 -`, safe in paths and arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmId(String);

impl VmId {
    /// # Errors
    /// `InvalidInput` for anything but 1 to 64 of `a-z 0-9 -`.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
            return Ok(Self(text));
        }
        Err(Error::new(ErrorKind::InvalidInput, "vm id", text).detail("must be 1 to 64 of a-z, 0-9 and -"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for VmId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(text)
    }
}

impl From<VmId> for String {
    fn from(id: VmId) -> Self {
        id.0
    }
}

/// A number of mebibytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MiB(pub u32);

impl MiB {
    /// The same amount in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0) << 20
    }
}

impl fmt::Display for MiB {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

/// An Ethernet hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vm_id_refuses_what_could_leave_a_path_or_an_argument() {
        for bad in ["", "A", "a/b", "../x", "a b", "a,b", &"a".repeat(65)] {
            assert_eq!(VmId::parse(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
        assert_eq!(VmId::parse("run-0a").unwrap().as_str(), "run-0a");
    }

    #[test]
    fn a_vm_id_from_json_is_checked_too() {
        assert!(serde_json::from_str::<VmId>("\"../../etc\"").is_err());
    }
}
