//! A release from where releases are.

use crate::cli::InstallFirecracker;
use anyhow::{Context, bail};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// More than ten times what a release has: whoever sends more sends something else.
const MAX_BYTES: u64 = 256 << 20;
/// A server that says nothing for so long says nothing more.
const SILENCE: Duration = Duration::from_secs(60);

/// Writes the archive into a file, and gives the checksum that it must have: the one that was typed or is known, or else
/// the one that was released beside it.
pub(super) async fn release(wanted: &InstallFirecracker, to: &Path) -> anyhow::Result<String> {
    let http = reqwest::Client::builder().connect_timeout(SILENCE).read_timeout(SILENCE).build()?;
    let (release, arch) = (&wanted.release, std::env::consts::ARCH);
    let base = wanted.mirror.as_str().trim_end_matches('/');
    let url = format!("{base}/v{release}/firecracker-v{release}-{arch}.tgz");
    let checksum = match wanted.known_sha256() {
        Some(checksum) => checksum,
        None => {
            let beside = format!("{url}.sha256.txt");
            let text = get(&http, &beside).await?.text().await;
            first_checksum(&text.with_context(|| format!("{beside} broke off"))?)?
        }
    };
    let mut answer = get(&http, &url).await?;
    let mut file = std::fs::File::create(to)?;
    let mut bytes = 0;
    while let Some(chunk) = answer.chunk().await.with_context(|| format!("{url} broke off"))? {
        bytes += chunk.len() as u64;
        if bytes > MAX_BYTES {
            bail!("{url} is larger than any release");
        }
        file.write_all(&chunk).with_context(|| format!("{} cannot be written", to.display()))?;
    }
    Ok(checksum)
}

async fn get(http: &reqwest::Client, url: &str) -> anyhow::Result<reqwest::Response> {
    let answer = http.get(url).send().await.with_context(|| format!("{url} cannot be fetched"))?;
    if !answer.status().is_success() {
        bail!("{url} answers {}: is there such a release?", answer.status());
    }
    Ok(answer)
}

/// The checksum in a file as `sha256sum` writes it.
pub(super) fn first_checksum(text: &str) -> anyhow::Result<String> {
    let word = text.split_whitespace().next().unwrap_or_default();
    crate::cli::sha256(word).map_err(|why| anyhow::anyhow!("the released checksum is none: {why}"))
}
