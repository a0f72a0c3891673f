//! What the driver finds on its host: the programs, their releases, the control groups.

use crate::config::{FirecrackerConfig, RestoreMemory};
use crate::jail;
use crate::version::{Release, Verdict};
use flames_vmm::jail::{Cgroups, JailConfig, JailMode};
use flames_vmm::process::find_program;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Facts of this host, found once per driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) firecracker: PathBuf,
    pub(crate) jailer: PathBuf,
    pub(crate) release: Release,
    /// The control groups of jailed VMs; `None` where VMs are not jailed.
    pub(crate) jail: Option<Cgroups>,
}

/// Why no VM can run here, with the mend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("`{}` is not installed: install Firecracker, or set its path", .0.display())]
    Missing(PathBuf),
    #[error("`{}` is not Firecracker: it says {said:?}", .program.display())]
    Other { program: PathBuf, said: String },
    #[error("Firecracker {0}")]
    Release(String),
    #[error("VMs cannot be jailed: {0}, or choose to run without (vmm.jail = \"none-insecure\")")]
    Jail(String),
    #[error(
        "restored memory cannot come from userfaultfd: {0}; let this user read and write /dev/userfaultfd \
         (Linux 6.1 on), or choose vmm.restore_memory = \"file\""
    )]
    Userfaultfd(std::io::Error),
    #[error("/dev/kvm cannot be used: {0}; load the kvm module, or let this user read and write it")]
    Kvm(std::io::Error),
}

pub(crate) async fn find(config: &FirecrackerConfig) -> Result<Host, Unfit> {
    let firecracker = program(&config.binary)?;
    let release = release_of(&firecracker).await?;
    match release.judge() {
        Verdict::Supported => {}
        Verdict::Untested => {
            tracing::warn!(%release, "this release of Firecracker is newer than what was tested")
        }
        Verdict::Refused(reason) => return Err(Unfit::Release(reason)),
    }
    let jailer = match config.jail.mode {
        JailMode::Jailed => fit_jailer(config, release).await?,
        JailMode::NoneInsecure => config.jailer.clone(),
    };
    open_kvm(Path::new("/dev/kvm"))?;
    if config.restore_memory() == RestoreMemory::Userfaultfd {
        let device = File::options().read(true).write(true).open("/dev/userfaultfd");
        device.map_err(Unfit::Userfaultfd)?;
    }
    Ok(Host { firecracker, jailer, release, jail: cgroups(&config.jail)? })
}

fn open_kvm(device: &Path) -> Result<(), Unfit> {
    File::options().read(true).write(true).open(device).map(drop).map_err(Unfit::Kvm)
}

async fn fit_jailer(config: &FirecrackerConfig, release: Release) -> Result<PathBuf, Unfit> {
    let jailer = program(&config.jailer);
    let found = match &jailer {
        Ok(jailer) => release_of(jailer).await.ok(),
        Err(_) => None,
    };
    match jail::impediment(&config.jailer, release, found) {
        Some(impediment) => Err(Unfit::Jail(impediment)),
        None => jailer,
    }
}

fn cgroups(config: &JailConfig) -> Result<Option<Cgroups>, Unfit> {
    if config.mode == JailMode::NoneInsecure {
        return Ok(None);
    }
    Cgroups::prepare(config).map(Some).map_err(Unfit::Jail)
}

async fn release_of(program: &Path) -> Result<Release, Unfit> {
    let output = Command::new(program).arg("--version").env_clear().stdin(Stdio::null()).output().await;
    let output =
        output.map_err(|error| Unfit::Other { program: program.to_owned(), said: error.to_string() })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let first = said.lines().next().unwrap_or_default();
    let known = first.starts_with("Firecracker v") || first.starts_with("Jailer v");
    Release::find(first)
        .filter(|_| known)
        .ok_or_else(|| Unfit::Other { program: program.to_owned(), said: first.chars().take(80).collect() })
}

/// The jailer wants a path, so `PATH` is searched here.
fn program(name: &Path) -> Result<PathBuf, Unfit> {
    find_program(name).map_err(|_| Unfit::Missing(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn unfit(binary: &str) -> String {
        let config = FirecrackerConfig { binary: binary.into(), ..FirecrackerConfig::default() };
        find(&config).await.unwrap_err().to_string()
    }

    #[test]
    fn a_kvm_that_may_not_be_opened_is_told_with_the_mend() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let device = folder.path().join("kvm");
        std::fs::write(&device, "").unwrap();
        std::fs::set_permissions(&device, PermissionsExt::from_mode(0o000)).unwrap();
        // Whoever is root may open anything: a thread that is not.
        let opened = std::thread::spawn(move || {
            if rustix::process::geteuid().is_root() {
                let nobody = rustix::fs::Uid::from_raw(65534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            open_kvm(&device)
        });
        let error = opened.join().unwrap().unwrap_err().to_string();
        assert!(
            error.contains("Permission denied") && error.contains("let this user read and write it"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_release_that_is_too_old_or_known_to_be_bad_is_named_with_the_reason() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        for (version, says) in [("1.7.0", "too old"), ("1.16.0", "known to be bad")] {
            let program = folder.path().join(version);
            std::fs::write(&program, format!("#!/bin/sh\necho Firecracker v{version}\n")).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
            let error = unfit(program.to_str().unwrap()).await;
            assert!(error.contains(version) && error.contains(says), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_or_not_firecracker_is_named() {
        let missing = unfit("/nonexistent/firecracker").await;
        assert!(missing.contains("/nonexistent/firecracker") && missing.contains("install"), "{missing}");
        let other = unfit("true").await;
        assert!(other.contains("is not Firecracker"), "{other}");
    }
}
