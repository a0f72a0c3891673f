//! What the REST calls take and give, in E2B's names.

use super::network::NetworkView;
use flames_core::sandbox::record::{OnRequest, OnTimeout, Sandbox};
use flames_core::sandbox::state::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the guest interface that the agent speaks: what its features are told by.
pub(super) const ENVD_VERSION: &str = "0.6.4";
/// Older E2B named the machine behind a sandbox here.
pub(super) const CLIENT_ID: &str = "flames";

/// A sandbox to make.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NewSandbox {
    #[serde(rename = "templateID")]
    pub(super) template_id: String,
    /// Seconds.
    pub(super) timeout: Option<i64>,
    pub(super) metadata: Option<BTreeMap<String, String>>,
    pub(super) env_vars: Option<BTreeMap<String, String>>,
    pub(super) auto_pause: Option<bool>,
    pub(super) auto_pause_memory: Option<bool>,
    pub(super) auto_resume: Option<AutoResume>,
    #[serde(rename = "allow_internet_access")]
    pub(super) allow_internet_access: Option<bool>,
    pub(super) network: Option<Network>,
    pub(super) mcp: Option<serde_json::Value>,
    pub(super) iam: Option<serde_json::Value>,
    pub(super) volume_mounts: Option<Vec<serde_json::Value>>,
}

/// The ways in and out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Network {
    pub(super) allow_public_traffic: Option<bool>,
    pub(super) mask_request_host: Option<String>,
    pub(super) allow_out: Option<Vec<String>>,
    pub(super) deny_out: Option<Vec<String>>,
    pub(super) dns_servers: Option<Vec<String>>,
    /// Only in a change; a create says it beside the network.
    #[serde(rename = "allow_internet_access")]
    pub(super) allow_internet_access: Option<bool>,
    pub(super) egress_proxy: Option<serde_json::Value>,
    pub(super) rules: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AutoResume {
    pub(super) enabled: bool,
}

/// A sandbox as create, connect and fork give it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SandboxView {
    #[serde(rename = "templateID")]
    pub(super) template_id: String,
    #[serde(rename = "sandboxID")]
    pub(super) sandbox_id: String,
    #[serde(rename = "clientID")]
    pub(super) client_id: &'static str,
    pub(super) alias: String,
    pub(super) envd_version: &'static str,
    pub(super) envd_access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) traffic_access_token: Option<String>,
    pub(super) domain: String,
}

/// A sandbox in a list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedSandbox {
    #[serde(rename = "templateID")]
    pub(super) template_id: String,
    #[serde(rename = "sandboxID")]
    pub(super) sandbox_id: String,
    #[serde(rename = "clientID")]
    pub(super) client_id: &'static str,
    pub(super) alias: String,
    pub(super) started_at: Timestamp,
    pub(super) end_at: Timestamp,
    pub(super) cpu_count: u8,
    #[serde(rename = "memoryMB")]
    pub(super) memory_mb: u32,
    #[serde(rename = "diskSizeMB")]
    pub(super) disk_size_mb: u32,
    pub(super) state: &'static str,
    pub(super) envd_version: &'static str,
    pub(super) metadata: BTreeMap<String, String>,
}

/// A sandbox with everything about it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SandboxDetail {
    #[serde(flatten)]
    pub(super) listed: ListedSandbox,
    pub(super) envd_access_token: String,
    pub(super) domain: String,
    pub(super) allow_internet_access: bool,
    pub(super) network: NetworkView,
    pub(super) lifecycle: Lifecycle,
    /// What a sandbox that rests has kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pause_mode: Option<&'static str>,
}

/// What becomes of a sandbox at its end and after it.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lifecycle {
    on_timeout: &'static str,
    auto_resume: bool,
}

impl Lifecycle {
    pub(super) fn of(sandbox: &Sandbox) -> Self {
        Self {
            on_timeout: match sandbox.on_timeout {
                OnTimeout::Kill => "kill",
                OnTimeout::Pause | OnTimeout::PauseDiskOnly => "pause",
            },
            auto_resume: sandbox.entrance.on_request == OnRequest::Resume,
        }
    }
}

/// What a sandbox uses. Memory and disk in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metric {
    pub(super) timestamp: Timestamp,
    pub(super) timestamp_unix: i64,
    pub(super) cpu_count: u32,
    pub(super) cpu_used_pct: f64,
    pub(super) mem_used: u64,
    pub(super) mem_total: u64,
    pub(super) mem_cache: u64,
    pub(super) disk_used: u64,
    pub(super) disk_total: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TimeoutBody {
    /// Seconds.
    pub(super) timeout: Option<i64>,
    /// What `refreshes` calls it.
    pub(super) duration: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ConnectBody {
    /// Seconds.
    pub(super) timeout: Option<i64>,
    /// False: boot anew from the disk.
    pub(super) memory: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PauseBody {
    /// False: keep the disk alone.
    pub(super) memory: Option<bool>,
    /// True: refuse it when the agent does not answer.
    pub(super) require_healthy_guest: Option<bool>,
}

/// The states that E2B knows; `None` for a sandbox that it would not show.
pub(super) fn state_name(state: State) -> Option<&'static str> {
    match state {
        State::Running | State::Resuming => Some("running"),
        State::Paused | State::Snapshotted | State::Pausing => Some("paused"),
        _ => None,
    }
}

impl ListedSandbox {
    /// `None` for a sandbox that E2B would not show: one that starts, ends or has failed.
    pub(super) fn of(sandbox: &Sandbox) -> Option<Self> {
        Some(Self {
            template_id: sandbox.template.to_string(),
            sandbox_id: sandbox.id.to_string(),
            client_id: CLIENT_ID,
            alias: sandbox.template.to_string(),
            // What lists are sorted and filtered by.
            started_at: sandbox.created_at,
            end_at: sandbox.ends_at.unwrap_or_else(far_away),
            cpu_count: sandbox.resources.vcpus,
            memory_mb: sandbox.resources.memory.0,
            disk_size_mb: sandbox.resources.disk.0,
            state: state_name(sandbox.state)?,
            envd_version: ENVD_VERSION,
            metadata: sandbox.metadata.clone(),
        })
    }
}

/// Stands for never: an end is required, and clients must be able to hold it.
fn far_away() -> Timestamp {
    Timestamp::from_second(253_370_764_800).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_a_date_that_clients_can_hold() {
        assert_eq!(far_away().to_string(), "9999-01-01T00:00:00Z");
    }

    #[test]
    fn the_body_that_the_clients_send_is_understood() {
        let body = r#"{"templateID":"base","metadata":{},"envVars":{"A":"1"},"autoPause":false,
            "allow_internet_access":true,"secure":true,"network":{"allowOut":[]}}"#;
        let body: NewSandbox = serde_json::from_str(body).unwrap();
        assert_eq!((body.template_id.as_str(), body.auto_pause), ("base", Some(false)));
        assert_eq!((body.env_vars.unwrap()["A"].as_str(), body.allow_internet_access), ("1", Some(true)));
    }
}
