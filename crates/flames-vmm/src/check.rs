//! What every driver refuses, before it starts anything.

use crate::spec::{Capabilities, Network, VmSpec};
use flames_provider::{Error, ErrorKind, Result};
use std::path::Path;

/// A smaller guest does not reach its agent.
const MIN_MEMORY_MIB: u32 = 32;
/// x86 kernels take 2,048 bytes; the driver's own part and the machine's device list need the rest.
const MAX_KERNEL_ARGS: usize = 1024;

impl VmSpec {
    /// Refuses what no VMM of these capabilities could run. Drivers call it first.
    ///
    /// # Errors
    /// `InvalidInput` naming the field or the file that is wrong; `Unsupported` for a network that this
    /// VMM does not have.
    pub async fn check(&self, capabilities: &Capabilities) -> Result<()> {
        self.check_values(capabilities)?;
        check_file("kernel", &self.kernel).await?;
        for disk in &self.disks {
            check_file("disk", &disk.path).await?;
        }
        Ok(())
    }

    /// The part of [`VmSpec::check`] that looks at no file.
    ///
    /// # Errors
    /// The same.
    pub fn check_values(&self, capabilities: &Capabilities) -> Result<()> {
        if !(1..=capabilities.max_vcpus).contains(&self.vcpus) {
            return Err(self.out_of_range("vcpus", self.vcpus.into(), 1, capabilities.max_vcpus.into()));
        }
        let most = capabilities.max_memory.0;
        if !(MIN_MEMORY_MIB..=most).contains(&self.memory.0) {
            return Err(self.out_of_range("memory in MiB", self.memory.0, MIN_MEMORY_MIB, most));
        }
        if matches!(self.network, Network::User { .. }) && !capabilities.user_network {
            return Err(Error::new(ErrorKind::Unsupported, "vm", self.id.as_str())
                .detail("this VMM has no user-mode network"));
        }
        self.check_kernel_args()
    }

    fn check_kernel_args(&self) -> Result<()> {
        let length: usize = self.kernel_args.iter().map(|word| word.len() + 1).sum();
        let illegal = |word: &&String| word.contains(|c: char| c.is_whitespace() || c.is_control());
        if let Some(word) = self.kernel_args.iter().find(illegal) {
            return Err(
                self.invalid(format!("kernel argument {word:?} holds a space or a control character"))
            );
        }
        if length > MAX_KERNEL_ARGS {
            return Err(
                self.invalid(format!("{length} bytes of kernel arguments, at most {MAX_KERNEL_ARGS}"))
            );
        }
        Ok(())
    }

    fn out_of_range(&self, what: &str, value: u32, least: u32, most: u32) -> Error {
        self.invalid(format!("{what} is {value}, must be {least} to {most}"))
    }

    fn invalid(&self, detail: String) -> Error {
        Error::new(ErrorKind::InvalidInput, "vm", self.id.as_str()).detail(detail)
    }
}

async fn check_file(resource: &'static str, path: &Path) -> Result<()> {
    let refuse = |detail: String| {
        Error::new(ErrorKind::InvalidInput, resource, path.display().to_string()).detail(detail)
    };
    match tokio::fs::metadata(path).await {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(refuse("is not a regular file".into())),
        Err(error) => Err(refuse(format!("cannot be used: {error}")).source(error)),
    }
}
