//! What a jailed VMM is, as seen from outside: the same list for every driver.

use super::Factory;
use crate::{RunningVm, VmSpec};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a driver's jailed VMM may have; everything else it may not.
#[derive(Clone, Debug)]
pub struct Confined {
    /// The range that its user and group id are from.
    pub uids: Range<u32>,
    /// The control group above its own.
    pub parent_cgroup: String,
    /// Limit of its memory in bytes.
    pub memory_limit: u64,
    /// Largest number of its threads.
    pub threads: u64,
    /// The names in its root directory.
    pub root: BTreeSet<&'static str>,
    /// Mounts that it may write to, by their paths in its root directory.
    pub writable: Vec<&'static str>,
    /// What its descriptors may be open for, as `/proc/<pid>/fd` tells: a prefix, or a suffix behind `*`.
    pub open: Vec<&'static str>,
    /// The network namespace; one of its own, if there is none.
    pub network: Option<PathBuf>,
}

/// A control group, told from a later one of its name: another VM may be given the user id as soon as it is free, and
/// with it the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Where it is.
    pub folder: PathBuf,
    inode: u64,
}

impl Group {
    fn at(folder: PathBuf) -> Option<Self> {
        let inode = std::fs::metadata(&folder).ok()?.ino();
        Some(Self { folder, inode })
    }

    /// Whether this very group is there.
    pub fn exists(&self) -> bool {
        std::fs::metadata(&self.folder).is_ok_and(|found| found.ino() == self.inode)
    }
}

/// One process, through its folder in `/proc`.
#[derive(Clone, Copy, Debug)]
pub struct Seen(pub u32);

const NO_CAPABILITY: &str = "0000000000000000";

/// Asserts each of these of a VMM that runs.
pub fn is_confined(vm: &dyn RunningVm, expected: &Confined) {
    let process = Seen(vm.handle().pid);
    is_nobody(process, expected);
    is_in_its_own_namespaces(process, expected);
    sees_only_its_own(process, expected);
    has_inherited_nothing(process, expected);
    is_limited(process, expected);
    is_in_its_own_control_groups(process, expected);
}

/// Nothing of a VM that ended is left on its host: no user id, no control group, no file but logs.
pub async fn nothing_is_held_after_the_end(factory: &dyn Factory, spec: &VmSpec, vm: Box<dyn RunningVm>) {
    let process = Seen(vm.handle().pid);
    let (uid, groups) = (process.uid(), process.own_groups());
    assert!(!groups.is_empty());
    vm.stop(crate::StopDeadlines::KILL).await.unwrap();
    assert!(!factory.is_alive(&vm.handle()).await);
    let owner = crate::jail::JailConfig::default().claims.join(uid.to_string());
    let owner = std::fs::read_to_string(owner).unwrap_or_default();
    assert!(!owner.starts_with(&format!("{} ", process.0)), "{owner}");
    let left: Vec<_> = groups.iter().filter(|group| group.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    let names = std::fs::read_dir(&spec.run_dir).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    let is_log = |name: &String| [".log", ".log.times", ".stderr"].iter().any(|end| name.ends_with(end));
    assert!(names.iter().all(is_log), "{names:?}");
}

/// A user and a group of its own, no capability and no way to one, and a filter of system calls in each thread.
fn is_nobody(process: Seen, expected: &Confined) {
    let uid = process.uid();
    assert!(expected.uids.contains(&uid), "{uid}");
    for name in ["Uid", "Gid"] {
        assert_eq!(process.status(name), [uid; 4].map(|id| id.to_string()).join("\t"));
    }
    assert_eq!(process.status("Groups"), "");
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(process.status(name), NO_CAPABILITY, "{name}");
    }
    for thread in std::fs::read_dir(process.path("task")).unwrap() {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "a thread without a filter: {status}");
        assert!(status.contains("NoNewPrivs:\t1"), "a thread that may gain rights: {status}");
    }
}

fn is_in_its_own_namespaces(process: Seen, expected: &Confined) {
    let daemon = Seen(std::process::id());
    for name in ["pid", "mnt", "net", "ipc", "uts"] {
        assert_ne!(process.namespace(name), daemon.namespace(name), "{name}");
    }
    assert!(process.status("NSpid").ends_with("\t1"), "it is the first of its pid namespace");
    if let Some(network) = &expected.network {
        let inside = std::fs::metadata(process.path("ns/net")).unwrap().ino();
        assert_eq!(inside, std::fs::metadata(network).unwrap().ino());
    }
}

/// Its root directory holds what it needs; what is shared with others is mounted read-only; nobody else sees it there.
fn sees_only_its_own(process: Seen, expected: &Confined) {
    let root = std::fs::read_dir(process.path("root")).unwrap();
    let root: BTreeSet<String> =
        root.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(root, expected.root.iter().map(|name| (*name).to_owned()).collect());
    let mounts = process.read("mountinfo");
    for mount in mounts.lines() {
        let fields: Vec<&str> = mount.split(' ').collect();
        let (path, options) = (fields[4], fields[5]);
        let has = |option: &str| options.split(',').any(|one| one == option);
        if !expected.writable.contains(&path) {
            assert!(has("ro"), "{mount}");
        }
        assert!(path == "/" || (has("nosuid") && has("nodev")), "{mount}");
    }
    let outside = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!outside.contains("/jail/firecracker/") && !outside.contains(" cage "), "{outside}");
}

fn has_inherited_nothing(process: Seen, expected: &Confined) {
    assert_eq!(process.read("environ"), "");
    let open = std::fs::read_dir(process.path("fd")).unwrap();
    let open: Vec<String> = open
        .filter_map(|entry| {
            Some(std::fs::read_link(entry.unwrap().path()).ok()?.to_string_lossy().into_owned())
        })
        .collect();
    let known = |target: &&String| {
        expected.open.iter().any(|pattern| match pattern.strip_prefix('*') {
            Some(suffix) => target.ends_with(suffix),
            None => target.starts_with(pattern),
        })
    };
    let strange: Vec<_> = open.iter().filter(|target| !known(target)).collect();
    assert!(strange.is_empty(), "{strange:?} of {open:?}");
}

fn is_limited(process: Seen, _expected: &Confined) {
    let limits = process.read("limits");
    let words = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[26..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(words("Max open files"), ["2048", "2048"]);
    assert_eq!(words("Max core file size"), ["0", "0"]);
}

/// Of each controller that this host has: a group of its own, with a limit.
fn is_in_its_own_control_groups(process: Seen, expected: &Confined) {
    let groups = process.own_groups();
    let own = format!("/{}/vm-{}", expected.parent_cgroup, process.uid());
    assert!(!groups.is_empty(), "{}", process.read("cgroup"));
    assert!(groups.iter().all(|group| group.folder.ends_with(&own[1..])), "{own} in {groups:?}");
    let value = |name: &str| {
        let values = groups.iter().filter_map(|group| std::fs::read_to_string(group.folder.join(name)).ok());
        values.map(|value| value.trim().to_owned()).find(|value| !value.is_empty())
    };
    let either = |second: &str, first: &str| value(second).or_else(|| value(first));
    if has_controller("memory") {
        let limit = expected.memory_limit.to_string();
        assert_eq!(either("memory.max", "memory.limit_in_bytes"), Some(limit));
    }
    if has_controller("cpu") {
        let quota = either("cpu.max", "cpu.cfs_quota_us").unwrap();
        assert!(quota.split(' ').next().unwrap().parse::<u64>().unwrap() >= 100_000, "{quota}");
    }
    if has_controller("pids") {
        assert_eq!(value("pids.max"), Some(expected.threads.to_string()));
    }
    if has_controller("io") || has_controller("blkio") {
        let limit = either("io.max", "blkio.throttle.write_bps_device").unwrap_or_default();
        assert!(limit.contains("1073741824"), "{limit:?}");
    }
}

fn has_controller(name: &str) -> bool {
    let first = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let unified = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let mounted = |line: &str| line.contains(" cgroup ") && line.contains(&format!(",{name} "));
    unified.split_whitespace().any(|found| found == name) || first.lines().any(mounted)
}

impl Seen {
    /// A file of its folder.
    pub fn path(self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.0.to_string()).join(name)
    }

    /// What is in it.
    pub fn read(self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// A line of its status.
    pub fn status(self, name: &str) -> String {
        let status = self.read("status");
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap().trim().to_owned()
    }

    /// Its real user id.
    pub fn uid(self) -> u32 {
        self.status("Uid").split_whitespace().next().unwrap().parse().unwrap()
    }

    fn namespace(self, name: &str) -> PathBuf {
        std::fs::read_link(self.path("ns").join(name)).unwrap()
    }

    /// Its control groups, as folders, but for the roots of hierarchies.
    pub fn own_groups(self) -> Vec<Group> {
        let lines = self.read("cgroup");
        let groups = lines.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
            let mount = Path::new("/sys/fs/cgroup").join(controllers.trim_start_matches("name="));
            (!path.is_empty()).then(|| mount.join(path))
        });
        groups.filter_map(Group::at).collect()
    }
}
