//! What every driver refuses, before it starts anything.

use crate::spec::{Capabilities, Network, VmSpec};
use flames_provider::{Error, ErrorKind, Result};
use std::path::Path;
use tokio::io::AsyncReadExt;

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

    /// Refuses a kernel that no machine of this host's could start. Drivers call it before a boot; a restore reads no
    /// kernel.
    ///
    /// # Errors
    /// `InvalidInput` for what is no uncompressed 64-bit ELF kernel, with the mend.
    pub async fn check_kernel(&self) -> Result<()> {
        let refuse = |detail: &str| {
            Error::new(ErrorKind::InvalidInput, "kernel", self.kernel.display().to_string()).detail(detail)
        };
        let mut start = Vec::new();
        let read = async {
            let file = tokio::fs::File::open(&self.kernel).await?;
            file.take(START_OF_KERNEL).read_to_end(&mut start).await
        };
        read.await.map_err(|error| refuse(&format!("cannot be read: {error}")).source(error))?;
        match not_a_kernel(&start) {
            None => Ok(()),
            Some(reason) => Err(refuse(reason)),
        }
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

/// Holds what both formats are told by.
const START_OF_KERNEL: u64 = 0x206;

/// The header of a 64-bit little-endian ELF file: kind and machine are 16-bit numbers at 16 and 18.
fn not_a_kernel(start: &[u8]) -> Option<&'static str> {
    const COMPRESSED: &str = "is a compressed kernel (bzImage); use the uncompressed one, `vmlinux`, which `extract-vmlinux` gets out of it";
    const NO_ELF: &str = "is no ELF file; use an uncompressed kernel, `vmlinux`";
    const OTHER: &str = "is an ELF file and no 64-bit program for this processor";
    const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    if start.get(0x202..0x206) == Some(b"HdrS") {
        return Some(COMPRESSED);
    }
    if !start.starts_with(b"\x7fELF") {
        return Some(NO_ELF);
    }
    let number = |at: usize| Some(u16::from_le_bytes([*start.get(at)?, *start.get(at + 1)?]));
    let fits =
        start.get(4..6) == Some(&[2, 1]) && matches!(number(16), Some(2 | 3)) && number(18) == Some(MACHINE);
    (!fits).then_some(OTHER)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_told_by_its_first_bytes() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(not_a_kernel(&own[..0x206]), None, "a program of this host has the same header");
        let mut compressed = vec![0; 0x206];
        compressed[0x202..].copy_from_slice(b"HdrS");
        assert!(not_a_kernel(&compressed).unwrap().contains("bzImage"));
        let mut small = own[..0x206].to_vec();
        small[4] = 1;
        assert!(not_a_kernel(&small).unwrap().contains("64-bit"));
        for none in [&b""[..], b"\x7fEL", b"#!/bin/sh"] {
            assert!(not_a_kernel(none).unwrap().contains("no ELF"));
        }
    }
}
