//! What the agent knows while it serves.

use crate::connections::Connections;
use crate::freeze::Freezer;
use crate::metrics::CpuTimes;
use crate::process::Table;
use crate::users::{self, User};
use crate::watch::Watchers;
use flames_guest::rpc::{Code, RpcError};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use subtle::ConstantTimeEq as _;
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// The agent's state, shared by all requests.
pub(crate) struct Agent {
    /// Whether the machine is ours.
    pub(crate) mode: Mode,
    /// `/`, or in plain mode a directory with `etc/passwd` and the like.
    pub(crate) root: PathBuf,
    /// Processes that the agent started.
    pub(crate) processes: Table,
    /// Watchers that clients ask now and then.
    pub(crate) watchers: Watchers,
    /// Stops writing to the sandbox's disk.
    pub(crate) freezer: Freezer,
    /// Rung once to end the agent.
    pub(crate) shutdown: Notify,
    /// `/proc/sys/kernel/random/boot_id`, which a restore does not change.
    pub(crate) boot_id: String,
    /// Connections that are open.
    pub(crate) connections: Connections,
    control_token: Mutex<Zeroizing<String>>,
    settings: Mutex<Settings>,
    cpu_times: Mutex<CpuTimes>,
}

/// Whether the machine is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// PID 1 of a microVM: clock, entropy, hostname and power are ours.
    Guest,
    /// A guest of somebody's host: those are left alone.
    Host,
}

/// What an init sets.
#[derive(Clone)]
pub(crate) struct Settings {
    /// None until the first init: nobody is served.
    pub(crate) access_token: Option<Zeroizing<String>>,
    /// Given to every process.
    pub(crate) env: BTreeMap<String, String>,
    /// Who runs what names no user.
    pub(crate) default_user: String,
    /// Where runs what names no directory; none means the user's home.
    pub(crate) default_workdir: Option<String>,
    /// The name that the guest was given, once it was.
    pub(crate) hostname: Option<String>,
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl Agent {
    /// An agent that nobody has initialised.
    pub(crate) fn new(mode: Mode, root: PathBuf, control_token: Zeroizing<String>, freezer: Freezer) -> Self {
        let settings = Settings {
            access_token: None,
            env: BTreeMap::new(),
            default_user: "user".to_owned(),
            default_workdir: None,
            hostname: None,
        };
        Self {
            mode,
            root,
            boot_id: std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned(),
            connections: Connections::default(),
            control_token: Mutex::new(control_token),
            settings: Mutex::new(settings),
            cpu_times: Mutex::default(),
            processes: Table::default(),
            watchers: Watchers::default(),
            freezer,
            shutdown: Notify::new(),
        }
    }

    /// What the last init set.
    pub(crate) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a measurement of the processors and gives the one before.
    pub(crate) fn swap_cpu_times(&self, now: CpuTimes) -> CpuTimes {
        std::mem::replace(&mut self.cpu_times.lock().unwrap_or_else(PoisonError::into_inner), now)
    }

    /// A system file such as `etc/passwd`.
    pub(crate) fn system_file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Whether this is the node's control token.
    pub(crate) fn is_control_token(&self, shown: &[u8]) -> bool {
        same(shown, self.control_token().as_bytes())
    }

    /// From now on this is the node's control token.
    pub(crate) fn replace_control_token(&self, token: Zeroizing<String>) {
        *self.control_token() = token;
    }

    fn control_token(&self) -> MutexGuard<'_, Zeroizing<String>> {
        self.control_token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the access token of the last init.
    pub(crate) fn is_access_token(&self, shown: &[u8]) -> bool {
        self.settings().access_token.as_ref().is_some_and(|token| same(shown, token.as_bytes()))
    }

    /// The user a call runs as: the one it names, or the default one.
    ///
    /// # Errors
    /// `unauthenticated` when there is no such user, `internal` when the user table cannot be read.
    pub(crate) fn user(&self, named: Option<&str>) -> Result<User, RpcError> {
        let name = named
            .filter(|name| !name.is_empty())
            .map_or_else(|| self.settings().default_user.clone(), str::to_owned);
        users::find(&self.root, &name)
            .map_err(|error| RpcError::new(Code::Internal, format!("cannot read the user table: {error}")))?
            .ok_or_else(|| RpcError::new(Code::Unauthenticated, format!("invalid username: '{name}'")))
    }

    /// Turns a caller's path into an absolute one.
    ///
    /// # Errors
    /// `invalid_argument` for a path that cannot be one.
    pub(crate) fn resolve(&self, path: &str, user: &User) -> Result<PathBuf, RpcError> {
        let workdir = self.settings().default_workdir.clone();
        crate::paths::resolve(path, &user.home, workdir.as_deref().map(Path::new))
            .map_err(|error| RpcError::new(Code::InvalidArgument, error.to_string()))
    }
}

/// Compares in a time that does not tell where the two differ. Their lengths are no secret.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("mode", &self.mode).field("root", &self.root).finish_non_exhaustive()
    }
}
