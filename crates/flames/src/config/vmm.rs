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
    /// What each drive of a sandbox may do, with Firecracker. This and the next two hold for sandboxes that run already as
    /// soon as a daemon with these settings takes them over.
    pub(crate) drive_limit: Limit,
    /// What each sandbox may receive, with Firecracker.
    pub(crate) receive_limit: Limit,
    /// What each sandbox may send, with Firecracker.
    pub(crate) send_limit: Limit,
    /// Whether guests in Firecracker give memory back that they no longer use, while more than 128 MiB are free. Those of
    /// snapshots that were taken without it do not; templates get new snapshots.
    pub(crate) free_page_reporting: bool,
    /// Firecracker's metadata service at 169.254.169.254, which answers whoever in the sandbox asks with a token. There is
    /// none unless this is here, and none in sandboxes of snapshots that were taken without; templates get new snapshots.
    pub(crate) mmds: Option<Mmds>,
}

/// Rates of a device; absent ones are not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limit {
    /// Bytes a second.
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub(crate) bytes_per_s: Option<i64>,
    /// Requests or packets a second.
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub(crate) operations_per_s: Option<i64>,
}

/// The metadata service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Mmds {
    /// What it answers: tables and texts. No secrets: every program in every sandbox may read all of it.
    pub(crate) contents: serde_json::Map<String, serde_json::Value>,
}

/// Most that Firecracker keeps of it, as JSON.
const MMDS_BYTES: usize = 51_200;

impl Vmm {
    /// What one key says about another, by the keys below `[vmm]`.
    pub(super) fn mistakes(&self) -> Vec<(&'static [&'static str], String)> {
        let contents = self.mmds.as_ref().and_then(|mmds| mmds.mistake());
        let asked = if self.driver == VmmDriver::Qemu { self.not_for_qemu() } else { Vec::new() };
        let not_there = asked.into_iter().map(|key| (key, "QEMU has none: it is Firecracker's".to_owned()));
        not_there.chain(contents.map(|problem| (&["mmds", "contents"][..], problem))).collect()
    }

    /// The keys below `[vmm]` that are set and mean nothing to QEMU.
    pub(crate) fn not_for_qemu(&self) -> Vec<&'static [&'static str]> {
        let asked: [(&[&str], bool); 7] = [
            (&["restore_memory"], self.restore_memory != RestoreMemory::default()),
            (&["track_dirty_pages"], self.track_dirty_pages),
            (&["drive_limit"], self.drive_limit != Limit::default()),
            (&["receive_limit"], self.receive_limit != Limit::default()),
            (&["send_limit"], self.send_limit != Limit::default()),
            (&["free_page_reporting"], self.free_page_reporting),
            (&["mmds"], self.mmds.is_some()),
        ];
        asked.into_iter().filter(|(_, asked)| *asked).map(|(key, _)| key).collect()
    }

    /// What a guest has from its boot on, and a restored one if its snapshot's had it.
    pub(crate) fn extras(&self) -> Vec<String> {
        let asked = [("free-page-reporting", self.free_page_reporting), ("mmds", self.mmds.is_some())];
        asked.into_iter().filter(|(_, asked)| *asked).map(|(name, _)| name.to_owned()).collect()
    }
}

impl Mmds {
    fn mistake(&self) -> Option<String> {
        if let Some(name) = self.contents.iter().find_map(|(name, value)| no_text(name, value)) {
            return Some(format!("{name} is neither a table nor a text: the service answers no other"));
        }
        let bytes = serde_json::to_vec(&self.contents).map_or(0, |json| json.len());
        (bytes > MMDS_BYTES).then(|| format!("it has {bytes} bytes as JSON, and may have {MMDS_BYTES}"))
    }
}

/// The name of what is neither a table nor a text. A date is, for TOML, a table with a name that nobody writes.
fn no_text(name: &str, value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(_) if name.starts_with('$') => Some("a date".to_owned()),
        serde_json::Value::String(_) => None,
        serde_json::Value::Object(table) => table.iter().find_map(|(name, value)| no_text(name, value)),
        _ => Some(format!("{name:?}")),
    }
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
            drive_limit: Limit::default(),
            receive_limit: Limit::default(),
            send_limit: Limit::default(),
            free_page_reporting: false,
            mmds: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn mistakes(text: &str) -> Vec<String> {
        let told = Config::parse("f.toml", text).err().map(|bad| bad.to_string()).unwrap_or_default();
        told.lines().skip(1).map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn what_qemu_has_not_is_refused_where_qemu_is_asked_for() {
        let text = "[vmm]\nfree_page_reporting = true\n[vmm.mmds]\n[vmm.drive_limit]\nbytes_per_s = 7\n";
        assert_eq!(mistakes(text), Vec::<String>::new());
        let told = mistakes(&text.replace("[vmm]\n", "[vmm]\ndriver = \"qemu\"\n"));
        let expected =
            ["f.toml:3: vmm.free_page_reporting:", "f.toml:4: vmm.mmds:", "f.toml:5: vmm.drive_limit:"];
        for place in expected {
            assert!(told.iter().any(|mistake| mistake.starts_with(place)), "{place} in {told:#?}");
        }
    }

    #[test]
    fn a_limit_of_nothing_is_refused() {
        let told = mistakes("[vmm.send_limit]\nbytes_per_s = 0\n");
        assert!(told[0].starts_with("f.toml:2: vmm.send_limit.bytes_per_s"), "{told:?}");
    }

    #[test]
    fn metadata_that_the_service_could_not_answer_is_refused() {
        let good = "[vmm.mmds.contents]\nregion = \"here\"\n[vmm.mmds.contents.a]\nb = \"c\"\n";
        assert_eq!(mistakes(good), Vec::<String>::new());
        for (value, says) in [("7", "\"x\""), ("1979-05-27", "a date"), ("[\"a\"]", "\"x\"")] {
            let told = mistakes(&format!("[vmm.mmds.contents.a]\nx = {value}\n"));
            assert!(told[0].contains("vmm.mmds.contents") && told[0].contains(says), "{told:?}");
        }
        let large = format!("[vmm.mmds.contents]\nx = \"{}\"\n", "y".repeat(51_200));
        assert!(mistakes(&large)[0].contains("51208 bytes"), "{:.200?}", mistakes(&large));
    }
}
