//! The kernel with which real Firecracker runs guests also where KVM emulates guest kernels.

use flames_provider::conformance::skip;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel in the folder that `FLAMES_FC_TESTBED` names, packed by xz.
#[derive(Clone, Debug)]
pub struct TestKernel {
    packed: PathBuf,
}

impl TestKernel {
    /// Words of the kernel command line that it wants on such a host. It saves no AVX state, and so glibc must use none: the
    /// last word is for the environment of the guest's first process.
    pub const ARGS: [&str; 9] = [
        "lpj=10000000",
        "tsc=reliable",
        "no-kvmapf",
        "no-steal-acc",
        "mitigations=off",
        "noxsave",
        "highres=off",
        "clearcpuid=308,295,141,154,288,298,158,306,515,151,59,114,534,145,297,580",
        "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-AVX,-AVX512F,-AVX512VL,-AVX_Fast_Unaligned_Load,-ERMS,-XSAVE,-XSAVEC",
    ];

    /// `None`, loudly, where there is none.
    pub fn find() -> Option<Self> {
        let folder = std::env::var_os("FLAMES_FC_TESTBED").map(PathBuf::from);
        let packed = folder.map(|folder| folder.join("vmlinux-6.1-emulated-kvm.xz"));
        let Some(packed) = packed.filter(|packed| packed.exists()) else {
            skip("firecracker", "set FLAMES_FC_TESTBED to the folder of the test kernel");
            return None;
        };
        Some(Self { packed })
    }

    /// The file, packed.
    pub fn packed(&self) -> &Path {
        &self.packed
    }

    /// Writes the kernel itself into a file.
    ///
    /// # Errors
    /// When the file cannot be written, or `xz` is missing or fails.
    pub fn unpack(&self, to: &Path) -> io::Result<()> {
        let out = File::create(to)?;
        let ended = Command::new("xz").arg("-dc").arg(&self.packed).stdout(out).status()?;
        if ended.success() { Ok(()) } else { Err(io::Error::other(format!("xz: {ended}"))) }
    }
}
