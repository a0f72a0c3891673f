//! `run.json`: what a restarted daemon must know of a run besides the driver's handle.
//!
//! It holds the run's tokens: its file is readable by its owner alone, inside a directory that is too.

use super::source::Images;
use crate::net::LeaseRecord;
use crate::paths::{RunDir, io_error};
use crate::snapshot::GuestFacts;
use crate::template::write_json;
use crate::{AccessToken, EgressPolicy, RunFacts};
use flames_vmm::process::start_ticks_of;
use flames_vmm::{Error, ErrorKind, Result, VmId};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// A run as stored next to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RunRecord {
    pub(super) run: VmId,
    pub(super) phase: Phase,
    pub(super) driver: String,
    pub(super) guest: GuestFacts,
    /// The read-only disks that the guest has mounted.
    pub(super) images: Images,
    /// The folder of the snapshot whose memory the VM maps.
    pub(super) base: Option<PathBuf>,
    pub(super) lease: LeaseRecord,
    /// What the guest may reach.
    #[serde(default)]
    pub(super) network: EgressPolicy,
    pub(super) access_token: AccessToken,
    pub(super) control_token: AccessToken,
}

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// Its create has not ended: after a daemon's death it is undone.
    Creating,
    /// It was handed out: after a daemon's death it is adopted.
    HandedOut,
}

impl RunRecord {
    /// Stores the record in one step.
    pub(super) fn write(&self, dir: &RunDir) -> Result<()> {
        write_json(&dir.record(), self)
    }

    /// The record of a run directory; `None` if there is none, or half of one.
    pub(super) fn read(dir: &RunDir) -> Result<Option<Self>> {
        match std::fs::read(dir.record()) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("run record", dir.record(), "read", error)),
        }
    }

    /// What `inspect` shows.
    pub(super) fn facts(&self, dir: &RunDir, pid: u32) -> RunFacts {
        RunFacts {
            driver: self.driver.clone(),
            pid,
            netns: self.lease.netns(),
            host_port: self.lease.host_port(),
            run_dir: dir.path().to_owned(),
            disk: dir.disk(),
            console: dir.console(),
            template: self.guest.template.clone(),
            template_sha256: self.guest.template_sha256.clone(),
            agent_version: self.guest.agent_version.clone(),
        }
    }
}

/// The driver's handle of a run directory; `None` if no VMM was started there.
pub(super) fn read_handle(dir: &RunDir) -> Result<Option<flames_vmm::VmHandle>> {
    match std::fs::read(dir.handle()) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "VM handle", dir.handle().display().to_string()).source(error)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("VM handle", dir.handle(), "read", error)),
    }
}

/// Whether the VMM of a run directory lives: the process of its handle, not one that came to have its pid.
pub(super) fn is_alive(dir: &RunDir) -> bool {
    let Ok(Some(handle)) = read_handle(dir) else { return false };
    start_ticks_of(handle.pid).is_ok_and(|now| now == handle.start_ticks)
}

/// Removes a run directory with everything in it. Idempotent.
pub(super) fn remove_run_dir(dir: &RunDir) -> Result<()> {
    match std::fs::remove_dir_all(dir.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("run directory", dir.path(), "remove", error))
        }
        _ => Ok(()),
    }
}
