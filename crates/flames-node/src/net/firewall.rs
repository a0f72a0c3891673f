//! The rules that every namespace has from the moment it exists, whatever its guest may reach.
//!
//! Two tables. `netdev flames` looks at each frame as it comes out of the TAP and passes on nothing but whole
//! IPv4 packets and ARP questions of the one guest that may be there; `inet flames` lets only replies to the
//! host's own connections come in, forwards nothing, and lets out only what is for the guest. What a policy
//! allows is added to the second; the first never changes.

use super::{GUEST_IP, GUEST_MAC, HOST_IP, HOST_MAC, TAP, nft};
use flames_vmm::{MacAddress, Result};

/// The tables' name; nothing else in the namespace has one.
pub(super) const TABLE: &str = "flames";

/// Applies the rules in the namespace of the calling thread, which has a TAP.
pub(super) fn apply() -> Result<()> {
    nft::apply(&ruleset())
}

/// Whether the namespace of the calling thread has the rules.
pub(super) fn is_applied() -> Result<bool> {
    Ok(nft::has_table("netdev", TABLE)? && nft::has_table("inet", TABLE)?)
}

fn ruleset() -> String {
    format!("{}{}", guard(), walls())
}

/// Why a frame of the guest went nowhere, each a counter.
pub(super) const GUARD_COUNTERS: [&str; 8] =
    ["spoofed-mac", "bad-arp", "not-ip", "not-unicast", "spoofed-ip", "ip-options", "fragments", "protocols"];

/// What leaves the guest must be the guest's, whole, and of a kind that has ports.
fn guard() -> String {
    let (guest, host) = (mac(GUEST_MAC), mac(HOST_MAC));
    let counters = GUARD_COUNTERS.map(|name| format!("  counter {name} {{\n  }}\n")).concat();
    format!(
        r#"table netdev {TABLE} {{
{counters}  chain guard {{
    type filter hook ingress device "{TAP}" priority -500; policy drop;
    ether saddr != {guest} counter name "spoofed-mac" drop
    ether type arp ether daddr {{ {host}, ff:ff:ff:ff:ff:ff }} arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation {{ request, reply }} arp saddr ether {guest} arp saddr ip {GUEST_IP} arp daddr ip {HOST_IP} accept
    ether type arp counter name "bad-arp" drop
    ether type != ip counter name "not-ip" drop
    ether daddr != {host} counter name "not-unicast" drop
    ip saddr != {GUEST_IP} counter name "spoofed-ip" drop
    ip hdrlength != 5 counter name "ip-options" drop
    ip frag-off & 0x3fff != 0 counter name "fragments" drop
    ip protocol != {{ tcp, udp, icmp }} counter name "protocols" drop
    ip daddr {{ 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3 }} counter name "not-unicast" drop
    accept
  }}
}}
"#
    )
}

/// From the guest only replies come in; nothing is forwarded; out goes only what is for the guest.
fn walls() -> String {
    format!(
        r#"table inet {TABLE} {{
  chain input {{
    type filter hook input priority 0; policy drop;
    ct state established,related accept
  }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
  }}
  chain output {{
    type filter hook output priority 0; policy drop;
    oifname "{TAP}" ip daddr {GUEST_IP} accept
  }}
}}
"#
    )
}

fn mac(address: MacAddress) -> String {
    address.0.map(|byte| format!("{byte:02x}")).join(":")
}
