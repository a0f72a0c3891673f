//! The way out of a node's slots: a pair of links for each slot whose guest may reach something, and the
//! firewall at the host's end of all of them.
//!
//! ```text
//! guest 172.16.0.2 ── tap0 [ slot: policy, SNAT ] up0 ── flv… [ uplink: no way to the host or to siblings,
//!                                                                masquerade ] ── the host's own uplink
//! ```
//!
//! A slot has no pair until a policy allows something. What the host's end guards against is a slot whose
//! own rules failed: whatever comes out of one must have the slot's address, and reaches neither an address
//! of the host nor another slot.

use super::nfnetlink::Family;
use super::observed::has_table;
use super::range::AddressRange;
use super::slot::{Slot, Unwanted, enter, on_own_thread};
use super::{TAP, nft, veth};
use crate::paths::io_error;
use flames_vmm::{Error, ErrorKind, Result};
use ipnet::Ipv4Net;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What every pair's name at the host's end begins with, whichever node made it.
const PREFIX: &str = "flv";

/// Where sandboxes with egress leave the host, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkConfig {
    /// Addresses that such sandboxes are given, one each, between their namespace and the uplink's. What leaves
    /// the uplink's namespace has its address.
    pub range: Ipv4Net,
    /// The file of the network namespace that they leave through; `None` is the daemon's own.
    pub namespace: Option<PathBuf>,
}

impl Default for UplinkConfig {
    fn default() -> Self {
        let range = Ipv4Net::new_assert(Ipv4Addr::new(100, 126, 0, 0), 16);
        Self { range, namespace: None }
    }
}

/// The way out of one node's slots. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Uplink {
    namespace: Arc<File>,
    range: AddressRange,
    /// Eight digits that tell this node from others on the host.
    node: String,
}

/// What the uplink's namespace has of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UplinkProbe {
    pub(crate) links: Vec<String>,
    pub(crate) firewall: bool,
}

/// A slot's pair of links.
#[derive(Debug)]
struct Link {
    uplink: Uplink,
    name: String,
    address: Ipv4Addr,
}

impl Uplink {
    /// Opens the uplink of a node.
    ///
    /// # Errors
    /// `InvalidInput` for a range that will not do; `Conflict` for one that the host knows already; `NotFound`
    /// without the namespace.
    pub(super) fn open(config: &UplinkConfig, node: &str) -> Result<Self> {
        let own = Path::new("/proc/thread-self/ns/net");
        let path = config.namespace.as_deref().unwrap_or(own);
        let namespace =
            File::open(path).map_err(|error| io_error("uplink namespace", path, "open", error))?;
        let range = AddressRange::new(config.range)?;
        let uplink = Self { namespace: Arc::new(namespace), range, node: node.to_owned() };
        let check = uplink.clone();
        let looked = std::thread::spawn(move || check.check_range()).join();
        looked.unwrap_or_else(|_| Err(uplink_error("look at the host's routes", "the worker died")))?;
        Ok(uplink)
    }

    /// Connects a slot that has no pair, and tells the address it got. After an error there is no pair.
    ///
    /// # Errors
    /// `Unavailable` when the uplink's namespace forwards nothing, or when the range is used up.
    pub(super) async fn connect(&self, slot: &Slot) -> Result<Ipv4Addr> {
        let (uplink, name, inside) = (self.clone(), self.link_of(slot.name()), slot.namespace());
        let seed = seed_of(slot.name());
        let link = on_own_thread(move || uplink.make(name, &inside, seed)).await?;
        Ok(link.address)
    }

    /// Whether a slot has its pair.
    pub(super) async fn is_connected(&self, slot: &str) -> Result<bool> {
        let (uplink, name) = (self.clone(), self.link_of(slot));
        on_own_thread(move || {
            uplink.enter()?;
            Ok(nix::net::if_::if_nametoindex(name.as_str()).is_ok())
        })
        .await
    }

    /// Removes a slot's pair, if it has one. Blocks for some milliseconds.
    pub(super) fn disconnect(&self, slot: &str) -> Result<()> {
        let name = self.link_of(slot);
        let uplink = self.clone();
        joined(std::thread::spawn(move || uplink.remove(&name)))
    }

    /// What there is of this node.
    pub(super) async fn probe(&self) -> Result<UplinkProbe> {
        let uplink = self.clone();
        on_own_thread(move || {
            uplink.enter()?;
            Ok(UplinkProbe { links: uplink.links()?, firewall: has_table(Family::Inet, &uplink.table())? })
        })
        .await
    }

    /// Makes the firewall what it has to be: there as long as a pair is, gone with the last.
    pub(super) async fn tidy(&self) -> Result<()> {
        let uplink = self.clone();
        on_own_thread(move || {
            uplink.enter()?;
            match (uplink.links()?.is_empty(), has_table(Family::Inet, &uplink.table())?) {
                (true, true) => nft::apply(&format!("delete table inet {}\n", uplink.table())),
                (false, false) => {
                    tracing::warn!(table = uplink.table(), "the firewall of the uplink was gone: made again");
                    nft::apply(&uplink.ruleset())
                }
                _ => Ok(()),
            }
        })
        .await
    }

    /// The name of a slot's pair at the host's end: fifteen characters, all that a link's name may have.
    pub(super) fn link_of(&self, slot: &str) -> String {
        let own = slot.rsplit('-').next().unwrap_or_default();
        format!("{PREFIX}{}{own}", &self.node[..4])
    }

    fn table(&self) -> String {
        format!("flames-{}", self.node)
    }

    fn enter(&self) -> Result<()> {
        enter(self.namespace.as_fd()).map_err(|error| io_error("uplink namespace", "", "enter", error))
    }

    /// Refuses a range that overlaps what the uplink's namespace knows; the calling thread is spent.
    fn check_range(&self) -> Result<()> {
        self.enter()?;
        let taken = veth::with_netlink(async |handle| veth::destinations(&handle).await)?;
        let others: Vec<_> = taken.into_iter().filter(|taken| !taken.link.starts_with(PREFIX)).collect();
        self.range.check_free(&others)
    }

    /// Makes a slot's pair; the calling thread is spent.
    fn make(self, name: String, slot: &File, seed: u32) -> Result<Link> {
        self.enter()?;
        check_forwarding()?;
        // Before there is a link it could be missing for; and each time, since others may flush rulesets.
        nft::apply(&self.ruleset())?;
        let made = self.pair(&name, slot, seed);
        if made.is_err() {
            let _ = self.clone().remove(&name); // the failure is what to tell
        }
        Ok(Link { address: made?, uplink: self, name })
    }

    fn pair(&self, name: &str, slot: &File, seed: u32) -> Result<Ipv4Addr> {
        let address = veth::with_netlink(async |handle| {
            veth::make(&handle, name, slot.as_fd()).await?;
            harden(name)?;
            veth::lead_in(&handle, name, &self.range, seed).await
        })?;
        enter(slot.as_fd()).map_err(|error| io_error("network slot", name, "enter", error))?;
        for link in [TAP, veth::UPLINK] {
            super::link::set_switch(&format!("net/ipv4/conf/{link}/forwarding"), "1")?;
        }
        veth::with_netlink(async |handle| veth::lead_out(&handle, address).await)?;
        Ok(address)
    }

    fn remove(self, name: &str) -> Result<()> {
        self.enter()?;
        veth::with_netlink(async |handle| veth::remove(&handle, name).await)
    }

    fn links(&self) -> Result<Vec<String>> {
        let prefix = format!("{PREFIX}{}", &self.node[..4]);
        let links = veth::with_netlink(async |handle| veth::links(&handle).await)?;
        Ok(links.into_values().filter(|name| name.starts_with(&prefix)).collect())
    }

    /// The firewall at the host's end, for all pairs of this node at once: it need not change when one comes.
    fn ruleset(&self) -> String {
        let (table, range) = (self.table(), self.range);
        let (ours, all) = (format!("{PREFIX}{}*", &self.node[..4]), format!("{PREFIX}*"));
        format!(
            r#"table inet {table} {{
}}
delete table inet {table}
table inet {table} {{
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{ours}" jump from-guest
  }}
  chain from-guest {{
    meta nfproto != ipv4 counter drop comment "not-ip"
    ip saddr != {range} counter drop comment "spoofed"
    fib saddr . iif oif missing counter drop comment "spoofed"
    fib daddr type != unicast counter drop comment "host"
    ip daddr {range} counter drop comment "siblings"
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{ours}" counter drop comment "host"
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{ours}" oifname "{all}" counter drop comment "siblings"
    iifname "{ours}" ct state invalid counter drop comment "invalid"
    oifname "{ours}" ct state established,related accept
    oifname "{ours}" counter drop comment "from-outside"
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifname "{ours}" ct state != related counter drop comment "from-host"
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {range} oifname != "{ours}" masquerade
  }}
}}
"#
        )
    }
}

impl Unwanted for Link {
    fn discard(self) {
        if let Err(error) = joined(std::thread::spawn(move || self.uplink.remove(&self.name))) {
            tracing::warn!(%error, "a cancelled uplink was left to the reaper");
        }
    }
}

impl Unwanted for UplinkProbe {
    fn discard(self) {}
}

/// Switches of a pair's host end, while it is still down: it answers nothing and believes nothing.
fn harden(link: &str) -> Result<()> {
    let switches = [
        ("ipv4", "rp_filter", "1"),
        ("ipv4", "accept_redirects", "0"),
        ("ipv4", "send_redirects", "0"),
        ("ipv4", "accept_source_route", "0"),
        ("ipv4", "arp_ignore", "8"),
        ("ipv4", "proxy_arp", "0"),
        ("ipv4", "forwarding", "1"),
        ("ipv6", "disable_ipv6", "1"),
    ];
    let set = |(family, switch, value)| {
        super::link::set_switch(&format!("net/{family}/conf/{link}/{switch}"), value)
    };
    switches.into_iter().try_for_each(set)
}

/// The uplink's namespace must forward already: to turn that on is to make a router of somebody's host.
fn check_forwarding() -> Result<()> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    let told =
        std::fs::read_to_string(path).map_err(|error| io_error("kernel switch", path, "read", error))?;
    if told.trim() == "1" {
        return Ok(());
    }
    Err(uplink_error(
        "connect",
        "this host forwards nothing, so no sandbox can reach anything: `sysctl -w net.ipv4.ip_forward=1`, and a line in /etc/sysctl.d",
    ))
}

/// A number that slots do not share.
fn seed_of(slot: &str) -> u32 {
    let own = slot.rsplit('-').next().unwrap_or_default();
    u32::from_str_radix(own, 16).unwrap_or_default()
}

fn joined(thread: std::thread::JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| Err(uplink_error("configure", "the worker died")))
}

fn uplink_error(operation: &'static str, detail: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "uplink", "").operation(operation).detail(detail.to_owned())
}
