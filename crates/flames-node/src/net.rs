//! How guests are connected: a network namespace with a TAP each, or the VMM's user-mode network.
//!
//! With root, every VM has a namespace of its own with the same addresses inside (hazard C4). Nothing leads
//! out of it: there is no other link than the TAP, nothing is forwarded, and the firewall inside lets only
//! replies to the host's own connections come back (hazard I2). Connections to the guest are opened from
//! within the namespace.

mod dial;
mod egress;
mod firewall;
mod link;
mod nfnetlink;
mod nft;
mod observed;
mod pool;
mod range;
mod slot;
#[cfg(test)]
mod tests;
mod uplink;
mod user;
mod veth;

pub(crate) use dial::Dialer;
pub(crate) use egress::Egress;
pub(crate) use pool::SlotPool;
pub(crate) use slot::{Slot, SlotNames, SlotProbe};
pub use uplink::UplinkConfig;
pub(crate) use user::PortLease;

use crate::guest::AGENT_PORT;
use flames_egress::EgressPolicy;
use flames_vmm::{Error, ErrorKind, MacAddress, Network, Result};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The guest's address in every namespace.
pub(crate) const GUEST_IP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
/// The host side's address in every namespace.
pub(crate) const HOST_IP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// Length of the network's prefix.
pub(crate) const PREFIX: u8 = 24;
/// The guest's hardware address: the same everywhere, snapshots hold it.
pub(crate) const GUEST_MAC: MacAddress = MacAddress([0x06, 0x00, 0xac, 0x10, 0x00, 0x02]);
/// The TAP's: the same everywhere too, a restored guest's neighbour table holds it.
pub(crate) const HOST_MAC: MacAddress = MacAddress([0x06, 0x00, 0xac, 0x10, 0x00, 0x01]);
/// The TAP's name in every namespace.
pub(crate) const TAP: &str = "tap0";

/// Which kind of network a node gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// A namespace and a TAP per VM. Needs root.
    Namespaces,
    /// The VMM's user-mode network: no right needed, only the agent's port can be reached.
    User,
}

impl NetworkMode {
    /// The best one that this process has the rights for.
    pub fn detect() -> Self {
        let root = rustix::process::geteuid().is_root();
        let tun = std::path::Path::new("/dev/net/tun").exists();
        if root && tun { Self::Namespaces } else { Self::User }
    }
}

/// Gives out networks.
#[derive(Debug)]
pub(crate) enum Networks {
    Namespaces(SlotPool),
    User,
}

/// A network that one VM has.
#[derive(Debug)]
pub(crate) enum Lease {
    Slot(Slot),
    Port(PortLease),
}

/// A lease in words, for the run's record: a restarted daemon takes it up again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LeaseRecord {
    Slot(String),
    Port(u16),
}

impl Networks {
    /// A network for one VM.
    pub(crate) async fn lease(&self) -> Result<Lease> {
        match self {
            Self::Namespaces(pool) => pool.take().await.map(Lease::Slot),
            Self::User => PortLease::take().map(Lease::Port),
        }
    }

    /// Whether runs can have what a policy allows.
    ///
    /// # Errors
    /// `Unsupported` for a policy that allows anything, where runs have no network of their own.
    pub(crate) fn check(&self, policy: &EgressPolicy) -> Result<()> {
        match self {
            Self::Namespaces(_) => Ok(()),
            Self::User => needs_namespaces(policy),
        }
    }

    /// Whether the next lease need not be made first.
    pub(crate) fn has_ready(&self) -> bool {
        match self {
            Self::Namespaces(pool) => pool.has_ready(),
            Self::User => true, // a port is found in no time
        }
    }

    /// Takes up what an earlier daemon leased to a VM that lives.
    pub(crate) fn resume(&self, record: &LeaseRecord) -> Result<Lease> {
        match (self, record) {
            (Self::Namespaces(pool), LeaseRecord::Slot(name)) => pool.names().open(name).map(Lease::Slot),
            (_, LeaseRecord::Port(port)) => Ok(Lease::Port(PortLease::resumed(*port))),
            (Self::User, LeaseRecord::Slot(name)) => {
                Err(Error::new(ErrorKind::PermissionDenied, "network slot", name.as_str())
                    .detail("was made by a daemon with root"))
            }
        }
    }
}

impl Lease {
    /// What the driver must know.
    pub(crate) fn network(&self) -> Network {
        match self {
            Self::Slot(slot) => {
                Network::Tap { netns: slot.path().to_owned(), tap: TAP.to_owned(), mac: GUEST_MAC }
            }
            Self::Port(lease) => {
                Network::User { host_port: lease.port(), guest_port: AGENT_PORT, mac: GUEST_MAC }
            }
        }
    }

    /// As [`Networks::check`].
    pub(crate) fn check(&self, policy: &EgressPolicy) -> Result<()> {
        match self {
            Self::Slot(_) => Ok(()),
            Self::Port(_) => needs_namespaces(policy),
        }
    }

    pub(crate) fn record(&self) -> LeaseRecord {
        match self {
            Self::Slot(slot) => LeaseRecord::Slot(slot.name().to_owned()),
            Self::Port(lease) => LeaseRecord::Port(lease.port()),
        }
    }

    /// Where to connect for a port of the guest.
    pub(crate) fn address(&self, port: u16) -> Result<SocketAddr> {
        match self {
            Self::Slot(_) => Ok((IpAddr::V4(GUEST_IP), port).into()),
            Self::Port(lease) if port == AGENT_PORT => {
                Ok((IpAddr::V4(Ipv4Addr::LOCALHOST), lease.port()).into())
            }
            Self::Port(_) => Err(Error::new(ErrorKind::Unsupported, "guest port", port.to_string()).detail(
                "only the agent's port can be reached on a node without root: run the daemon as root",
            )),
        }
    }

    /// The namespace to connect from; `None` is the host's own.
    pub(crate) fn namespace(&self) -> Option<&Slot> {
        match self {
            Self::Slot(slot) => Some(slot),
            Self::Port(_) => None,
        }
    }

    /// Takes the network apart. Only for a VM whose exit was observed (hazard C5). Idempotent.
    pub(crate) fn release(&self) -> Result<()> {
        match self {
            Self::Slot(slot) => slot.remove(),
            Self::Port(_) => Ok(()), // given back when the lease is dropped
        }
    }
}

fn needs_namespaces(policy: &EgressPolicy) -> Result<()> {
    if policy.is_sealed() {
        return Ok(());
    }
    Err(unsupported(
        "a node without root gives no access to networks: run the daemon as root, or allow nothing",
    ))
}

/// What only runs with a namespace of their own can have.
pub(crate) fn unsupported(detail: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "network policy", "").detail(detail)
}

impl LeaseRecord {
    pub(crate) fn netns(&self) -> Option<String> {
        match self {
            Self::Slot(name) => Some(name.clone()),
            Self::Port(_) => None,
        }
    }

    pub(crate) fn host_port(&self) -> Option<u16> {
        match self {
            Self::Slot(_) => None,
            Self::Port(port) => Some(*port),
        }
    }
}
