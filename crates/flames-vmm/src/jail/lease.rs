//! What a jailed VM has of its host beside files: a user id and control groups.

use super::cgroups::{self, Cgroups, Needs};
use super::config::JailConfig;
use super::uids::{Claim, ClaimError, Owned};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// A user id and control groups for one VM. Given back when dropped, unless a VMM's process has them.
#[derive(Debug)]
pub struct Lease {
    claim: Claim,
    /// Of its control groups.
    name: String,
    cgroups: Vec<PathBuf>,
}

/// What a process has, to be given back when it is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its user id.
    pub claim: Option<Owned>,
    /// Its control groups.
    pub cgroups: Vec<PathBuf>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// No user id.
    #[error("no user id for it: {0}")]
    Uid(#[from] ClaimError),
    /// No control groups.
    #[error("cannot limit it: {0}")]
    Cgroups(#[source] io::Error),
}

impl Lease {
    /// Takes a user id that nobody has, and makes control groups, which do not limit anything yet. Blocks.
    ///
    /// # Errors
    /// When the range of ids is used up, or a group cannot be made. Nothing is left behind.
    pub fn take(config: &JailConfig, host: &Cgroups) -> Result<Self, LeaseError> {
        let claim = Claim::take(config)?;
        // Named by the id: what was left of an earlier VM with it is used again, and removed after this one.
        let name = format!("vm-{}", claim.uid);
        let lease = Self { cgroups: host.folders(&name, config), name, claim };
        for folder in &lease.cgroups {
            std::fs::create_dir_all(folder).map_err(LeaseError::Cgroups)?;
        }
        Ok(lease)
    }

    /// Sets the limits for what a VM needs.
    ///
    /// # Errors
    /// When the kernel refuses one; it is named.
    pub fn limit(&self, config: &JailConfig, host: &Cgroups, needs: &Needs) -> Result<(), LeaseError> {
        host.limit(&self.name, needs, config).map_err(LeaseError::Cgroups)
    }

    /// The user id, which is the group id as well.
    pub fn uid(&self) -> u32 {
        self.claim.uid
    }

    /// From now on it belongs to that process.
    ///
    /// # Errors
    /// When that cannot be noted; it is given back.
    pub fn hand_over(mut self, pid: u32) -> io::Result<Held> {
        let claim = self.claim.hand_over(pid)?;
        Ok(Held { claim: Some(claim), cgroups: std::mem::take(&mut self.cgroups) })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        cgroups::remove(&self.cgroups);
    }
}

impl Held {
    /// Moves the process into its control groups. Blocks for some milliseconds: the kernel waits for all processors.
    ///
    /// # Errors
    /// When the process cannot be moved.
    pub fn join(&self, pid: u32) -> io::Result<()> {
        cgroups::join(&self.cgroups, pid)
    }

    /// Gives all of it back, once: whoever gets the user id next finds nothing of this VM.
    pub fn give_back(&self) {
        if let Some(claim) = &self.claim {
            claim.give_back(|| cgroups::remove(&self.cgroups));
        }
    }
}
