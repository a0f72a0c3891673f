//! The rules of one namespace, as one nftables transaction.
//!
//! One table, `inet flames`, replaced as a whole: nothing depends on what stood there before, and no packet sees half
//! of it. What must outlive a replacement is handed in as [`Carried`].
//!
//! ```text
//! guest -> prerouting raw      who sends: only the guest's own hardware and IPv4 address
//!          prerouting mangle   judge: a live mark passes; else decide by the connection's original destination
//!          prerouting dstnat   a question goes to the resolver, a connection to inspect to the proxy
//!          forward, input      only what the judge marked
//! uplink -> prerouting mangle  judge: only replies, by the same mark and the same decision
//! ```
//!
//! **Live changes.** A connection carries the mark of the rule that admitted it ([`Mark`], a hash of the rule's text), and
//! a packet with the mark of a rule that still holds passes at once, in both directions. Packets of all other connections are
//! decided anew: where the new rules admit them they get the new mark and go on, else they are cut. So a connection outlives
//! every change that still allows it, an address of a name may leave the set without cutting what was opened by it, and a
//! withdrawn rule ends its connections with their next packet.

mod judge;
mod mark;
mod text;

pub use judge::Packet;
pub use mark::Mark;

use crate::{Base, DNS_PORT, EgressPolicy, NAMED_PORTS, PortRange, Protocol, Rule, Target};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The table's family and name. It is the only one in the namespace.
pub const TABLE: &str = "inet flames";

/// What packets of the node's own sockets carry when they leave a namespace (`SO_MARK`). Setting it takes a right that a VMM
/// has not, though it is in its guest's namespace: rules that let only marked packets out keep it in.
pub const OUTWARD_MARK: u32 = 0x666c;

/// How a namespace is wired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// Name of the TAP.
    pub tap: String,
    /// The guest's one address.
    pub guest: Ipv4Addr,
    /// The guest's one hardware address.
    pub guest_mac: [u8; 6],
    /// The way out; `None` leaves the namespace sealed, whatever the policy says.
    pub uplink: Option<Uplink>,
}

/// A namespace's way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Name of the link.
    pub link: String,
    /// Port in the namespace where questions for DNS are answered, UDP and TCP; reached by redirection alone.
    pub resolver_port: u16,
    /// Port in the namespace where connections to inspect are taken, TCP; reached by redirection alone.
    pub proxy_port: u16,
}

/// An address that DNS gave for a name that a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The rule's mark; names its set.
    pub rule: Mark,
    /// The address.
    pub address: IpAddr,
    /// How long it stays; at least a second.
    pub for_: Duration,
}

/// What a new table takes over from the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// What was counted, by counter.
    pub counters: BTreeMap<String, Count>,
    /// Bytes of the budget that were used.
    pub budget_used: u64,
    /// Addresses that are still good.
    pub admitted: Vec<Admitted>,
}

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes, network headers included.
    pub bytes: u64,
}

/// Names of counters. Those of rules are [`counter::of_allow`] and [`counter::of_deny`].
pub mod counter {
    use super::Mark;

    /// What the guest sent and what was let out.
    pub const OUT: &str = "passed_out";
    /// What came for the guest on connections that it opened, and was let in.
    pub const IN: &str = "passed_in";
    /// Packets with another's hardware or network address, or of another network protocol.
    pub const SPOOFED: &str = "drop_spoofed";
    /// Packets that belong to no connection and begin none.
    pub const INVALID: &str = "drop_invalid";
    /// Packets from outside that are no replies.
    pub const INBOUND: &str = "drop_inbound";
    /// Any protocol but TCP, UDP and ICMP.
    pub const PROTOCOL: &str = "drop_protocol";
    /// Destinations that no rule opens.
    pub const NEVER: &str = "drop_never";
    /// Special destinations that no rule names.
    pub const SPECIAL: &str = "drop_special";
    /// Destinations that no rule allows.
    pub const DEFAULT: &str = "drop_default";
    /// More than may be sent in a second.
    pub const RATE_OUT: &str = "drop_rate_out";
    /// More than may be received in a second.
    pub const RATE_IN: &str = "drop_rate_in";
    /// Everything after the byte budget was used.
    pub const BUDGET: &str = "drop_budget";
    /// Questions for names that may not be asked; counted by the resolver, not in the table.
    pub const DNS: &str = "drop_dns";
    /// Connections to names that are not allowed; counted by the proxy, not in the table.
    pub const NAME: &str = "drop_name";

    /// Every counter that is always in the table.
    pub const IN_TABLE: [&str; 12] =
        [OUT, IN, SPOOFED, INVALID, INBOUND, PROTOCOL, NEVER, SPECIAL, DEFAULT, RATE_OUT, RATE_IN, BUDGET];

    /// First packets of the connections that an allow rule admitted.
    pub fn of_allow(rule: Mark) -> String {
        format!("allow_{rule}")
    }

    /// Packets that a deny rule dropped.
    pub fn of_deny(rule: Mark) -> String {
        format!("deny_{rule}")
    }
}

/// The ruleset of one namespace.
#[derive(Clone, Debug)]
pub struct Ruleset {
    wiring: Wiring,
    carried: Carried,
    limits: crate::Limits,
    /// The decision, first match wins; what is left over is dropped as [`counter::DEFAULT`].
    decision: Vec<Line>,
}

/// One line of the decision.
#[derive(Clone, Debug)]
struct Line {
    when: Vec<Match>,
    then: Then,
}

/// A condition on the connection that a packet belongs to.
#[derive(Clone, Debug)]
enum Match {
    /// It has none of these protocols.
    NotOf(&'static [Protocol]),
    /// It has one of these protocols.
    Of(Vec<Protocol>),
    /// It goes to one of these ports; the protocols before it have ports.
    Port(Vec<PortRange>),
    /// It goes to no port of [`NAMED_PORTS`]; the protocols before it have ports.
    PortUnnamed,
    /// It goes to one of these networks of one family.
    To(Vec<IpNet>),
    /// It goes to an address that DNS gave for a rule's names, of IPv4 or IPv6.
    ToNamesOf(Mark, Family),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

#[derive(Clone, Debug)]
enum Then {
    /// Admit the connection under a mark; counted when the mark is of an allow rule.
    Admit { mark: Mark, counter: Option<String> },
    /// Refuse it.
    Refuse { counter: String },
}

impl Ruleset {
    /// The rules of a namespace, to replace what stands there.
    pub fn for_namespace(policy: &EgressPolicy, wiring: &Wiring, carried: Carried) -> Self {
        let live: Vec<Mark> = policy.domain_rules().map(|(_, rule)| Mark::of_rule(rule)).collect();
        let admitted = carried.admitted.into_iter().filter(|one| live.contains(&one.rule)).collect();
        Self {
            wiring: wiring.clone(),
            carried: Carried { admitted, ..carried },
            limits: policy.limits(),
            decision: decision(policy),
        }
    }

    /// The input for `nft -f -`: one transaction.
    pub fn script(&self) -> String {
        text::script(self)
    }

    /// The input for `nft -f -` that admits addresses into a namespace whose rules stand. Each stays for its time, counted
    /// anew when it was there.
    pub fn admit(admitted: &[Admitted]) -> String {
        text::admit(admitted)
    }

    /// The marks of which connections pass without a new decision.
    fn live(&self) -> Vec<Mark> {
        let mut marks: Vec<Mark> = self.decision.iter().filter_map(Line::admits).collect();
        marks.sort_unstable();
        marks.dedup();
        marks
    }

    /// The counters of rules.
    fn rule_counters(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.decision.iter().filter_map(Line::counter).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !counter::IN_TABLE.contains(name));
        names
    }

    /// The sets of addresses that DNS fills.
    fn name_sets(&self) -> Vec<(Mark, Family)> {
        let of = |condition: &Match| match condition {
            Match::ToNamesOf(mark, family) => Some((*mark, *family)),
            _ => None,
        };
        let mut sets: Vec<_> = self.decision.iter().flat_map(|line| &line.when).filter_map(of).collect();
        sets.sort_by_key(|(mark, family)| (*mark, *family == Family::V6));
        sets.dedup();
        sets
    }
}

impl Line {
    fn admits(&self) -> Option<Mark> {
        match self.then {
            Then::Admit { mark, .. } => Some(mark),
            Then::Refuse { .. } => None,
        }
    }

    fn counter(&self) -> Option<&str> {
        match &self.then {
            Then::Admit { counter, .. } => counter.as_deref(),
            Then::Refuse { counter } => Some(counter),
        }
    }
}

/// The decision as lines, in the order that [`crate::decide()`] has.
fn decision(policy: &EgressPolicy) -> Vec<Line> {
    let mut lines = Vec::new();
    if policy.resolves() {
        lines.push(Line {
            when: vec![Match::Of(vec![Protocol::Tcp, Protocol::Udp]), port(&[DNS_PORT])],
            then: Then::Admit { mark: Mark::resolve(), counter: None },
        });
    }
    lines
        .push(refuse(vec![Match::NotOf(&[Protocol::Tcp, Protocol::Udp, Protocol::Icmp])], counter::PROTOCOL));
    lines.extend(closed(&crate::special::NEVER_4, &crate::special::NEVER_6, counter::NEVER));
    let (naming, wide): (Vec<&Rule>, Vec<&Rule>) =
        policy.allow().iter().partition(|rule| rule.names_a_special_range());
    lines.extend(naming.into_iter().flat_map(allow));
    lines.extend(closed(&crate::special::SPECIAL_4, &crate::special::SPECIAL_6, counter::SPECIAL));
    let (names, addresses): (Vec<&Rule>, Vec<&Rule>) =
        wide.into_iter().partition(|rule| matches!(rule.target(), Target::Domain(_)));
    lines.extend(addresses.into_iter().flat_map(allow));
    lines.extend(names.into_iter().flat_map(allow));
    lines.extend(policy.deny().iter().flat_map(deny));
    if policy.base() == Base::Internet {
        let mark = Mark::internet(policy.deny());
        lines.push(Line { when: Vec::new(), then: Then::Admit { mark, counter: None } });
    }
    lines
}

fn closed(four: &[ipnet::Ipv4Net], six: &[ipnet::Ipv6Net], counter: &str) -> [Line; 2] {
    let four = four.iter().copied().map(IpNet::V4).collect();
    let six = six.iter().copied().map(IpNet::V6).collect();
    [refuse(vec![Match::To(four)], counter), refuse(vec![Match::To(six)], counter)]
}

fn refuse(when: Vec<Match>, counter: &str) -> Line {
    Line { when, then: Then::Refuse { counter: counter.to_owned() } }
}

fn allow(rule: &Rule) -> Vec<Line> {
    let mark = Mark::of_rule(rule);
    let admit = |mark| Then::Admit { mark, counter: Some(counter::of_allow(Mark::of_rule(rule))) };
    match rule.target() {
        Target::Net(net) => {
            vec![Line { when: both(vec![Match::To(vec![*net])], spoken(rule)), then: admit(mark) }]
        }
        Target::Domain(_) => {
            let of = |family| allow_names(rule, mark, family, admit);
            of(Family::V4).into_iter().chain(of(Family::V6)).collect()
        }
    }
}

/// TCP to ports where the client names its server is inspected; UDP to them has no line, and falls through.
fn allow_names(rule: &Rule, mark: Mark, family: Family, admit: impl Fn(Mark) -> Then) -> Vec<Line> {
    let to = || Match::ToNamesOf(mark, family);
    let tcp = rule.covers_any(Protocol::Tcp);
    let mut lines = Vec::new();
    if tcp {
        let named = vec![to(), Match::Of(vec![Protocol::Tcp]), port(&NAMED_PORTS)];
        lines.push(Line { when: both(named, ports(rule)), then: admit(mark.inspected()) });
    }
    let mut others = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp].into_iter().filter(|one| rule.covers_any(*one)) {
        others.push(protocol);
    }
    if !others.is_empty() {
        let unnamed = vec![to(), Match::Of(others), Match::PortUnnamed];
        lines.push(Line { when: both(unnamed, ports(rule)), then: admit(mark) });
    }
    if rule.covers_any(Protocol::Icmp) {
        lines.push(Line { when: vec![to(), Match::Of(vec![Protocol::Icmp])], then: admit(mark) });
    }
    lines
}

fn deny(rule: &Rule) -> Option<Line> {
    let Target::Net(net) = rule.target() else { return None };
    let when = both(vec![Match::To(vec![*net])], spoken(rule));
    Some(refuse(when, &counter::of_deny(Mark::of_rule(rule))))
}

/// A rule's protocols and ports.
fn spoken(rule: &Rule) -> Vec<Match> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
    let of: Vec<Protocol> = all.into_iter().filter(|one| rule.covers_any(*one)).collect();
    both(vec![Match::Of(of)], ports(rule))
}

fn ports(rule: &Rule) -> Vec<Match> {
    if rule.ports().is_empty() { Vec::new() } else { vec![Match::Port(rule.ports().to_vec())] }
}

fn port(numbers: &[u16]) -> Match {
    Match::Port(numbers.iter().map(|number| PortRange::exactly(*number)).collect())
}

fn both(mut first: Vec<Match>, second: Vec<Match>) -> Vec<Match> {
    first.extend(second);
    first
}
