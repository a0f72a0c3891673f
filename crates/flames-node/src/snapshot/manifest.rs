//! What is written next to a snapshot's parts (hazard C9): whose it is, what it fits, and how to know that its parts
//! are what was written.
//!
//! A part is hashed once, when the snapshot is sealed. A restore compares size, inode and times with those noted
//! then, which costs microseconds; only when they differ (a folder that was copied, say) is the part read again.

use super::{Contents, Keep};
use crate::paths::io_error;
use crate::{AccessToken, SnapshotId, SnapshotInfo, StartUp, TemplateName};
use flames_guest::control::Frozen;
use flames_vmm::{Error, ErrorKind, MiB, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Raised when an older Flames could not read what a newer one wrote.
const FORMAT: u32 = 2;
/// The first one knew no snapshots without memory; with memory it is the same.
const FORMAT_WITH_MEMORY: u32 = 1;

/// A snapshot in words. It holds the control token that the captured guest still has, or its environment: its file is
/// readable by its owner alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) id: SnapshotId,
    pub(crate) keep: Keep,
    pub(crate) created_unix: u64,
    pub(crate) host: HostFacts,
    pub(crate) guest: GuestFacts,
    pub(crate) control_token: AccessToken,
    /// What the guest must be told again: of a disk alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settings: Option<GuestSettings>,
    parts: BTreeMap<String, Part>,
}

/// What a snapshot tells about the guest, besides its parts.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    pub(crate) host: HostFacts,
    pub(crate) guest: GuestFacts,
    pub(crate) control_token: AccessToken,
    /// `None` where the memory holds them.
    pub(crate) settings: Option<GuestSettings>,
}

/// What a guest was told that only its memory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct GuestSettings(pub(crate) Frozen);

/// What a host must be to restore a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostFacts {
    pub(crate) driver: String,
    pub(crate) vmm_version: String,
    pub(crate) cpu_model: String,
    pub(crate) architecture: String,
}

/// What was captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuestFacts {
    pub(crate) template: TemplateName,
    pub(crate) template_sha256: String,
    pub(crate) kernel_sha256: String,
    pub(crate) agent_sha256: String,
    pub(crate) agent_version: String,
    pub(crate) vcpus: u8,
    pub(crate) memory: MiB,
    pub(crate) disk: MiB,
    /// What runs in it since it was booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start_up: Option<StartUp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    bytes: u64,
    /// `None` for what is not kept: forks follow at once, and nothing outlives them.
    sha256: Option<String>,
    seen: Fingerprint,
}

/// What changes when somebody writes to a file or puts another in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Fingerprint {
    inode: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl Manifest {
    /// Looks at the parts in `dir` and notes what they are; hashes them if they are to be kept.
    pub(crate) fn seal(
        dir: &Path,
        id: SnapshotId,
        keep: Keep,
        created_unix: u64,
        captured: Captured,
    ) -> Result<Self> {
        let Captured { host, guest, control_token, settings } = captured;
        let contents = contents_of(settings.as_ref());
        let mut parts = BTreeMap::new();
        for name in contents.parts() {
            parts.insert((*name).to_owned(), Part::seal(&dir.join(name), keep)?);
        }
        let format = match contents {
            Contents::MemoryAndDisk => FORMAT_WITH_MEMORY,
            Contents::DiskOnly => FORMAT,
        };
        Ok(Self { format, id, keep, created_unix, host, guest, control_token, settings, parts })
    }

    pub(crate) fn contents(&self) -> Contents {
        contents_of(self.settings.as_ref())
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| io_error("manifest", path, "read", error))?;
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "manifest", path.display().to_string())
                .detail(format!("{error}: remove the snapshot"))
                .source(error)
        })?;
        if (FORMAT_WITH_MEMORY..=FORMAT).contains(&manifest.format) {
            return Ok(manifest);
        }
        Err(Error::new(ErrorKind::Unsupported, "snapshot", manifest.id.as_str()).detail(format!(
            "has format {} and this Flames reads up to {FORMAT}: restore it with the Flames that wrote it, or remove it",
            manifest.format
        )))
    }

    /// Refuses a host that cannot continue the guest, or of a disk alone, cannot boot from it.
    pub(crate) fn check_host(&self, host: &HostFacts) -> Result<()> {
        let all = [
            ("architecture", &self.host.architecture, &host.architecture),
            ("VMM", &self.host.driver, &host.driver),
            ("VMM version", &self.host.vmm_version, &host.vmm_version),
            ("CPU", &self.host.cpu_model, &host.cpu_model),
        ];
        let count = match self.contents() {
            Contents::MemoryAndDisk => all.len(),
            Contents::DiskOnly => 1,
        };
        let differing = all.into_iter().take(count).find(|(_, taken, here)| taken != here);
        let Some((name, taken, here)) = differing else { return Ok(()) };
        Err(Error::new(ErrorKind::Unsupported, "snapshot", self.id.as_str()).operation("restore").detail(
            format!(
                "its {name} is `{taken}` and this host has `{here}`: restore it on a host like the one that took it, \
                 or create from the template `{}`",
                self.guest.template
            ),
        ))
    }

    /// Makes sure that every part in `dir` is what was written.
    pub(crate) fn check_parts(&self, dir: &Path) -> Result<()> {
        self.parts.iter().try_for_each(|(name, part)| part.check(&self.id, &dir.join(name)))
    }

    pub(crate) fn info(&self, clones: usize) -> SnapshotInfo {
        SnapshotInfo {
            id: self.id.clone(),
            contents: self.contents(),
            template: self.guest.template.clone(),
            vcpus: self.guest.vcpus,
            memory: self.guest.memory,
            disk: self.guest.disk,
            size_bytes: self.parts.values().map(|part| part.bytes).sum(),
            created_unix: self.created_unix,
            driver: self.host.driver.clone(),
            vmm_version: self.host.vmm_version.clone(),
            clones,
        }
    }
}

impl Part {
    fn seal(path: &Path, keep: Keep) -> Result<Self> {
        let broken = |operation| move |error| io_error("snapshot part", path, operation, error);
        let file = File::open(path).map_err(broken("open"))?;
        let sha256 = match keep {
            Keep::UntilRemoved => {
                let sum = hash(&file).map_err(broken("hash"))?;
                file.sync_all().map_err(broken("sync"))?;
                Some(sum)
            }
            Keep::ForForks => None,
        };
        let metadata = file.metadata().map_err(broken("stat"))?;
        Ok(Self { bytes: metadata.len(), sha256, seen: Fingerprint::of(&metadata) })
    }

    fn check(&self, id: &SnapshotId, path: &Path) -> Result<()> {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => return Err(damaged(id, path, &format!("cannot be read ({error})"))),
        };
        if metadata.len() != self.bytes {
            let (found, written) = (metadata.len(), self.bytes);
            return Err(damaged(id, path, &format!("has {found} bytes and was written with {written}")));
        }
        if Fingerprint::of(&metadata) == self.seen || self.has_the_same_content(path)? {
            return Ok(());
        }
        Err(damaged(id, path, "was altered: its sha256 is another"))
    }

    fn has_the_same_content(&self, path: &Path) -> Result<bool> {
        let file = File::open(path).map_err(|error| io_error("snapshot part", path, "open", error))?;
        let found = hash(&file).map_err(|error| io_error("snapshot part", path, "hash", error))?;
        Ok(self.sha256.as_ref() == Some(&found))
    }
}

impl Fingerprint {
    fn of(metadata: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            inode: metadata.ino(),
            modified_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl HostFacts {
    /// This host with a VMM.
    pub(crate) fn here(driver: &str, vmm_version: String) -> Self {
        Self {
            driver: driver.to_owned(),
            vmm_version,
            cpu_model: cpu_model(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            architecture: std::env::consts::ARCH.to_owned(),
        }
    }
}

/// A disk without a memory comes with what the memory would hold.
fn contents_of(settings: Option<&GuestSettings>) -> Contents {
    match settings {
        None => Contents::MemoryAndDisk,
        Some(_) => Contents::DiskOnly,
    }
}

fn cpu_model(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map(|(_, model)| model.trim().to_owned()).unwrap_or_default()
}

/// The hash of a whole file, as `sha256sum` gives it.
///
/// # Errors
/// That of the file.
pub(crate) fn hash_file(path: &Path) -> Result<String> {
    let hashed = File::open(path).and_then(|file| hash(&file));
    hashed.map_err(|error| io_error("file", path, "hash", error))
}

fn hash(mut file: &File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn damaged(id: &SnapshotId, path: &Path, what: &str) -> Error {
    let part = path.file_name().map(PathBuf::from).unwrap_or_default();
    Error::new(ErrorKind::Corrupt, "snapshot", id.as_str())
        .operation("restore")
        .detail(format!("its part `{}` {what}: remove the snapshot and take a new one", part.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(dir: &Path, keep: Keep) -> Manifest {
        sealed_with(dir, keep, None)
    }

    fn sealed_with(dir: &Path, keep: Keep, settings: Option<GuestSettings>) -> Manifest {
        for name in contents_of(settings.as_ref()).parts() {
            std::fs::write(dir.join(name), format!("content of {name}")).unwrap();
        }
        let guest = GuestFacts {
            template: TemplateName::parse("mini").unwrap(),
            template_sha256: "aa".into(),
            kernel_sha256: "bb".into(),
            agent_sha256: "cc".into(),
            agent_version: "1".into(),
            vcpus: 1,
            memory: MiB(64),
            disk: MiB(64),
            start_up: None,
        };
        let host = HostFacts::here("fake", "1.0".into());
        let captured = Captured { host, guest, control_token: AccessToken::new("control"), settings };
        Manifest::seal(dir, SnapshotId::parse("s1").unwrap(), keep, 7, captured).unwrap()
    }

    type Damage = fn(&Path);

    #[test]
    fn whole_parts_pass_and_missing_truncated_or_altered_ones_are_named() {
        let root = tempfile::tempdir().unwrap();
        let manifest = sealed(root.path(), Keep::UntilRemoved);
        manifest.check_parts(root.path()).unwrap();
        let memory = root.path().join("memory");
        let damages: [(&str, Damage); 3] = [
            ("altered", |part| std::fs::write(part, "CONTENT of memory").unwrap()),
            ("bytes", |part| std::fs::write(part, "content").unwrap()),
            ("cannot be read", |part| std::fs::remove_file(part).unwrap()),
        ];
        for (word, damage) in damages {
            damage(&memory);
            let error = manifest.check_parts(root.path()).unwrap_err();
            assert_eq!((error.kind(), error.id()), (ErrorKind::Corrupt, "s1"));
            assert!(error.to_string().contains("`memory`") && error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_copied_folder_is_read_again_and_found_whole() {
        let root = tempfile::tempdir().unwrap();
        let manifest = sealed(root.path(), Keep::UntilRemoved);
        let copy = tempfile::tempdir().unwrap();
        for name in Contents::MemoryAndDisk.parts() {
            std::fs::copy(root.path().join(name), copy.path().join(name)).unwrap();
        }
        manifest.check_parts(copy.path()).unwrap();
    }

    #[test]
    fn another_vmm_version_cpu_or_architecture_is_refused_with_both() {
        let root = tempfile::tempdir().unwrap();
        let manifest = sealed(root.path(), Keep::ForForks);
        let here = manifest.host.clone();
        manifest.check_host(&here).unwrap();
        let others = [
            HostFacts { vmm_version: "2.0".into(), ..here.clone() },
            HostFacts { cpu_model: "other".into(), ..here.clone() },
            HostFacts { architecture: "other".into(), ..here.clone() },
            HostFacts { driver: "other".into(), ..here },
        ];
        for other in others {
            let error = manifest.check_host(&other).unwrap_err();
            assert_eq!((error.kind(), error.id()), (ErrorKind::Unsupported, "s1"));
            assert!(error.to_string().contains("template `mini`"), "{error}");
        }
    }

    #[test]
    fn a_disk_alone_is_bound_to_the_architecture_and_its_own_content_and_to_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let settings = Frozen { default_user: "user".into(), ..Frozen::default() };
        let manifest = sealed_with(root.path(), Keep::UntilRemoved, Some(GuestSettings(settings)));
        assert_eq!((manifest.contents(), manifest.format), (Contents::DiskOnly, FORMAT));
        let here = HostFacts::here("other", "2.0".into());
        manifest.check_host(&HostFacts { cpu_model: "other".into(), ..here.clone() }).unwrap();
        let error = manifest.check_host(&HostFacts { architecture: "other".into(), ..here }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        manifest.check_parts(root.path()).unwrap();
        std::fs::write(root.path().join("disk.ext4"), "CONTENT of disk.ext4").unwrap();
        assert_eq!(manifest.check_parts(root.path()).unwrap_err().kind(), ErrorKind::Corrupt);
        let path = root.path().join("manifest.json");
        std::fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
        assert_eq!(Manifest::read(&path).unwrap(), manifest);
    }

    #[test]
    fn a_manifest_with_memory_is_still_one_that_older_builds_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(sealed(root.path(), Keep::UntilRemoved).format, 1);
    }

    #[test]
    fn a_manifest_of_a_newer_format_is_refused_by_its_number() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("manifest.json");
        let newer = Manifest { format: 9, ..sealed(root.path(), Keep::UntilRemoved) };
        std::fs::write(&path, serde_json::to_vec(&newer).unwrap()).unwrap();
        let error = Manifest::read(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 9"), "{error}");
        std::fs::write(&path, b"{").unwrap();
        assert_eq!(Manifest::read(&path).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
