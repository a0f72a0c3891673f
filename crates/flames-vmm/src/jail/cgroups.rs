//! Control groups: which controllers the host has, and what VMs are limited to with them.
//!
//! A group is made before its VM's process, with its limits, and the process is moved into it from outside while it
//! starts: that takes milliseconds, which nobody waits for, and no guest runs before it is done. Neither version
//! moves memory that was touched before; of a VMM that is only the start of its own program.

use super::config::JailConfig;
use super::uids;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The control groups of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    version: Version,
    /// Where each controller's hierarchy is mounted; with version 2 it is the same for all.
    controllers: BTreeMap<String, PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Version {
    V1,
    #[default]
    V2,
}

/// What a VM is to be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Memory of the guest, and what its VMM is known to take.
    pub memory_bytes: u64,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// The VMM's threads beside those of the virtual CPUs.
    pub other_threads: u32,
    /// Files on devices whose use is to be limited.
    pub disks: Vec<PathBuf>,
}

/// Quotas are per this many microseconds.
const PERIOD_US: u32 = 100_000;
/// The controllers that limits are asked of, by their names in version 2.
const WANTED: [&str; 4] = ["memory", "cpu", "pids", "io"];
/// Version 1's name of `io`.
const BLKIO: &str = "blkio";

/// One write to a group's file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    file: &'static str,
    value: String,
}

impl Cgroups {
    /// Looks at what this host has and makes the group that the VMs' own are in. Says in the log what is missing.
    ///
    /// # Errors
    /// Why VMs cannot be limited as the configuration demands, with the mend.
    pub fn prepare(config: &JailConfig) -> Result<Self, String> {
        let cgroups = Self::find();
        if let Some(impediment) = cgroups.impediment(config) {
            return Err(impediment);
        }
        for name in cgroups.missing() {
            tracing::warn!(name, "this host lacks a control group controller: VMs are not limited by it");
        }
        cgroups.make_parent(config).map_err(|error| format!("cannot make control groups: {error}"))?;
        Ok(cgroups)
    }

    /// Looks at what is mounted.
    pub fn find() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self::from_mounts(&mounts, |mount| {
            std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()
        })
    }

    /// A host that has both has its controllers in version 1, mostly: a controller is in one of them only.
    fn from_mounts(mounts: &str, unified_controllers: impl Fn(&Path) -> String) -> Self {
        let mut first = BTreeMap::new();
        let mut unified = BTreeMap::new();
        for line in mounts.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, mount, kind, options, ..] = words[..] else { continue };
            let mount = PathBuf::from(mount);
            let named = |name: &str| if name == BLKIO { "io".to_owned() } else { name.to_owned() };
            match kind {
                "cgroup" => first.extend(options.split(',').map(|name| (named(name), mount.clone()))),
                "cgroup2" => {
                    let names = unified_controllers(&mount);
                    unified.extend(names.split_whitespace().map(|name| (name.to_owned(), mount.clone())));
                }
                _ => {}
            }
        }
        match first.contains_key("memory") || (unified.is_empty() && !first.is_empty()) {
            true => Self { version: Version::V1, controllers: first },
            false => Self { version: Version::V2, controllers: unified },
        }
    }

    /// Those of the wanted controllers that this host does not have.
    pub fn missing(&self) -> Vec<&'static str> {
        WANTED.into_iter().filter(|name| !self.has(name)).collect()
    }

    /// Why VMs cannot be limited as the configuration demands, with the mend.
    pub fn impediment(&self, config: &JailConfig) -> Option<String> {
        let lacking = config.controllers.iter().filter(|name| !self.has(name));
        let lacking: Vec<&str> = lacking.map(String::as_str).collect();
        (!lacking.is_empty()).then(|| {
            format!(
                "this host lacks the control group controllers {}; switch them on (on the kernel's command line: \
                 cgroup_enable=, systemd.unified_cgroup_hierarchy=1), or demand fewer",
                lacking.join(", ")
            )
        })
    }

    fn has(&self, name: &str) -> bool {
        self.controllers.contains_key(name)
    }

    /// Makes the group that holds those of the VMs, with its weight, and removes from it what daemons that died have
    /// left: groups of ids that nobody has.
    ///
    /// # Errors
    /// When a group cannot be made or written to.
    pub fn make_parent(&self, config: &JailConfig) -> io::Result<()> {
        for (name, mount) in self.wanted() {
            let parent = mount.join(&config.parent_cgroup);
            std::fs::create_dir_all(&parent)?;
            clear(&parent, config)?;
            if self.version == Version::V2 {
                for group in [mount, &parent] {
                    write(&group.join("cgroup.subtree_control"), &format!("+{name}"))?;
                }
            }
        }
        let Some(cpu) = self.controllers.get("cpu") else { return Ok(()) };
        let (parent, weight) = (cpu.join(&config.parent_cgroup), config.cpu_weight.clamp(1, 10_000));
        match self.version {
            // A share of 1,024 is a weight of 100.
            Version::V1 => write(&parent.join("cpu.shares"), &(weight * 1024 / 100).to_string()),
            Version::V2 => write(&parent.join("cpu.weight"), &weight.to_string()),
        }
    }

    /// A VM's own groups, to be removed after it.
    pub(super) fn folders(&self, name: &str, config: &JailConfig) -> Vec<PathBuf> {
        let folders = self.wanted().map(|(_, mount)| mount.join(&config.parent_cgroup).join(name));
        let mut folders: Vec<PathBuf> = folders.collect();
        folders.dedup();
        folders
    }

    /// Sets the limits of a VM's own groups.
    pub(super) fn limit(&self, name: &str, needs: &Needs, config: &JailConfig) -> io::Result<()> {
        for setting in self.settings(needs, config, &devices(&needs.disks)) {
            let Some(mount) = self.controllers.get(setting.controller) else { continue };
            write(&mount.join(&config.parent_cgroup).join(name).join(setting.file), &setting.value)?;
        }
        Ok(())
    }

    fn wanted(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        WANTED.into_iter().filter_map(|name| Some((name, self.controllers.get(name)?)))
    }

    fn settings(&self, needs: &Needs, config: &JailConfig, devices: &[String]) -> Vec<Setting> {
        let memory = needs.memory_bytes + (u64::from(config.memory_overhead_mib) << 20);
        let cpu = u32::from(needs.vcpus) * PERIOD_US + config.cpu_overhead_percent * (PERIOD_US / 100);
        let threads = u32::from(needs.vcpus) + needs.other_threads;
        let set = |controller, file, value| Setting { controller, file, value };
        let mut all = match self.version {
            Version::V1 => vec![
                set("memory", "memory.limit_in_bytes", memory.to_string()),
                set("cpu", "cpu.cfs_quota_us", cpu.to_string()),
            ],
            Version::V2 => vec![
                set("memory", "memory.max", memory.to_string()),
                set("cpu", "cpu.max", format!("{cpu} {PERIOD_US}")),
            ],
        };
        all.push(set("pids", "pids.max", threads.to_string()));
        all.extend(devices.iter().flat_map(|device| self.io(device, config)));
        all
    }

    fn io(&self, device: &str, config: &JailConfig) -> Vec<Setting> {
        let (bytes, operations) = (config.io.bytes_per_second, config.io.operations_per_second);
        let of = |pairs: [(&'static str, Option<u64>); 4]| {
            pairs.into_iter().filter_map(|(name, limit)| Some((name, limit?)))
        };
        let set = |file, value| Setting { controller: "io", file, value };
        match self.version {
            Version::V1 => of([
                ("blkio.throttle.read_bps_device", bytes),
                ("blkio.throttle.write_bps_device", bytes),
                ("blkio.throttle.read_iops_device", operations),
                ("blkio.throttle.write_iops_device", operations),
            ])
            .map(|(file, limit)| set(file, format!("{device} {limit}")))
            .collect(),
            Version::V2 => {
                let limits =
                    of([("rbps", bytes), ("wbps", bytes), ("riops", operations), ("wiops", operations)]);
                let limits: String = limits.map(|(name, limit)| format!(" {name}={limit}")).collect();
                if limits.is_empty() { Vec::new() } else { vec![set("io.max", format!("{device}{limits}"))] }
            }
        }
    }
}

fn clear(parent: &Path, config: &JailConfig) -> io::Result<()> {
    let names = std::fs::read_dir(parent)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let uids = names.filter_map(|name| name.strip_prefix("vm-")?.parse().ok());
    uids::for_free_ones(config, uids, |uid| remove(&[parent.join(format!("vm-{uid}"))]))
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    std::fs::write(file, value)
        .map_err(|error| io::Error::other(format!("{value} to {}: {error}", file.display())))
}

/// The whole disks that hold these files, as `major:minor`. What is on no disk (a file system in memory or on the
/// network) is passed over.
fn devices(files: &[PathBuf]) -> Vec<String> {
    let mut found: Vec<String> = files.iter().filter_map(|file| device(file)).collect();
    found.sort();
    found.dedup();
    found
}

fn device(file: &Path) -> Option<String> {
    let number = std::fs::metadata(file).ok()?.dev();
    let name = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let device = Path::new("/sys/dev/block").join(name).canonicalize().ok()?;
    // Limits are of disks, not of their parts.
    let disk = if device.join("partition").exists() { device.parent()?.to_owned() } else { device };
    Some(std::fs::read_to_string(disk.join("dev")).ok()?.trim().to_owned())
}

/// Moves a process into groups.
pub(super) fn join(folders: &[PathBuf], pid: u32) -> io::Result<()> {
    folders.iter().try_for_each(|folder| write(&folder.join("cgroup.procs"), &pid.to_string()))
}

/// Removes groups whose process is gone.
pub(super) fn remove(folders: &[PathBuf]) {
    for folder in folders {
        if let Err(error) = std::fs::remove_dir(folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "cannot remove a control group");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
    const V2: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";

    fn needs() -> Needs {
        Needs { memory_bytes: 192 << 20, vcpus: 2, other_threads: 16, disks: Vec::new() }
    }

    fn settings(host: &Cgroups) -> Vec<String> {
        let all = host.settings(&needs(), &JailConfig::default(), &["8:0".to_owned()]);
        all.into_iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    #[test]
    fn version_1_has_a_folder_and_files_for_each_controller() {
        let host = Cgroups::from_mounts(V1, |_| String::new());
        assert_eq!(host.missing(), ["pids"]);
        assert_eq!(
            settings(&host),
            [
                "memory.limit_in_bytes=268435456",
                "cpu.cfs_quota_us=250000",
                "pids.max=18",
                "blkio.throttle.read_bps_device=8:0 1073741824",
                "blkio.throttle.write_bps_device=8:0 1073741824",
                "blkio.throttle.read_iops_device=8:0 50000",
                "blkio.throttle.write_iops_device=8:0 50000",
            ]
        );
        let folders = ["memory/flames/vm", "cpu,cpuacct/flames/vm", "blkio/flames/vm"]
            .map(|name| Path::new("/sys/fs/cgroup").join(name));
        assert_eq!(host.folders("vm", &JailConfig::default()), folders);
    }

    #[test]
    fn what_a_daemon_that_died_left_is_removed_and_what_lives_stays() {
        let folder = tempfile::tempdir().unwrap();
        let config = JailConfig { claims: folder.path().join("uids"), uids: 1, ..JailConfig::default() };
        let claim = uids::Claim::take(&config).unwrap();
        let parent = folder.path().join("flames");
        let [dead, live] = [4711, claim.uid].map(|uid| parent.join(format!("vm-{uid}")));
        for group in [&dead, &live] {
            std::fs::create_dir_all(group).unwrap();
        }
        clear(&parent, &config).unwrap();
        assert_eq!((dead.exists(), live.exists()), (false, true));
    }

    #[test]
    fn the_unified_hierarchy_is_one_folder() {
        let host = Cgroups::from_mounts(V2, |_| "cpuset cpu io memory pids".to_owned());
        assert!(host.missing().is_empty());
        assert_eq!(
            settings(&host),
            [
                "memory.max=268435456",
                "cpu.max=250000 100000",
                "pids.max=18",
                "io.max=8:0 rbps=1073741824 wbps=1073741824 riops=50000 wiops=50000",
            ]
        );
        assert_eq!(host.folders("vm", &JailConfig::default()), [PathBuf::from("/sys/fs/cgroup/flames/vm")]);
    }

    #[test]
    fn a_controller_that_is_demanded_and_missing_is_named_with_the_mend() {
        let host = Cgroups::from_mounts(V1, |_| String::new());
        let impediment = host.impediment(&JailConfig::default()).unwrap();
        assert!(impediment.contains("pids") && impediment.contains("cgroup_enable"), "{impediment}");
        let fewer = JailConfig { controllers: vec!["memory".to_owned()], ..JailConfig::default() };
        assert_eq!(host.impediment(&fewer), None);
    }
}
