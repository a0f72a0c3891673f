//! What an operator can choose.

use flames_vmm::MiB;
use flames_vmm::jail::JailConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the QEMU driver. The defaults are the measured ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QemuConfig {
    /// The program; looked up in `PATH` if it has no slash.
    pub binary: PathBuf,
    /// Firmware that loads the kernel; looked up in QEMU's own data directory if it has no slash.
    pub firmware: PathBuf,
    /// Cap of the translated-code buffer per VM, in MiB. QEMU's own default is 1 GiB; 8 is 2.5 times slower.
    pub translation_buffer_mib: u32,
    /// How VMs are confined.
    pub jail: JailConfig,
    /// Rate of the host's time stamp counter in kHz. Measured once when absent.
    pub tsc_khz: Option<u32>,
    /// Largest number of virtual CPUs of one VM.
    pub max_vcpus: u8,
    /// Largest guest memory of one VM, in MiB.
    pub max_memory_mib: u32,
    /// How long QEMU may take to answer one control command, in milliseconds.
    pub command_timeout_ms: u64,
    /// Further arguments, at the end of the command line: for debugging, nothing else.
    pub extra_args: Vec<String>,
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            binary: PathBuf::from("qemu-system-x86_64"),
            firmware: PathBuf::from("qboot.rom"),
            translation_buffer_mib: 64,
            jail: JailConfig::default(),
            tsc_khz: None,
            max_vcpus: 16,
            max_memory_mib: 64 * 1024,
            command_timeout_ms: 10_000,
            extra_args: Vec::new(),
        }
    }
}

impl QemuConfig {
    pub(crate) fn command_timeout(&self) -> Duration {
        Duration::from_millis(self.command_timeout_ms)
    }

    pub(crate) fn max_memory(&self) -> MiB {
        MiB(self.max_memory_mib)
    }
}
