//! Control groups: which controllers the host has, and what the jailer is told to limit with them.

use crate::config::JailerConfig;
use flames_vmm::VmSpec;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The control groups of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cgroups {
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

/// Firecracker's threads beside the virtual CPUs', and room for the jailer's.
const OTHER_THREADS: u32 = 16;
/// Quotas are per this many microseconds.
const PERIOD_US: u32 = 100_000;
/// The controllers that limits are asked of.
const WANTED: [&str; 3] = ["memory", "cpu", "pids"];

impl Cgroups {
    /// Looks at what is mounted.
    pub(crate) fn find() -> Self {
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
            match kind {
                "cgroup" => {
                    first.extend(options.split(',').map(|name| (name.to_owned(), mount.clone())));
                }
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

    /// Wanted controllers that this host does not have.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        WANTED.into_iter().filter(|name| !self.controllers.contains_key(*name)).collect()
    }

    /// The jailer's arguments.
    pub(crate) fn arguments(&self, spec: &VmSpec, config: &JailerConfig) -> Vec<String> {
        let limits = self.limits(spec, config);
        if limits.is_empty() {
            return Vec::new();
        }
        let version = if self.version == Version::V1 { "1" } else { "2" };
        let mut arguments = vec!["--cgroup-version".to_owned(), version.to_owned()];
        arguments.extend(["--parent-cgroup".to_owned(), config.parent_cgroup.clone()]);
        for (file, value) in limits {
            arguments.extend(["--cgroup".to_owned(), format!("{file}={value}")]);
        }
        arguments
    }

    /// Makes the group that holds those of the VMs, with its weight.
    pub(crate) fn make_parent(&self, config: &JailerConfig) -> std::io::Result<()> {
        let Some(mount) = self.controllers.get("cpu") else { return Ok(()) };
        let parent = mount.join(&config.parent_cgroup);
        std::fs::create_dir_all(&parent)?;
        let weight = config.cpu_weight.clamp(1, 10_000);
        match self.version {
            // A share of 1,024 is a weight of 100.
            Version::V1 => std::fs::write(parent.join("cpu.shares"), (weight * 1024 / 100).to_string()),
            Version::V2 => {
                std::fs::write(mount.join("cgroup.subtree_control"), "+cpu")?;
                std::fs::write(parent.join("cpu.weight"), weight.to_string())
            }
        }
    }

    /// The VM's own groups, to be removed after it.
    pub(crate) fn folders(&self, spec: &VmSpec, config: &JailerConfig) -> Vec<PathBuf> {
        let mounts = WANTED.into_iter().filter_map(|name| self.controllers.get(name));
        let mut folders: Vec<PathBuf> =
            mounts.map(|mount| mount.join(&config.parent_cgroup).join(spec.id.as_str())).collect();
        folders.dedup();
        folders
    }

    fn limits(&self, spec: &VmSpec, config: &JailerConfig) -> Vec<(&'static str, String)> {
        let memory = spec.memory.bytes() + (u64::from(config.memory_overhead_mib) << 20);
        let cpu = u32::from(spec.vcpus) * PERIOD_US + config.cpu_overhead_percent * (PERIOD_US / 100);
        let threads = u32::from(spec.vcpus) + OTHER_THREADS;
        let all = match self.version {
            Version::V1 => [
                ("memory.limit_in_bytes", memory.to_string()),
                ("cpu.cfs_quota_us", cpu.to_string()),
                ("pids.max", threads.to_string()),
            ],
            Version::V2 => [
                ("memory.max", memory.to_string()),
                ("cpu.max", format!("{cpu} {PERIOD_US}")),
                ("pids.max", threads.to_string()),
            ],
        };
        let has = |file: &str| file.split('.').next().is_some_and(|name| self.controllers.contains_key(name));
        all.into_iter().filter(|(file, _)| has(file)).collect()
    }
}

/// Removes groups whose process is gone.
pub(crate) fn remove(folders: &[PathBuf]) {
    for folder in folders {
        if let Err(error) = std::fs::remove_dir(folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "cannot remove a control group");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_vmm::{BootChannel, MiB, Network, VmId};

    const V1: &str = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
    const V2: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";

    fn spec() -> VmSpec {
        VmSpec {
            id: VmId::parse("vm").unwrap(),
            run_dir: "/run/vm".into(),
            vcpus: 2,
            memory: MiB(192),
            kernel: "/vmlinux".into(),
            kernel_args: Vec::new(),
            disks: Vec::new(),
            network: Network::None,
            boot_channel: BootChannel { greeting: String::new() },
            console_limit_bytes: 1,
        }
    }

    #[test]
    fn limits_are_asked_of_the_controllers_that_exist() {
        let host = Cgroups::from_mounts(V1, |_| String::new());
        assert_eq!(host.missing(), ["pids"]);
        let arguments = host.arguments(&spec(), &JailerConfig::default()).join(" ");
        assert_eq!(
            arguments,
            "--cgroup-version 1 --parent-cgroup flames --cgroup memory.limit_in_bytes=268435456 \
             --cgroup cpu.cfs_quota_us=250000"
        );
        let folders = host.folders(&spec(), &JailerConfig::default());
        assert_eq!(
            folders,
            ["/sys/fs/cgroup/memory/flames/vm", "/sys/fs/cgroup/cpu,cpuacct/flames/vm"].map(PathBuf::from)
        );
    }

    #[test]
    fn the_unified_hierarchy_is_one_folder() {
        let host = Cgroups::from_mounts(V2, |_| "cpuset cpu io memory pids".to_owned());
        assert!(host.missing().is_empty());
        let arguments = host.arguments(&spec(), &JailerConfig::default());
        assert!(arguments.contains(&"cpu.max=250000 100000".to_owned()), "{arguments:?}");
        assert_eq!(
            host.folders(&spec(), &JailerConfig::default()),
            [PathBuf::from("/sys/fs/cgroup/flames/vm")]
        );
    }

    #[test]
    fn a_host_without_controllers_gets_no_limits() {
        let host = Cgroups::from_mounts("", |_| String::new());
        assert_eq!(host.missing().len(), 3);
        assert!(host.arguments(&spec(), &JailerConfig::default()).is_empty());
    }
}
