//! What a node takes and gives. Parsed at the edge, not re-checked inside.

use crate::SnapshotId;
use flames_egress::EgressPolicy;
use flames_pool::{BootLevel, BootPath, Execution};
use flames_vmm::{Error, ErrorKind, Exit, MiB, Result, VmId, VmState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

/// What a create asks for.
#[derive(Clone, Debug)]
pub struct CreateVm {
    /// Names the run everywhere on this host; never used twice.
    pub run: VmId,
    /// What the guest calls itself; the sandbox's id.
    pub hostname: String,
    /// What to start from.
    pub from: StartFrom,
    /// What may be used of what was made ahead; for a template alone.
    pub level: BootLevel,
    /// Who the guest becomes.
    pub identity: Identity,
    /// Virtual CPUs. A snapshot has its own: then this must be the same.
    pub vcpus: u8,
    /// Guest memory; for a snapshot as with `vcpus`.
    pub memory: MiB,
    /// Size of the writable disk; for a snapshot as with `vcpus`. Sparse: only what is written takes room.
    pub disk: MiB,
    /// Environment of every process in the sandbox; `None` leaves what a snapshot holds.
    pub env: Option<BTreeMap<String, String>>,
    /// What clients of the agent must present.
    pub access_token: AccessToken,
    /// Whom a process runs as when nobody is named; `None` leaves what a snapshot holds.
    pub default_user: Option<String>,
    /// Where a process starts when nothing is said; `None` is the user's home, or what a snapshot holds.
    pub default_workdir: Option<String>,
    /// What the guest may reach. It holds before the guest is handed out.
    pub network: EgressPolicy,
    /// How long the guest may take from the VMM's start until the agent reports and what its template starts is ready.
    pub boot_deadline: Duration,
}

/// What a run starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// An image, or what was prepared of it: a warm VM, or the template's own snapshot.
    Template(TemplateName),
    /// What [`crate::Node::snapshot`] took of a run.
    Snapshot(SnapshotId),
}

/// Who a restored guest becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// Somebody new: another machine id, hostname and control token (hazards C2, C8).
    New,
    /// The same sandbox goes on where it was.
    Same,
}

/// A run that was handed out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreatedVm {
    /// Which run.
    pub run: VmId,
    /// Which way it went.
    pub path: BootPath,
    /// For people: why this way.
    pub why: String,
    /// How long each stage took.
    pub timings: StageTimings,
    /// What it has on this host.
    pub facts: RunFacts,
}

/// Duration of the node's stages, each in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageTimings {
    /// To take a slot, or to find a port.
    pub network_ms: f64,
    /// To make the run directory and the writable disk.
    pub disk_ms: f64,
    /// From the start of the VMM's process until only the guest was missing.
    pub vmm_spawn_ms: f64,
    /// From the first guest instruction to the agent's report; zero for a guest that was restored.
    pub kernel_to_agent_ms: f64,
    /// To load a snapshot's device state and let the guest run; zero for a guest that was booted.
    #[serde(default)]
    pub restore_ms: f64,
    /// For the handshake: time, entropy, token, environment.
    pub agent_init_ms: f64,
    /// For the template's start command until its ready command succeeded; zero for a guest that was restored, and
    /// for a template without.
    #[serde(default)]
    pub start_up_ms: f64,
}

/// What a run has on this host; for `inspect` and for whoever debugs the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Which VMM driver runs it.
    pub driver: String,
    /// Process id of the VMM.
    pub pid: u32,
    /// Name of its network namespace; `None` on a node without root.
    pub netns: Option<String>,
    /// Port on 127.0.0.1 that reaches the agent; only on a node without root.
    pub host_port: Option<u16>,
    /// Its own directory.
    pub run_dir: PathBuf,
    /// Its writable disk.
    pub disk: PathBuf,
    /// Its console log.
    pub console: PathBuf,
    /// The image it was started from.
    pub template: TemplateName,
    /// Hash of that image, hex; empty if nobody recorded one.
    pub template_sha256: String,
    /// Version of the agent inside.
    pub agent_version: String,
}

/// A run on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Which run.
    pub run: VmId,
    /// As last told to the VMM by this node.
    pub state: VmState,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Guest memory.
    pub memory: MiB,
    /// Size of the writable disk.
    pub disk: MiB,
    /// What it has on this host.
    pub facts: RunFacts,
}

/// The end of a run's VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunExit {
    /// Which run.
    pub run: VmId,
    /// Why, with the last lines of output.
    pub exit: Exit,
}

/// A byte stream to a port of a guest.
pub type GuestStream = Box<dyn Duplex>;

/// What a [`GuestStream`] can do.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin + fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + fmt::Debug> Duplex for T {}

/// The secret that a sandbox's clients present to its agent. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccessToken(Zeroizing<String>);

impl AccessToken {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    /// The secret itself, for the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(secret)")
    }
}

/// A template's name: a small letter or digit, then up to 62 of `a-z 0-9 . _ -`. Behind a colon the same again may follow: a
/// tag, which names one build of the template. Safe in paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TemplateName(String);

impl TemplateName {
    /// # Errors
    /// `InvalidInput` for anything that does not match `[a-z0-9][a-z0-9._-]{0,62}(:[a-z0-9][a-z0-9._-]{0,62})?`.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let (bare, tag) = text.split_once(':').map_or((text.as_str(), None), |(bare, tag)| (bare, Some(tag)));
        if is_name(bare) && tag.is_none_or(is_name) {
            return Ok(Self(text));
        }
        let mut shown = text;
        shown.truncate(shown.floor_char_boundary(80));
        Err(Error::new(ErrorKind::InvalidInput, "template name", shown).detail(
            "must be a small letter or digit, then up to 62 of a-z, 0-9, '.', '_' and '-'; a tag of the same form may \
             follow behind ':'",
        ))
    }

    /// The name without its tag.
    #[must_use]
    pub fn bare(&self) -> Self {
        Self(self.0.split(':').next().unwrap_or_default().to_owned())
    }

    /// The tag, for one build of the template.
    pub fn tag(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, tag)| tag)
    }

    /// The same template by another tag.
    ///
    /// # Errors
    /// `InvalidInput` for what cannot be a tag.
    pub fn tagged(&self, tag: &str) -> Result<Self> {
        Self::parse(format!("{}:{tag}", self.bare()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_name(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let legal = |byte: u8| word(byte) || matches!(byte, b'.' | b'_' | b'-');
    text.len() <= 63 && text.bytes().next().is_some_and(word) && text.bytes().all(legal)
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TemplateName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(text)
    }
}

impl From<TemplateName> for String {
    fn from(name: TemplateName) -> Self {
        name.0
    }
}

/// An image that runs can be created from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its name.
    pub name: TemplateName,
    /// Who made it.
    pub origin: TemplateOrigin,
    /// Size of the image in bytes.
    pub size_bytes: u64,
    /// Hash of the image, hex; empty if nobody recorded one.
    pub sha256: String,
    /// When the image was made, in seconds since 1970.
    pub created_unix: u64,
    /// What it was built from, for a person.
    pub built_from: String,
    /// What runs in its guests from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_up: Option<StartUp>,
    /// The image file.
    pub image: PathBuf,
}

/// What a template's guests run before anybody gets one. Both are commands of `/bin/sh -lc` by root, without network.
///
/// A guest that is booted starts it; the template's snapshot is taken afterwards, so clones find it running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartUp {
    /// Goes on running, or ends with success.
    pub command: String,
    /// Asked again and again until it succeeds; `None` is ready as soon as the command is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
}

/// Who made a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TemplateOrigin {
    /// It came with Flames.
    BuiltIn,
    /// It was built on this node.
    User,
}

/// A template to build.
#[derive(Clone, Debug)]
pub struct BuildTemplate {
    /// The name to give.
    pub name: TemplateName,
    /// The root file system.
    pub from: TemplateSource,
    /// What runs in its guests from the start.
    pub start_up: Option<StartUp>,
}

/// Where a template's root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateSource {
    /// A directory tree on the node.
    Directory(PathBuf),
    /// A tar archive on the node, plain or compressed in a way that `tar` detects.
    Tar(PathBuf),
}

/// How far a template build is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum BuildProgress {
    /// The archive is unpacked.
    Unpacking,
    /// The image is written.
    Packing {
        /// Bytes of the image so far.
        written_bytes: u64,
    },
    /// The image is hashed.
    Hashing,
}

/// What was found at the daemon's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Adoption {
    /// Runs that live and are owned again.
    pub adopted: Vec<RunInfo>,
    /// Runs whose VMM is gone; their resources were removed.
    pub gone: Vec<VmId>,
    /// Runs whose VMM lives and does not answer: neither adopted nor removed, and counted as orphans.
    pub stuck: Vec<VmId>,
    /// What else was removed.
    pub reaped: Reaped,
}

/// What was removed because it had no owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reaped {
    /// Names of the resources, by kind.
    pub removed: BTreeMap<LeakKind, Vec<String>>,
}

/// A kind of resource that could be left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeakKind {
    /// A VMM process.
    Process,
    /// A named network namespace.
    Namespace,
    /// A TAP device.
    Tap,
    /// A pair of links between a namespace and the way out.
    Veth,
    /// A set of firewall rules.
    Nft,
    /// A mount.
    Mount,
    /// A run directory.
    RunDir,
    /// A writable disk.
    Disk,
}

impl LeakKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Process,
        Self::Namespace,
        Self::Tap,
        Self::Veth,
        Self::Nft,
        Self::Mount,
        Self::RunDir,
        Self::Disk,
    ];
}

/// How many resources of one kind there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Leak {
    /// Which kind.
    pub kind: LeakKind,
    /// Owned by a run or a ready slot.
    pub owned: usize,
    /// Owned by nobody.
    pub orphaned: usize,
}

/// What a machine has, and what is left of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// Which VMM driver is in use.
    pub driver: String,
    /// Processors of the host.
    pub cpus: u32,
    /// Memory of the host.
    pub memory_total: MiB,
    /// Memory that could be given away now.
    pub memory_available: MiB,
    /// Room on the data directory's file system, in bytes.
    pub disk_available_bytes: u64,
    /// Runs on this node.
    pub runs: usize,
    /// The most virtual CPUs a run may have.
    pub max_vcpus: u8,
    /// The most memory a run may have.
    pub max_memory: MiB,
    /// Whether runs get a network namespace of their own, or the VMM's user-mode network.
    pub namespaces: bool,
    /// What runs the instructions of guests.
    pub execution: Execution,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_name_refuses_what_could_leave_its_folder() {
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "-x",
            "A",
            "a/b",
            "a b",
            "a\0",
            "é",
            &"a".repeat(64),
            "a:",
            ":a",
            "a:..",
            "a:b:c",
        ] {
            assert_eq!(TemplateName::parse(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
        for good in ["a", "base", "python-3.11_x", "app:v1.0", &"a".repeat(63)] {
            assert_eq!(TemplateName::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_tag_is_told_from_the_name_and_can_be_changed() {
        let (bare, tagged) = (TemplateName::parse("app").unwrap(), TemplateName::parse("app:v1").unwrap());
        assert_eq!((bare.tag(), tagged.tag()), (None, Some("v1")));
        assert_eq!((bare.bare(), tagged.bare()), (bare.clone(), bare.clone()));
        assert_eq!((bare.tagged("v1").unwrap(), tagged.tagged("v1").unwrap()), (tagged.clone(), tagged));
        assert_eq!(bare.tagged("v/1").unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn an_access_token_is_never_printed() {
        assert_eq!(format!("{:?}", AccessToken::new("hunter2")), "AccessToken(secret)");
    }
}
