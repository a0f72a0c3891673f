//! The VMM of this machine, by configuration or by what the machine can do.

use crate::config::{Config, Jail, Limit, RestoreMemory, VmmDriver as Wanted};
use anyhow::Context;
use async_trait::async_trait;
use flames_node::doctor::{Vmm, pick_vmm};
use flames_vmm::jail::{JailConfig, JailMode};
use flames_vmm::{Capabilities, PrepareFor, PreparedVm, Result, RunningVm, VmHandle, VmSpec, VmmDriver};
use flames_vmm_firecracker::{BalloonConfig, FirecrackerConfig, FirecrackerDriver, MmdsConfig};
use flames_vmm_qemu::{QemuConfig, QemuDriver};
use std::path::Path;
use std::sync::Arc;

/// Where the measure of KVM is kept, in the data directory.
const KVM_MEASURE: &str = "kvm-measure";

/// Chooses the driver. One that was asked for by name must work.
pub(crate) async fn driver(config: &Config, data_dir: &Path) -> anyhow::Result<Arc<dyn VmmDriver>> {
    let chosen = match config.vmm.driver {
        Wanted::Qemu => Vmm::Qemu,
        Wanted::Firecracker => Vmm::Firecracker,
        Wanted::Auto => {
            let pick = pick_vmm(&config.vmm.firecracker, &data_dir.join(KVM_MEASURE)).await;
            tracing::info!(vmm = ?pick.vmm, why = pick.why, "the VMM was picked by what this machine can do");
            if pick.vmm == Vmm::Qemu {
                for key in config.vmm.not_for_qemu() {
                    let key = format!("vmm.{}", key.join("."));
                    tracing::warn!(
                        key,
                        "this setting has no effect: QEMU was picked, and it is Firecracker's"
                    );
                }
            }
            pick.vmm
        }
    };
    let qemu: Arc<dyn VmmDriver> = Arc::new(qemu(config));
    let firecracker: Arc<dyn VmmDriver> = Arc::new(firecracker(config));
    Ok(match chosen {
        Vmm::Qemu => Arc::new(Drivers { chosen: qemu, other: firecracker }),
        Vmm::Firecracker => {
            firecracker.version().await.context("vmm.driver")?;
            Arc::new(Drivers { chosen: firecracker, other: qemu })
        }
    })
}

fn qemu(config: &Config) -> QemuDriver {
    let binary = config.vmm.qemu.clone();
    QemuDriver::new(QemuConfig { binary, jail: jail(config), ..QemuConfig::default() })
}

fn firecracker(config: &Config) -> FirecrackerDriver {
    let (binary, jailer) = (config.vmm.firecracker.clone(), config.vmm.jailer.clone());
    FirecrackerDriver::new(FirecrackerConfig {
        binary,
        jailer,
        jail: jail(config),
        memory: match config.vmm.restore_memory {
            RestoreMemory::File => flames_vmm_firecracker::RestoreMemory::File,
            RestoreMemory::Userfaultfd => flames_vmm_firecracker::RestoreMemory::Userfaultfd,
        },
        track_dirty_pages: config.vmm.track_dirty_pages,
        drive_limit: limit(&config.vmm.drive_limit),
        receive_limit: limit(&config.vmm.receive_limit),
        send_limit: limit(&config.vmm.send_limit),
        // What a guest uses of its memory its agent tells.
        balloon: config
            .vmm
            .free_page_reporting
            .then_some(BalloonConfig { statistics_interval_s: 0, free_page_reporting: true }),
        mmds: config.vmm.mmds.as_ref().map(|mmds| MmdsConfig { contents: mmds.contents.clone() }),
        ..FirecrackerConfig::default()
    })
}

fn limit(limit: &Limit) -> flames_vmm_firecracker::Limit {
    flames_vmm_firecracker::Limit {
        bytes_per_second: limit.bytes_per_s,
        operations_per_second: limit.operations_per_s,
    }
}

/// The same for both drivers: their VMs share one range of user ids.
fn jail(config: &Config) -> JailConfig {
    let mode = match config.vmm.jail {
        Jail::Jailed => JailMode::Jailed,
        Jail::NoneInsecure => JailMode::NoneInsecure,
    };
    let (first_uid, uids) = (config.vmm.first_uid, config.vmm.uids);
    JailConfig {
        mode,
        first_uid,
        uids,
        controllers: config.vmm.cgroup_controllers.clone(),
        ..JailConfig::default()
    }
}

/// Starts VMs with one driver, and takes over those of both: the choice may have been another when they were
/// started.
#[derive(Debug)]
struct Drivers {
    chosen: Arc<dyn VmmDriver>,
    other: Arc<dyn VmmDriver>,
}

#[async_trait]
impl VmmDriver for Drivers {
    fn name(&self) -> &'static str {
        self.chosen.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.chosen.capabilities()
    }

    async fn version(&self) -> Result<String> {
        self.chosen.version().await
    }

    async fn prepare(&self, spec: VmSpec, purpose: PrepareFor) -> Result<Box<dyn PreparedVm>> {
        self.chosen.prepare(spec, purpose).await
    }

    async fn adopt(&self, handle: &VmHandle) -> Result<Option<Box<dyn RunningVm>>> {
        let whose = if handle.driver == self.other.name() { &self.other } else { &self.chosen };
        whose.adopt(handle).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_vmm::ErrorKind;

    fn drivers() -> Drivers {
        let config = Config::default();
        Drivers { chosen: Arc::new(qemu(&config)), other: Arc::new(firecracker(&config)) }
    }

    #[tokio::test]
    async fn a_vm_is_adopted_by_the_driver_that_started_it() {
        let folder = tempfile::tempdir().unwrap();
        let of = |driver: &str| VmHandle {
            id: flames_vmm::VmId::parse("vm").unwrap(),
            driver: driver.to_owned(),
            pid: std::process::id(),
            start_ticks: 1,
            executable: "/gone".into(),
            run_dir: folder.path().to_owned(),
        };
        for driver in ["qemu", "firecracker"] {
            assert!(drivers().adopt(&of(driver)).await.unwrap().is_none(), "{driver} finds it gone");
        }
        let error = drivers().adopt(&of("another")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
