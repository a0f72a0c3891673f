//! What only the node may ask of the agent, and the lines of the boot channel.
//!
//! The node writes a [`Greeting`] into the virtio-serial port [`BOOT_PORT`] and reads one [`BootReport`]; then
//! it goes on over TCP: `POST` [`INIT_PATH`] with the header [`CONTROL_HEADER`]. These paths are never
//! reachable through a proxy. The port stays open for a [`HostCommand`].

use crate::json::{self, is_zero};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Name of the virtio-serial port, as `/sys/class/virtio-ports/*/name` shows it.
pub const BOOT_PORT: &str = "flames.boot";
/// Header with the control token.
pub const CONTROL_HEADER: &str = "X-Flames-Control";
/// Where an [`InitRequest`] goes.
pub const INIT_PATH: &str = "/flames/v1/init";
/// An empty `POST` here ends the guest.
pub const SHUTDOWN_PATH: &str = "/flames/v1/shutdown";
/// An empty `POST` here writes everything out and stops all writing to the sandbox's disk, so that a copy of the disk is
/// whole. Answered with a [`Frozen`]. The agent undoes it by itself after [`THAW_AFTER`].
pub const FREEZE_PATH: &str = "/flames/v1/freeze";
/// An empty `POST` here lets the sandbox's disk be written to again. Where nothing is frozen it does nothing.
pub const THAW_PATH: &str = "/flames/v1/thaw";
/// How long a disk stays frozen at most while the guest runs: a node that went away must not leave a guest that waits
/// for its disk for ever.
pub const THAW_AFTER: Duration = Duration::from_secs(60);
/// A `POST` here becomes a connection to [`PORT_HEADER`] of the guest's loopback, by an upgrade to
/// [`TUNNEL_PROTOCOL`].
pub const CONNECT_PATH: &str = "/flames/v1/connect";
/// Which port a `POST` to [`CONNECT_PATH`] wants.
pub const PORT_HEADER: &str = "X-Flames-Port";
/// What such a connection speaks from then on: whatever its two ends speak.
pub const TUNNEL_PROTOCOL: &str = "flames-tunnel";
/// Fewest bytes of entropy that an [`InitRequest`] may carry, if it carries any.
pub const MIN_ENTROPY: usize = 32;
/// Fewest characters of a control token.
pub const MIN_CONTROL_TOKEN: usize = 16;

/// First line of the boot channel, from the node.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Greeting {
    /// What control calls must show from now on.
    pub control_token: String,
}

impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Greeting(secret)")
    }
}

/// Any later line of the boot channel from the node. The channel works without a network and when the guest's
/// own is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostCommand {
    /// End the guest, as a `POST` to [`SHUTDOWN_PATH`] does.
    pub shutdown: bool,
}

/// The agent's one line on the boot channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BootReport {
    /// It serves.
    Ready {
        /// Always true.
        ready: bool,
        /// The agent's version.
        version: String,
        /// Milliseconds since the kernel started, when the agent was started and when it served.
        #[serde(default, rename = "startedMs")]
        started_ms: u64,
        /// See `started_ms`.
        #[serde(default, rename = "readyMs")]
        ready_ms: u64,
    },
    /// It cannot start, and ends the machine.
    Failed {
        /// Why.
        error: String,
    },
}

/// Makes a guest this sandbox's: after boot, and again after each restore from a snapshot.
///
/// What is absent stays as it is. The first one must carry an access token. It is carried out in this order:
/// entropy, connections, tokens and environment, hostname, machine id, and the clock last. What fails is
/// answered as an error, and the guest must then be destroyed: it may have half of its new identity.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InitRequest {
    /// The host's clock when the request was sent (nanoseconds since 1970). Zero leaves the guest's clock.
    /// The agent adds what it spent on the request itself.
    #[serde(with = "json::int64", skip_serializing_if = "is_zero")]
    pub time_unix_nanos: i64,
    /// At least [`MIN_ENTROPY`] fresh random bytes: mixed into the kernel's pool with credit, then it reseeds.
    #[serde(with = "json::bytes", skip_serializing_if = "Option::is_none")]
    pub entropy: Option<Vec<u8>>,
    /// What data calls must show from now on, in [`crate::ACCESS_TOKEN_HEADER`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// What control calls must show from the next one on, at least [`MIN_CONTROL_TOKEN`] characters: a clone
    /// must not share it with its siblings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_token: Option<String>,
    /// After a restore: resets every connection that the agent had accepted, but for the one this request came
    /// on, and forgets the link addresses of everyone but its peer. They were the source's.
    #[serde(skip_serializing_if = "is_zero")]
    pub close_connections: bool,
    /// Replaces the sandbox's environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_vars: Option<BTreeMap<String, String>>,
    /// The guest's name, also in `/etc/hostname` and `/etc/hosts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Who runs what names no user. `user` to begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
    /// Where runs what names no directory. The user's home to begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_workdir: Option<String>,
    /// Gives the guest a new `/etc/machine-id`: for a new sandbox, not for one that resumes.
    #[serde(skip_serializing_if = "is_zero")]
    pub renew_machine_id: bool,
}

impl fmt::Debug for InitRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitRequest").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

/// What an init did, as measured afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InitResponse {
    /// The guest's clock after everything (nanoseconds since 1970).
    #[serde(with = "json::int64")]
    pub time_unix_nanos: i64,
    /// Whether the clock was stepped.
    pub clock_stepped: bool,
    /// How far the clock was moved (nanoseconds, positive forward).
    #[serde(with = "json::int64")]
    pub clock_step_nanos: i64,
    /// Whether the kernel took the entropy with credit and reseeded.
    pub entropy_credited: bool,
    /// Whether an access token is set.
    pub access_token_set: bool,
    /// Whether this request replaced the control token.
    pub control_token_replaced: bool,
    /// How many connections were reset.
    pub connections_closed: u32,
    /// Whether the link addresses of neighbours were forgotten.
    pub neighbours_flushed: bool,
    /// How many variables the sandbox's environment has.
    pub env_vars: u32,
    /// The guest's name.
    pub hostname: String,
    /// Content of `/etc/machine-id`.
    pub machine_id: String,
    /// `/proc/sys/kernel/random/boot_id`: another one means another boot.
    pub boot_id: String,
    /// Who runs what names no user.
    pub default_user: String,
    /// Where runs what names no directory; empty means the user's home.
    pub default_workdir: String,
    /// The agent's version.
    pub agent_version: String,
    /// How long the agent took, from the whole request to the answer (microseconds).
    pub took_micros: u32,
}

/// What a guest whose disk is frozen must be told again once it was booted anew: its memory holds this, its disk does not.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Frozen {
    /// The sandbox's environment.
    pub env_vars: BTreeMap<String, String>,
    /// Who runs what names no user.
    pub default_user: String,
    /// Where runs what names no directory; absent means the user's home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_workdir: Option<String>,
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen").field("default_user", &self.default_user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let request = InitRequest { access_token: Some("s3cret".into()), ..Default::default() };
        assert!(!format!("{request:?}").contains("s3cret"));
        assert!(!format!("{:?}", Greeting { control_token: "s3cret".into() }).contains("s3cret"));
    }

    #[test]
    fn both_boot_reports_are_told_apart() {
        let ready: BootReport = serde_json::from_str(r#"{"ready":true,"version":"0.1.0"}"#).unwrap();
        assert!(matches!(ready, BootReport::Ready { ready: true, .. }));
        let failed: BootReport = serde_json::from_str(r#"{"error":"no disk"}"#).unwrap();
        assert_eq!(failed, BootReport::Failed { error: "no disk".into() });
    }

    #[test]
    fn an_init_request_leaves_out_what_it_does_not_change() {
        assert_eq!(serde_json::to_string(&InitRequest::default()).unwrap(), "{}");
        let request =
            InitRequest { time_unix_nanos: 1 << 60, entropy: Some(vec![7; 32]), ..Default::default() };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<InitRequest>(&text).unwrap(), request);
    }
}
