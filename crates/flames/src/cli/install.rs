//! `flames install`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Install {
    /// Install a release of Firecracker and its jailer for Flames alone, after comparing its checksum
    Firecracker(InstallFirecracker),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InstallFirecracker {
    /// Which release to fetch
    #[arg(long = "release", value_name = "RELEASE", default_value = PINNED, value_parser = release)]
    pub(crate) release: String,
    /// Take it from this archive or folder instead of fetching it. An archive is compared with --sha256 or with
    /// ARCHIVE.sha256.txt beside it, if there is either
    #[arg(long, value_name = "PATH", conflicts_with = "release")]
    pub(crate) from: Option<PathBuf>,
    /// The SHA-256 that the archive must have (default: the one that Flames knows of its default release, and the one released
    /// beside it of any other)
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub(crate) sha256: Option<String>,
    /// Where releases are
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://github.com/firecracker-microvm/firecracker/releases/download"
    )]
    pub(crate) mirror: url::Url,
}

/// The release that is installed unless another is asked for, and the SHA-256 of its archives.
pub(crate) const PINNED: &str = "1.16.1";
const ARCHIVES: [(&str, &str); 2] = [
    ("x86_64", "382a02a869e4d6d5cb14c40577f9545e8458021ea8b0b2d3fc10ec14d9c242e6"),
    ("aarch64", "8d0e69f6d6f9a1724551f607f18504052c16c1828ee3d4d7b6e6c73380871e0e"),
];

impl InstallFirecracker {
    /// What the archive must have, if that is known before anything is fetched.
    pub(crate) fn known_sha256(&self) -> Option<String> {
        let of_this_machine = |(arch, _): &&(&str, &str)| *arch == std::env::consts::ARCH;
        let pinned = ARCHIVES.iter().find(of_this_machine).filter(|_| self.release == PINNED);
        self.sha256.clone().or_else(|| pinned.map(|(_, sha256)| (*sha256).to_owned()))
    }
}

/// `1.16.1` or `v1.16.1`: it becomes part of paths.
pub(crate) fn release(text: &str) -> Result<String, String> {
    let number = text.strip_prefix('v').unwrap_or(text);
    let is_number =
        |part: &str| !part.is_empty() && part.len() < 6 && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<_> = number.split('.').collect();
    match parts.len() == 3 && parts.into_iter().all(is_number) {
        true => Ok(number.to_owned()),
        false => Err(format!("{text:?} is no release: write it as 1.16.1")),
    }
}

/// 64 hexadecimal digits.
pub(crate) fn sha256(text: &str) -> Result<String, String> {
    match text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("a SHA-256 has 64 hexadecimal digits".to_owned()),
    }
}
