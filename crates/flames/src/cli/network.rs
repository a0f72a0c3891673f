//! `flames network`, and what a create says about it.

use clap::{Args, Subcommand};
use flames_egress::PolicySpec;

/// What a sandbox may reach.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Network {
    /// Show what it may reach, and what passed and was dropped
    Show {
        /// Which sandbox
        #[arg(value_name = "SANDBOX")]
        id: String,
    },
    /// Replace what it may reach; without any option that is nothing
    Set(Set),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Set {
    /// Which sandbox
    #[arg(value_name = "SANDBOX")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) policy: Policy,
}

/// What a sandbox may reach. Without any of these that is nothing.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Network (default: nothing is reached)")]
pub(crate) struct Policy {
    /// Let it reach the public internet
    #[arg(long)]
    pub(crate) internet: bool,
    /// Let it reach this: `TARGET[:PORTS][/PROTOCOL]`, where the target is an address, a network, a domain name or
    /// *.DOMAIN; may be repeated
    #[arg(long, value_name = "RULE")]
    pub(crate) allow_out: Vec<String>,
    /// With --internet: do not let it reach this address or network; may be repeated
    #[arg(long, value_name = "RULE")]
    pub(crate) deny_out: Vec<String>,
    /// A DNS server to look names up with; may be repeated (default: those of the host)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<String>,
    /// The most it sends, in bytes per second
    #[arg(long, value_name = "BYTES")]
    pub(crate) out_rate: Option<u64>,
    /// The most it receives, in bytes per second
    #[arg(long, value_name = "BYTES")]
    pub(crate) in_rate: Option<u64>,
    /// After so many bytes, sent and received together, nothing passes any more
    #[arg(long, value_name = "BYTES")]
    pub(crate) byte_budget: Option<u64>,
}

impl From<&Policy> for PolicySpec {
    fn from(typed: &Policy) -> Self {
        Self {
            internet: typed.internet,
            allow: typed.allow_out.clone(),
            deny: typed.deny_out.clone(),
            dns: typed.dns.clone(),
            out_bytes_per_second: typed.out_rate,
            in_bytes_per_second: typed.in_rate,
            budget_bytes: typed.byte_budget,
        }
    }
}

impl Policy {
    /// What was typed; `None` if nothing was.
    pub(crate) fn asked(&self) -> Option<PolicySpec> {
        Some(PolicySpec::from(self)).filter(|spec| *spec != PolicySpec::default())
    }
}
