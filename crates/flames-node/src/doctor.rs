//! What this machine can do for microVMs, what stands in the way, and how to mend it.
//!
//! Each check looks (that part touches the machine) and judges (that part is a pure function of what was
//! seen). KVM is judged by measuring: its device may exist and still emulate guests instruction by
//! instruction.

mod kvm;
mod look;
mod pick;

pub use kvm::{KvmSpeed, MIN_INSTRUCTIONS_PER_SECOND};
pub use pick::{Pick, Vmm, pick_vmm};

use crate::net::{NetworkMode, SlotNames, UplinkConfig};
use crate::paths::{Assets, DataDir};
use crate::template::TemplateStore;
use flames_vmm::jail::{self, Cgroups, JailConfig};
use look::{ProgramVersion, UserFaults};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// VMs and their sockets need more than the usual 1024 descriptors soon.
const ENOUGH_FILES: u64 = 8192;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Short and stable, for programs.
    pub id: &'static str,
    /// The judgement.
    pub status: FindingStatus,
    /// What was found, for a person.
    pub found: String,
    /// What to do about it; `None` when there is nothing to do.
    pub mend: Option<String>,
}

/// How a finding is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingStatus {
    /// As it should be.
    Ok,
    /// Flames works, and would work better without this.
    Warn,
    /// No microVM can run until this is mended.
    Fail,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    /// The node's data directory; it need not exist.
    pub data_dir: PathBuf,
    /// The folder of assets.
    pub assets_dir: PathBuf,
    /// Bytes that creates leave free.
    pub disk_reserve_bytes: u64,
    /// The Firecracker program: a name that PATH finds, or a path.
    pub firecracker: PathBuf,
    /// The way out for sandboxes that may reach something.
    pub uplink: UplinkConfig,
}

impl Finding {
    fn ok(id: &'static str, found: impl Into<String>) -> Self {
        Self { id, status: FindingStatus::Ok, found: found.into(), mend: None }
    }

    fn warn(id: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { id, status: FindingStatus::Warn, found: found.into(), mend: Some(mend.into()) }
    }

    fn fail(id: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { id, status: FindingStatus::Fail, found: found.into(), mend: Some(mend.into()) }
    }
}

/// Looks at everything; takes about a second, most of it for measuring KVM. Leaves nothing behind.
pub async fn examine(config: &DoctorConfig) -> Vec<Finding> {
    let kvm = tokio::task::spawn_blocking(kvm::measure).await.unwrap_or(KvmSpeed::Hangs);
    let mut findings = vec![
        judge_kvm(&kvm),
        pick::look(&config.firecracker, &kvm).await,
        judge_rights(NetworkMode::detect()),
        judge_tun(look::open_error(Path::new("/dev/net/tun"))),
        judge_nft(look::version("nft", "--version").await.as_ref()),
        network_slot(&config.data_dir).await,
        uplink(config),
        judge_forwarding(NetworkMode::detect(), look::forwards().as_deref()),
        judge_cgroups(&Cgroups::find().missing()),
        judge_jail(
            jail::impediment(),
            Cgroups::find().impediment(&JailConfig::default()),
            tokio::task::spawn_blocking(jail::landlock_works).await.unwrap_or(false),
        ),
        judge_qemu(look::version("qemu-system-x86_64", "--version").await.as_ref()),
        judge_disk_tools(look::version("mke2fs", "-V").await.is_some(), look::exists_in_path("mkfs.erofs")),
    ];
    findings.extend(assets(config).await);
    findings.push(judge_disk(look::available_bytes(&config.data_dir), config.disk_reserve_bytes));
    findings.push(judge_files(look::file_limit()));
    findings.push(judge_user_faults(look::user_faults()));
    findings
}

fn judge_kvm(speed: &KvmSpeed) -> Finding {
    let software = "guests run under QEMU in software instead, correct and slower";
    match speed {
        KvmSpeed::Absent => Finding::warn(
            "kvm",
            "/dev/kvm does not exist",
            format!(
                "enable virtualisation in the firmware, or nested virtualisation in the cloud; {software}"
            ),
        ),
        KvmSpeed::Denied => Finding::warn(
            "kvm",
            "/dev/kvm exists and may not be opened",
            "add this user to the group `kvm` and log in again: `sudo usermod -aG kvm $USER`",
        ),
        KvmSpeed::Broken { step, error } => Finding::warn(
            "kvm",
            format!("/dev/kvm opens and cannot {step}: {error}"),
            format!("ask whoever runs the host; {software}"),
        ),
        KvmSpeed::Hangs => Finding::warn(
            "kvm",
            "/dev/kvm opens and a guest does not come back",
            format!("ask whoever runs the host; {software}"),
        ),
        KvmSpeed::Measured { instructions_per_second: rate } if *rate < MIN_INSTRUCTIONS_PER_SECOND => {
            Finding::warn(
                "kvm",
                format!(
                    "/dev/kvm runs {} guest instructions per second, less than the {} that make sense: the host emulates them",
                    million(*rate),
                    million(MIN_INSTRUCTIONS_PER_SECOND)
                ),
                format!("use a host with real virtualisation; {software}"),
            )
        }
        KvmSpeed::Measured { instructions_per_second: rate } => {
            Finding::ok("kvm", format!("{} guest instructions per second", million(*rate)))
        }
    }
}

fn million(rate: u64) -> String {
    format!("{:.1} million", rate as f64 / 1e6)
}

fn judge_rights(mode: NetworkMode) -> Finding {
    match mode {
        NetworkMode::Namespaces => {
            Finding::ok("rights", "runs as root: each VM gets its own network namespace and TAP")
        }
        NetworkMode::User => Finding::warn(
            "rights",
            "runs without root: VMs use QEMU's user-mode network, restricted; only the agent's port can be reached",
            "run the daemon as root for namespaces, TAPs, all guest ports, and limits by cgroups",
        ),
    }
}

fn judge_tun(error: Option<String>) -> Finding {
    match error {
        None => Finding::ok("tun", "/dev/net/tun opens"),
        Some(error) => Finding::warn(
            "tun",
            format!("/dev/net/tun does not open: {error}"),
            "load the module with `modprobe tun` and run as root; without it VMs use the user-mode network",
        ),
    }
}

fn judge_nft(version: Option<&ProgramVersion>) -> Finding {
    match version {
        Some(version) if version.at_least(1, 0) => Finding::ok("nft", version.line.clone()),
        Some(version) => Finding::warn(
            "nft",
            format!("{} is older than 1.0", version.line),
            "update nftables: its JSON interface is needed",
        ),
        None => Finding::warn(
            "nft",
            "`nft` is not installed",
            "`apt install nftables`; without it VMs use the user-mode network",
        ),
    }
}

/// Makes a network slot and takes it apart: proves namespaces, netlink, TAP and the kernel's nftables at once.
async fn network_slot(data_dir: &Path) -> Finding {
    if NetworkMode::detect() == NetworkMode::User {
        return Finding::warn(
            "network-slot",
            "not tried without root",
            "run `flames doctor` as root to try it",
        );
    }
    let start = Instant::now();
    let made = SlotNames::of(&data_dir.join("doctor")).create().await;
    let outcome = made.and_then(|slot| slot.remove());
    judge_slot(outcome.map(|()| start.elapsed().as_secs_f64() * 1000.0).map_err(|error| error.to_string()))
}

fn judge_slot(outcome: Result<f64, String>) -> Finding {
    match outcome {
        Ok(took_ms) => Finding::ok(
            "network-slot",
            format!("namespace, TAP and firewall made and removed in {took_ms:.0} ms"),
        ),
        Err(error) => Finding::fail(
            "network-slot",
            error,
            "the kernel needs network namespaces, tun, nf_tables and conntrack: `modprobe -a tun nf_tables nf_conntrack`",
        ),
    }
}

/// Opens the uplink as a daemon would: its namespace must be there and its range be free.
fn uplink(config: &DoctorConfig) -> Finding {
    if NetworkMode::detect() == NetworkMode::User {
        return Finding::warn("uplink", "not tried without root", "run `flames doctor` as root to try it");
    }
    let opened = SlotNames::with_uplink(&config.data_dir.join("doctor"), &config.uplink);
    judge_uplink(config.uplink.range, opened.map(drop).map_err(|error| error.to_string()))
}

fn judge_uplink(range: ipnet::Ipv4Net, opened: Result<(), String>) -> Finding {
    match opened {
        Ok(()) => Finding::ok("uplink", format!("nobody near this host has an address of {range}")),
        Err(error) => Finding::fail(
            "uplink",
            error,
            "set `range` and `uplink_namespace` in the section `[network]`: no daemon starts until then",
        ),
    }
}

fn judge_forwarding(mode: NetworkMode, switch: Option<&str>) -> Finding {
    match (mode, switch.map(str::trim)) {
        (NetworkMode::User, _) => Finding::warn(
            "forwarding",
            "without root no sandbox reaches anything",
            "run the daemon as root to let sandboxes out",
        ),
        (NetworkMode::Namespaces, Some("1")) => {
            Finding::ok("forwarding", "this host forwards: sandboxes may be let out")
        }
        (NetworkMode::Namespaces, _) => Finding::warn(
            "forwarding",
            "this host forwards nothing: sandboxes that may reach something are refused",
            "`sysctl -w net.ipv4.ip_forward=1`, and a line in /etc/sysctl.d; let nothing else through that should not be",
        ),
    }
}

fn judge_cgroups(missing: &[&str]) -> Finding {
    if missing.is_empty() {
        return Finding::ok("cgroups", "memory, cpu, pids and io");
    }
    let mend = "boot with `systemd.unified_cgroup_hierarchy=1` and without `cgroup_disable=`";
    Finding::warn("cgroups", format!("the host does not limit {}", missing.join(", ")), mend)
}

fn judge_jail(impediment: Option<String>, unlimited: Option<String>, landlock: bool) -> Finding {
    match (impediment, unlimited, landlock) {
        (Some(impediment), ..) => {
            Finding::warn("jail", "VMs run without a jail: who breaks out of a VMM is this user", impediment)
        }
        (None, Some(unlimited), _) => {
            Finding::fail("jail", "VMs cannot be limited, and are not started", unlimited)
        }
        (None, None, false) => Finding::warn(
            "jail",
            "each VM in a jail of its own; the kernel has no landlock",
            "add `landlock` to `lsm=` on the kernel's command line",
        ),
        (None, None, true) => Finding::ok("jail", "each VM in a jail of its own, with landlock"),
    }
}

fn judge_qemu(version: Option<&ProgramVersion>) -> Finding {
    match version {
        None => {
            Finding::fail("qemu", "`qemu-system-x86_64` is not installed", "`apt install qemu-system-x86`")
        }
        Some(version) if !version.at_least(7, 2) => {
            Finding::fail("qemu", format!("{} is too old", version.line), "install 7.2 or later")
        }
        Some(version) if !version.at_least(10, 0) => Finding::ok(
            "qemu",
            format!(
                "{}; guests run without address randomisation, which costs this version dearly: from 10 on it need not be switched off",
                version.line
            ),
        ),
        Some(version) => Finding::ok("qemu", version.line.clone()),
    }
}

fn judge_disk_tools(mke2fs: bool, mkfs_erofs: bool) -> Finding {
    match (mke2fs, mkfs_erofs) {
        (true, true) => Finding::ok("disk-tools", "mke2fs and mkfs.erofs are there"),
        (true, false) => Finding::warn(
            "disk-tools",
            "`mkfs.erofs` is not installed",
            "`apt install erofs-utils` to build templates",
        ),
        (false, _) => Finding::fail("disk-tools", "`mke2fs` is not installed", "`apt install e2fsprogs`"),
    }
}

async fn assets(config: &DoctorConfig) -> Vec<Finding> {
    let assets = Assets::at(&config.assets_dir);
    let kernel = match assets.check() {
        Ok(()) => {
            Finding::ok("kernel", format!("{} and the agent's disk are there", assets.kernel().display()))
        }
        Err(error) => Finding::fail("kernel", error.to_string(), "`make assets`"),
    };
    let data = DataDir::unchecked(&config.data_dir);
    let templates = TemplateStore::new(&assets, &data).list().await;
    let names =
        templates.map(|templates| templates.into_iter().map(|template| template.name.to_string()).collect());
    vec![kernel, judge_images(names.map_err(|error| error.to_string()))]
}

fn judge_images(names: Result<Vec<String>, String>) -> Finding {
    match names {
        Ok(names) if names.is_empty() => {
            Finding::fail("images", "there is no template", "`make assets`, or `flames template build`")
        }
        Ok(names) => Finding::ok("images", names.join(", ")),
        Err(error) => Finding::fail("images", error, "check the rights of the folder"),
    }
}

fn judge_disk(available: Option<u64>, reserve: u64) -> Finding {
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    match available {
        None => Finding::fail(
            "disk",
            "the data directory's file system does not tell its free space",
            "check the path",
        ),
        Some(free) if free <= reserve => Finding::fail(
            "disk",
            format!("{} free, {} kept in reserve: creates are refused", gib(free), gib(reserve)),
            "free some space, or lower `node.reserve_disk_mib`",
        ),
        Some(free) if free <= reserve.saturating_mul(4) => Finding::warn(
            "disk",
            format!("{} free, {} kept in reserve", gib(free), gib(reserve)),
            "free some space soon, for example with `flames rm` and `flames template rm`",
        ),
        Some(free) => Finding::ok("disk", format!("{} free", gib(free))),
    }
}

fn judge_files(limit: u64) -> Finding {
    if limit >= ENOUGH_FILES {
        return Finding::ok("open-files", format!("{limit} open files allowed"));
    }
    Finding::warn(
        "open-files",
        format!("only {limit} open files allowed"),
        format!("`ulimit -n {ENOUGH_FILES}`, or LimitNOFILE= in the unit"),
    )
}

fn judge_user_faults(faults: UserFaults) -> Finding {
    match faults {
        UserFaults::All => Finding::ok("userfaultfd", "available, also for faults inside the kernel"),
        UserFaults::UserOnly => Finding::warn(
            "userfaultfd",
            "only for faults in user space",
            "run as root, or `sysctl vm.unprivileged_userfaultfd=1`; snapshots are mapped from files until then",
        ),
        UserFaults::None => {
            Finding::warn("userfaultfd", "not available", "snapshots are mapped from files instead")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(instructions_per_second: u64) -> FindingStatus {
        judge_kvm(&KvmSpeed::Measured { instructions_per_second }).status
    }

    #[test]
    fn kvm_that_emulates_is_not_good_however_willingly_it_opens() {
        assert_eq!(measured(MIN_INSTRUCTIONS_PER_SECOND), FindingStatus::Ok);
        assert_eq!(measured(MIN_INSTRUCTIONS_PER_SECOND - 1), FindingStatus::Warn);
        assert_eq!(judge_kvm(&KvmSpeed::Hangs).status, FindingStatus::Warn);
    }

    #[test]
    fn a_denied_kvm_names_the_group() {
        assert!(judge_kvm(&KvmSpeed::Denied).mend.unwrap().contains("group `kvm`"));
    }

    #[test]
    fn a_host_that_forwards_nothing_is_a_warning_with_the_switch() {
        let judge = |switch| judge_forwarding(NetworkMode::Namespaces, switch);
        assert_eq!(judge(Some("1\n")).status, FindingStatus::Ok);
        assert!(judge(Some("0\n")).mend.unwrap().contains("net.ipv4.ip_forward=1"));
        assert_eq!(judge(None).status, FindingStatus::Warn);
    }

    #[test]
    fn a_range_that_overlaps_is_a_failure_that_names_the_setting() {
        let finding = judge_uplink("10.0.0.0/16".parse().unwrap(), Err("overlaps 10.0.3.0/24".into()));
        assert_eq!(finding.status, FindingStatus::Fail);
        assert!(finding.mend.unwrap().contains("[network]"));
    }

    #[test]
    fn a_missing_controller_is_named() {
        let finding = judge_cgroups(&["memory"]);
        assert_eq!(
            (finding.status, finding.found.as_str()),
            (FindingStatus::Warn, "the host does not limit memory")
        );
        assert_eq!(judge_cgroups(&[]).status, FindingStatus::Ok);
    }

    #[test]
    fn a_host_that_cannot_jail_is_warned_of_and_one_that_cannot_limit_its_jails_fails() {
        let text = |text: &str| Some(text.to_owned());
        let without_root = judge_jail(text("run it as root"), text("no memory"), true);
        assert_eq!((without_root.status, without_root.mend), (FindingStatus::Warn, text("run it as root")));
        assert_eq!(judge_jail(None, text("no memory"), true).status, FindingStatus::Fail);
        assert!(judge_jail(None, None, false).found.contains("no landlock"));
        assert_eq!(judge_jail(None, None, true).status, FindingStatus::Ok);
    }

    #[test]
    fn qemu_is_judged_by_its_version() {
        let judge = |line: &str| judge_qemu(ProgramVersion::parse(line).as_ref());
        assert_eq!(judge("QEMU emulator version 6.2.0").status, FindingStatus::Fail);
        assert!(judge("QEMU emulator version 7.2.22 (Debian 1:7.2)").found.contains("randomisation"));
        assert!(!judge("QEMU emulator version 10.0.2").found.contains("randomisation"));
        assert_eq!(judge_qemu(None).status, FindingStatus::Fail);
    }

    #[test]
    fn free_space_at_the_reserve_is_a_failure_and_near_it_a_warning() {
        assert_eq!(judge_disk(Some(100), 100).status, FindingStatus::Fail);
        assert_eq!(judge_disk(Some(400), 100).status, FindingStatus::Warn);
        assert_eq!(judge_disk(Some(401), 100).status, FindingStatus::Ok);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_finding_that_is_not_ok_says_how_to_mend_it_and_no_id_comes_twice() {
        let root = tempfile::tempdir().unwrap();
        let config = DoctorConfig {
            data_dir: root.path().join("data"),
            assets_dir: root.path().join("assets"),
            disk_reserve_bytes: 1 << 30,
            firecracker: "firecracker".into(),
            uplink: UplinkConfig::default(),
        };
        let findings = examine(&config).await;
        for finding in &findings {
            eprintln!("{finding:?}");
            assert_eq!(finding.mend.is_none(), finding.status == FindingStatus::Ok, "{finding:?}");
        }
        let ids: std::collections::HashSet<_> = findings.iter().map(|finding| finding.id).collect();
        assert_eq!(ids.len(), findings.len());
        assert!(
            findings.iter().any(|finding| finding.id == "kernel" && finding.status == FindingStatus::Fail)
        );
        assert!(!config.data_dir.exists(), "looking makes nothing");
    }
}
