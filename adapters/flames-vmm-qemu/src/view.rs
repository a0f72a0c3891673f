//! A spec as QEMU sees it: open descriptors for its disks, and in a jail other names for the rest.

use crate::files::FIRST_DISK_FD;
use crate::host::HostFacts;
use flames_vmm::jail::{Access, Mount, Openable};
use flames_vmm::{DiskAccess, Error, ErrorKind, Network, PrepareFor, Result, VmSpec};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What QEMU is told, and what it is given.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) spec: VmSpec,
    pub(crate) purpose: PrepareFor,
    /// In the order of the descriptors from [`FIRST_DISK_FD`] on.
    pub(crate) disks: Vec<File>,
    /// What a jail needs of this VM's.
    pub(crate) mounts: Vec<Mount>,
    pub(crate) openable: Openable,
}

/// Where the guest's kernel is in a jail.
const KERNEL: &str = "/kernel";
/// Where the memory of a snapshot is in a jail.
const MEMORY: &str = "/memory";

/// Devices that QEMU opens: the lock of a disk is tried out on the first.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/urandom"];
const TUN: &str = "/dev/net/tun";

impl View {
    /// Opens the disks, so that QEMU needs no right to do it and sees no path of the host's.
    pub(crate) fn new(spec: &VmSpec, purpose: &PrepareFor) -> Result<Self> {
        let disks = spec.disks.iter().map(open_disk).collect::<Result<Vec<File>>>()?;
        let (mut spec, purpose) = (spec.clone(), purpose.clone());
        for (number, disk) in spec.disks.iter_mut().enumerate() {
            disk.path = format!("/dev/fdset/{}", number + 1).into();
        }
        Ok(Self { spec, purpose, disks, mounts: Vec::new(), openable: Openable::default() })
    }

    /// For a QEMU with the host's own root directory: it may open what programs of the system may, and its own files.
    pub(crate) fn on_the_host(mut self, program: &Path, host: &HostFacts) -> Self {
        let system =
            ["/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/nix/store", "/gnu/store", "/proc", "/sys"];
        self.openable.read.extend(system.map(PathBuf::from));
        self.openable.read.extend([program.to_owned(), self.spec.kernel.clone()]);
        let memory = self.memory().cloned();
        self.allow(memory, host);
        self
    }

    /// For a QEMU in a jail.
    pub(crate) fn in_a_jail(mut self, host: &HostFacts) -> Self {
        let mount = |from: &Path, to: &str, access| Mount { from: from.to_owned(), to: to.into(), access };
        match &mut self.purpose {
            PrepareFor::Boot => {
                self.mounts.push(mount(&self.spec.kernel, KERNEL, Access::Read));
            }
            PrepareFor::Restore(parts) => {
                let access = if host.maps_read_only() { Access::Read } else { Access::Write };
                self.mounts.push(mount(&parts.memory, MEMORY, access));
                parts.memory = MEMORY.into();
            }
        }
        self.spec.kernel = KERNEL.into();
        self.openable.read.push("/".into());
        let memory = self.memory().cloned();
        self.allow(memory, host);
        self
    }

    /// The descriptors, in QEMU's words.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let pairs = (FIRST_DISK_FD..).zip(1..).take(self.disks.len());
        let set = |(descriptor, number)| ["-add-fd".into(), format!("fd={descriptor},set={number}").into()];
        pairs.flat_map(set).collect()
    }

    /// The devices that it opens.
    pub(crate) fn devices(&self) -> Vec<PathBuf> {
        let tun = matches!(self.spec.network, Network::Tap { .. }).then_some(TUN);
        DEVICES.into_iter().chain(tun).map(PathBuf::from).collect()
    }

    fn memory(&self) -> Option<&PathBuf> {
        match &self.purpose {
            PrepareFor::Boot => None,
            PrepareFor::Restore(parts) => Some(&parts.memory),
        }
    }

    fn allow(&mut self, memory: Option<PathBuf>, host: &HostFacts) {
        self.openable.write.extend(self.devices());
        if let Network::User { host_port, .. } = self.spec.network {
            self.openable.listen = Some(host_port);
        }
        let Some(memory) = memory else { return };
        let list = if host.maps_read_only() { &mut self.openable.read } else { &mut self.openable.write };
        list.push(memory);
    }
}

fn open_disk(disk: &flames_vmm::Disk) -> Result<File> {
    let writable = disk.access == DiskAccess::ReadWrite;
    File::options().read(true).write(writable).open(&disk.path).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, "disk", disk.path.display().to_string())
            .detail(format!("cannot be opened: {error}"))
            .source(error)
    })
}
