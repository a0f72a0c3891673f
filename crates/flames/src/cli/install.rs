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
    #[arg(long = "release", value_name = "RELEASE", default_value = "1.16.1", value_parser = release)]
    pub(crate) release: String,
    /// Take it from this archive or folder instead of fetching it. An archive is compared with --sha256 or with
    /// ARCHIVE.sha256.txt beside it, if there is either
    #[arg(long, value_name = "PATH", conflicts_with = "release")]
    pub(crate) from: Option<PathBuf>,
    /// The SHA-256 that the archive must have (default: the one released beside it)
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
