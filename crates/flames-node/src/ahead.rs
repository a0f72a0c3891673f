//! Machines that are somebody before anybody asked for them.
//!
//! What a guest must be told takes it milliseconds to take in. So a pool's machine is told all of it when it is made:
//! its name, its token, the environment that every sandbox has. When it is handed out under that name, only what the
//! request differs in is left to tell, which is nothing most of the time (ADR 0028).

use crate::{AccessToken, EgressPolicy, MiB, Result, TemplateName, VmId};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Names machines that are made ahead.
pub trait Newcomers: Debug + Send + Sync + 'static {
    /// Somebody who was never there before, for a machine of this template.
    ///
    /// # Errors
    /// Without randomness.
    fn next(&self, template: &TemplateName) -> Result<Newcomer>;
}

/// Who a machine is.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// Names the run everywhere on this host; never used twice.
    pub run: VmId,
    /// What the guest calls itself.
    pub hostname: String,
    /// What clients of the agent must present.
    pub access_token: AccessToken,
    /// Environment of every process.
    pub env: BTreeMap<String, String>,
    /// Whom a process runs as when nobody is named.
    pub default_user: String,
}

/// Asks for a machine that is ready, whatever its name.
#[derive(Clone, Debug)]
pub struct TakeReady {
    /// What it was made from.
    pub template: TemplateName,
    /// Virtual CPUs, exactly.
    pub vcpus: u8,
    /// Guest memory, exactly.
    pub memory: MiB,
    /// Size of the writable disk, exactly.
    pub disk: MiB,
    /// Goes over the environment that the machine has.
    pub env: BTreeMap<String, String>,
    /// Whom a process runs as when nobody is named; `None` leaves what the machine has.
    pub default_user: Option<String>,
    /// Where a process starts when nothing is said; `None` is the user's home.
    pub default_workdir: Option<String>,
    /// What the guest may reach. It holds before the machine is handed out.
    pub network: EgressPolicy,
}
