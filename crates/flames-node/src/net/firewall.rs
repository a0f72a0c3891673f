//! The rules that every namespace has from the moment it exists, whatever its guest may reach.
//!
//! Two tables. `netdev flames` looks at each frame as it comes out of the TAP and passes on nothing but whole
//! IPv4 packets and ARP questions of the one guest that may be there; it never changes. `inet flames` is made of
//! a policy, at first of one that allows nothing, and is replaced as a whole when the policy changes.

use super::nfnetlink::Family;
use super::observed::has_table;
use super::{GUEST_IP, GUEST_MAC, HOST_IP, HOST_MAC, TAP, nft, veth};
use flames_egress::{Carried, EgressPolicy, Ruleset, Uplink, Wiring, counter};
use flames_vmm::{MacAddress, Result};

/// Where questions for DNS are redirected to, on the TAP's address.
pub(super) const RESOLVER_PORT: u16 = 10_053;
/// Where connections are redirected to whose client must say whom it means.
pub(super) const PROXY_PORT: u16 = 10_443;

/// The tables' name; nothing else in the namespace has one.
pub(super) const TABLE: &str = "flames";

/// Applies the rules in the namespace of the calling thread, which has a TAP.
pub(super) fn apply() -> Result<()> {
    nft::apply(&ruleset())
}

/// Whether the namespace of the calling thread has the rules.
pub(super) fn is_applied() -> Result<bool> {
    Ok(has_table(Family::Netdev, TABLE)? && has_table(Family::Inet, TABLE)?)
}

fn ruleset() -> String {
    format!("{}{}", guard(), policy_rules(&EgressPolicy::default(), Way::Closed, Carried::default()))
}

/// Whether anything leads out of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing does.
    Closed,
    /// The pair of links does, for what the policy allows.
    Open,
}

/// The rules of a policy, instead of those that were there.
pub(super) fn policy_rules(policy: &EgressPolicy, way: Way, carried: Carried) -> String {
    let uplink =
        Uplink { link: veth::UPLINK.to_owned(), resolver_port: RESOLVER_PORT, proxy_port: PROXY_PORT };
    let wiring = Wiring {
        tap: TAP.to_owned(),
        guest: GUEST_IP,
        guest_mac: GUEST_MAC.0,
        uplink: (way == Way::Open).then_some(uplink),
    };
    Ruleset::for_namespace(policy, &wiring, carried).script()
}

/// Why a frame of the guest went nowhere, each a counter.
const GUARD_COUNTERS: [&str; 6] =
    [counter::SPOOFED, counter::PROTOCOL, counter::NEVER, "drop_arp", "drop_options", "drop_fragments"];

/// What leaves the guest must be the guest's, whole, and of a kind that has ports.
fn guard() -> String {
    let (guest, host) = (mac(GUEST_MAC), mac(HOST_MAC));
    let counters = GUARD_COUNTERS.map(|name| format!("  counter {name} {{\n  }}\n")).concat();
    let (spoofed, protocol, never) = (counter::SPOOFED, counter::PROTOCOL, counter::NEVER);
    format!(
        r#"table netdev {TABLE} {{
{counters}  chain guard {{
    type filter hook ingress device "{TAP}" priority -500; policy drop;
    ether saddr != {guest} counter name {spoofed} drop
    ether type arp ether daddr {{ {host}, ff:ff:ff:ff:ff:ff }} arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation {{ request, reply }} arp saddr ether {guest} arp saddr ip {GUEST_IP} arp daddr ip {HOST_IP} accept
    ether type arp counter name drop_arp drop
    ether type != ip counter name {spoofed} drop
    ether daddr != {host} counter name {never} drop
    ip saddr != {GUEST_IP} counter name {spoofed} drop
    ip hdrlength != 5 counter name drop_options drop
    ip frag-off & 0x3fff != 0 counter name drop_fragments drop
    ip protocol != {{ tcp, udp, icmp }} counter name {protocol} drop
    ip daddr {{ 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3 }} counter name {never} drop
    accept
  }}
}}
"#
    )
}

fn mac(address: MacAddress) -> String {
    address.0.map(|byte| format!("{byte:02x}")).join(":")
}
