//! The ruleset as `nft` reads it.

use super::{
    Admitted, Family, Line, Mark, Match, OUTWARD_MARK, Ruleset, TABLE, Then, Uplink, Wiring, counter,
};
use crate::{NAMED_PORTS, PortRange, Protocol};
use ipnet::IpNet;
use std::fmt::{self, Write};
use std::net::IpAddr;

/// What a limit lets through at once beyond its rate: two of the largest packets that segmentation offload makes, or a
/// quarter of a second.
const MIN_BURST: u64 = 128 * 1024;

/// Writing into a string cannot fail.
macro_rules! line {
    ($out:expr, $($text:tt)*) => {{ let _ = writeln!($out, $($text)*); }};
}

pub(super) fn script(rules: &Ruleset) -> String {
    let mut out = String::new();
    // Added first so that the deletion finds it whatever stood there before.
    line!(out, "add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{");
    objects(&mut out, rules);
    sets(&mut out, rules);
    spoof_chain(&mut out, &rules.wiring);
    judge_chains(&mut out, rules);
    passage_chains(&mut out, rules);
    hooks(&mut out, &rules.wiring);
    line!(out, "}}");
    out
}

pub(super) fn admit(admitted: &[Admitted]) -> String {
    let mut out = String::new();
    for one in admitted {
        let set = set_name(one.rule, family_of(one.address));
        // Adding an element that is there leaves its time as it was: so it is added, deleted and added.
        line!(out, "add element {TABLE} {set} {{ {} }}", one.address);
        line!(out, "delete element {TABLE} {set} {{ {} }}", one.address);
        line!(out, "add element {TABLE} {set} {{ {} }}", element(one));
    }
    out
}

fn objects(out: &mut String, rules: &Ruleset) {
    for name in counter::IN_TABLE.into_iter().chain(rules.rule_counters()) {
        let count = rules.carried.counters.get(name).copied().unwrap_or_default();
        line!(out, " counter {name} {{ packets {} bytes {} }}", count.packets, count.bytes);
    }
    let used = rules.carried.budget_used;
    match rules.limits.budget_bytes {
        Some(budget) => line!(out, " quota budget {{ over {budget} bytes used {used} bytes }}"),
        // Not looked at by any rule: it keeps what was used for a budget to come.
        None => line!(out, " quota budget {{ over {} bytes used {used} bytes }}", i64::MAX),
    }
}

fn sets(out: &mut String, rules: &Ruleset) {
    let live: Vec<String> = rules.live().iter().map(|mark| hex(*mark)).collect();
    line!(out, " set live {{ type mark; {} }}", elements(&live));
    let named = NAMED_PORTS.map(|port| port.to_string());
    line!(out, " set named_ports {{ type inet_service; {} }}", elements(&named));
    for (mark, family) in rules.name_sets() {
        let held = rules.carried.admitted.iter();
        let held = held.filter(|one| one.rule == mark && family_of(one.address) == family);
        let held: Vec<String> = held.map(element).collect();
        let (name, kind) = (set_name(mark, family), family.address_type());
        line!(out, " set {name} {{ type {kind}; flags timeout; {} }}", elements(&held));
    }
}

/// Before connections are tracked: what pretends to be somebody else must not even find an entry.
fn spoof_chain(out: &mut String, Wiring { tap, guest, guest_mac, .. }: &Wiring) {
    let [a, b, c, d, e, f] = guest_mac;
    let drop = format!("counter name {} drop", counter::SPOOFED);
    line!(out, " chain spoofed {{\n  type filter hook prerouting priority raw; policy accept;");
    line!(out, "  iifname != \"{tap}\" accept");
    line!(out, "  ether saddr != {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} {drop}");
    line!(out, "  meta nfproto != ipv4 {drop}");
    line!(out, "  ip saddr != {guest} {drop}\n }}");
}

/// The decision. All of its matches are on the connection's original destination, so that a reply, and a packet whose
/// destination was rewritten, are judged as the connection's first packet was.
fn judge_chains(out: &mut String, rules: &Ruleset) {
    line!(out, " chain refused {{");
    line!(out, "  ct direction reply drop");
    line!(out, "  meta l4proto tcp reject with tcp reset");
    line!(out, "  meta l4proto {{ udp, icmp, ipv6-icmp }} reject with icmpx admin-prohibited");
    line!(out, "  drop\n }}");
    line!(out, " chain decide {{");
    for line in &rules.decision {
        line!(out, "  {line}");
    }
    line!(out, "  counter name {} goto refused\n }}", counter::DEFAULT);
}

fn passage_chains(out: &mut String, rules: &Ruleset) {
    let limits = rules.limits;
    let directions = [
        ("out", limits.out_bytes_per_second, counter::RATE_OUT, counter::OUT),
        ("in", limits.in_bytes_per_second, counter::RATE_IN, counter::IN),
    ];
    for (direction, rate, dropped, passed) in directions {
        line!(out, " chain pass_{direction} {{");
        if let Some(rate) = rate {
            let burst = (rate / 4).clamp(MIN_BURST, u64::from(u32::MAX));
            let over = format!("limit rate over {rate} bytes/second burst {burst} bytes");
            line!(out, "  {over} counter name {dropped} drop");
        }
        match limits.budget_bytes {
            Some(_) => line!(out, "  quota name budget counter name {} drop", counter::BUDGET),
            None => line!(out, "  quota name budget drop"), // counts only: nobody reaches its end
        }
        line!(out, "  counter name {passed} accept\n }}");
    }
    line!(out, " chain pass {{\n  ct direction original goto pass_out\n  goto pass_in\n }}");
}

fn hooks(out: &mut String, wiring: &Wiring) {
    let Wiring { tap, guest, uplink, .. } = wiring;
    let invalid = format!("ct state invalid,untracked counter name {} drop", counter::INVALID);
    line!(out, " chain judge {{\n  type filter hook prerouting priority mangle; policy accept;");
    line!(out, "  iifname \"{tap}\" goto judge_guest");
    if let Some(Uplink { link, .. }) = uplink {
        line!(out, "  iifname \"{link}\" goto judge_outside");
    }
    line!(out, " }}\n chain judge_guest {{\n  {invalid}");
    line!(out, "  ct direction reply accept"); // answers to the node, which opened the connection
    line!(out, "  ct mark @live goto pass_out\n  goto decide\n }}");
    line!(out, " chain judge_outside {{\n  {invalid}");
    line!(out, "  ct direction original counter name {} drop", counter::INBOUND);
    line!(out, "  ct original ip saddr != {guest} accept"); // the resolver's and the proxy's own
    line!(out, "  ct mark @live goto pass_in\n  goto decide\n }}");
    filters(out, wiring);
    if let Some(uplink) = uplink {
        rewrites(out, wiring, uplink);
    }
}

/// Only what the judge let through gets anywhere; the guest reaches no socket of the namespace but by redirection.
fn filters(out: &mut String, Wiring { tap, guest, uplink, .. }: &Wiring) {
    let redirected =
        format!("ct mark and {:#x} != 0 ct status dnat accept", Mark::INSPECTED | Mark::RESOLVED);
    line!(out, " chain input {{\n  type filter hook input priority filter; policy drop;");
    line!(out, "  iifname \"{tap}\" ct direction reply ct state established,related accept");
    if let Some(Uplink { link, .. }) = uplink {
        line!(out, "  iifname \"{tap}\" {redirected}");
        line!(out, "  iifname \"{link}\" ct direction reply ct state established,related accept");
    }
    line!(out, " }}\n chain forward {{\n  type filter hook forward priority filter; policy drop;");
    if let Some(Uplink { link, .. }) = uplink {
        line!(out, "  iifname \"{tap}\" oifname \"{link}\" ct mark != 0 accept");
        line!(out, "  iifname \"{link}\" oifname \"{tap}\" ct direction reply ct mark != 0 accept");
    }
    line!(out, " }}\n chain output {{\n  type filter hook output priority filter; policy drop;");
    // What the resolver and the proxy answer is the guest's traffic; what the node says to it is not.
    line!(out, "  oifname \"{tap}\" ip daddr {guest} ct direction reply ct mark != 0 goto pass_in");
    line!(out, "  oifname \"{tap}\" ip daddr {guest} accept");
    if let Some(Uplink { link, .. }) = uplink {
        // The VMM lives in this namespace too, and has no right to mark packets: only the daemon's own connections go out.
        line!(out, "  oifname \"{link}\" meta mark {OUTWARD_MARK:#x} accept");
    }
    line!(out, " }}");
}

fn rewrites(out: &mut String, wiring: &Wiring, uplink: &Uplink) {
    let (tap, guest) = (&wiring.tap, wiring.guest);
    let Uplink { link, resolver_port, proxy_port } = uplink;
    line!(out, " chain redirected {{\n  type nat hook prerouting priority dstnat; policy accept;");
    for (flag, port, protocols) in
        [(Mark::RESOLVED, resolver_port, "{ tcp, udp }"), (Mark::INSPECTED, proxy_port, "tcp")]
    {
        let marked = format!("ct mark and {flag:#x} != 0");
        line!(out, "  iifname \"{tap}\" {marked} meta l4proto {protocols} redirect to :{port}");
    }
    line!(out, " }}\n chain masqueraded {{\n  type nat hook postrouting priority srcnat; policy accept;");
    line!(out, "  oifname \"{link}\" ip saddr {guest} masquerade\n }}");
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.when {
            write!(f, "{condition} ")?;
        }
        match &self.then {
            Then::Refuse { counter } => write!(f, "counter name {counter} goto refused"),
            Then::Admit { mark, counter: None } => write!(f, "ct mark set {} goto pass", hex(*mark)),
            Then::Admit { mark, counter: Some(counter) } => {
                write!(f, "counter name {counter} ct mark set {} goto pass", hex(*mark))
            }
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOf(these) => write!(f, "meta l4proto != {}", one_of(&protocols(these))),
            Self::Of(these) => write!(f, "meta l4proto {}", one_of(&protocols(these))),
            Self::Port(ranges) => {
                let ranges: Vec<String> = ranges.iter().map(PortRange::to_string).collect();
                write!(f, "ct original proto-dst {}", one_of(&ranges))
            }
            Self::PortUnnamed => write!(f, "ct original proto-dst != @named_ports"),
            Self::To(nets) => {
                let list: Vec<String> = nets.iter().map(IpNet::to_string).collect();
                let family = if nets.iter().any(|net| matches!(net, IpNet::V6(_))) { "ip6" } else { "ip" };
                write!(f, "ct original {family} daddr {}", one_of(&list))
            }
            Self::ToNamesOf(mark, family) => {
                write!(f, "ct original {} daddr @{}", family.keyword(), set_name(*mark, *family))
            }
        }
    }
}

impl Family {
    fn keyword(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }
}

fn protocols(these: &[Protocol]) -> Vec<String> {
    let words = these.iter().flat_map(|one| match one {
        Protocol::Tcp => &["tcp"][..],
        Protocol::Udp => &["udp"],
        Protocol::Icmp => &["icmp", "ipv6-icmp"],
    });
    words.map(ToString::to_string).collect()
}

/// A set only where there is something to choose from: the kernel takes several times as long to make one.
fn one_of(these: &[String]) -> String {
    match these {
        [only] => only.clone(),
        several => format!("{{ {} }}", several.join(", ")),
    }
}

/// The set that DNS fills for a rule.
fn set_name(rule: Mark, family: Family) -> String {
    match family {
        Family::V4 => format!("names4_{rule}"),
        Family::V6 => format!("names6_{rule}"),
    }
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn element(one: &Admitted) -> String {
    format!("{} timeout {}s", one.address, one.for_.as_secs().max(1))
}

fn elements(these: &[String]) -> String {
    if these.is_empty() { String::new() } else { format!("elements = {{ {} }};", these.join(", ")) }
}

fn hex(mark: Mark) -> String {
    format!("{:#010x}", mark.value())
}
