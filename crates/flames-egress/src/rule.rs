//! One rule: a destination, and which ports and protocol of it.
//!
//! Its text is its form everywhere, on the command line, over HTTP and in records:
//!
//! ```text
//! TARGET[:PORTS][/PROTOCOL]     10.1.0.0/16    10.1.2.3:443,8000-8100/tcp    api.example.com    *.example.com:22
//!                               [2001:db8::/32]:443    192.0.2.7/udp
//! ```

use crate::{DomainPattern, Scope};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The most ranges of ports in one rule.
pub const MAX_PORT_RANGES: usize = 16;

/// A destination that is allowed or denied. Always valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    target: Target,
    protocols: Protocols,
    /// Sorted; empty is every port.
    ports: Vec<PortRange>,
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Addresses.
    Net(IpNet),
    /// Names, and the addresses that DNS gave for them.
    Domain(DomainPattern),
}

/// Which protocols a rule means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocols {
    /// TCP, UDP and ICMP; with ports, TCP and UDP.
    Any,
    /// One alone.
    Only(Protocol),
}

/// A protocol that rules know. All others are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, or ICMPv6. Has no ports.
    Icmp,
}

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidRule {
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub mend: String,
}

impl Rule {
    /// What it is about.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Which protocols it means.
    pub fn protocols(&self) -> Protocols {
        self.protocols
    }

    /// Which ports it means; empty is every one.
    pub fn ports(&self) -> &[PortRange] {
        &self.ports
    }

    /// Whether it means this port of this protocol.
    pub fn covers(&self, protocol: Protocol, port: u16) -> bool {
        self.covers_any(protocol)
            && (self.ports.is_empty() || self.ports.iter().any(|range| range.contains(port)))
    }

    /// Whether it means any port of this protocol.
    pub(crate) fn covers_any(&self, protocol: Protocol) -> bool {
        match self.protocols {
            Protocols::Any => self.ports.is_empty() || protocol != Protocol::Icmp,
            Protocols::Only(only) => only == protocol,
        }
    }

    /// Whether it names a part of a range that is closed otherwise: only then it opens that part.
    pub(crate) fn names_a_special_range(&self) -> bool {
        matches!(self.target, Target::Net(net) if matches!(Scope::within(net), Some(Scope::Special(_))))
    }

    fn new(target: Target, ports: Vec<PortRange>, protocols: Protocols) -> Result<Self, InvalidRule> {
        if protocols == Protocols::Only(Protocol::Icmp) && !ports.is_empty() {
            return Err(invalid("ICMP has no ports", "leave the ports out, or write tcp or udp"));
        }
        if ports.len() > MAX_PORT_RANGES {
            let problem = format!("it has {} ports and ranges, more than {MAX_PORT_RANGES}", ports.len());
            return Err(invalid(problem, "use ranges (8000-8100), or several rules"));
        }
        if let Some(pair) = ports.windows(2).find(|pair| pair[0].last >= pair[1].first) {
            let problem = format!("ports {} and {} overlap", pair[0], pair[1]);
            return Err(invalid(problem, "name each port once"));
        }
        Ok(Self { target, protocols, ports })
    }
}

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        if text.len() > 512 {
            return Err(invalid("it is too long", "a rule has at most 512 characters"));
        }
        let (rest, protocols) = split_protocol(text.trim())?;
        let (target, ports) = split_ports(rest)?;
        Self::new(parse_target(target)?, parse_ports(ports)?, protocols)
    }
}

/// A suffix in letters is a protocol; one in digits belongs to the network.
fn split_protocol(text: &str) -> Result<(&str, Protocols), InvalidRule> {
    match text.rsplit_once('/') {
        Some((rest, word)) if word.starts_with(|first: char| first.is_ascii_alphabetic()) => {
            if rest.ends_with('/') || rest.ends_with(':') {
                return Ok((text, Protocols::Any)); // a URL: the target's parser tells
            }
            Ok((rest, Protocols::Only(parse_protocol(word)?)))
        }
        _ => Ok((text, Protocols::Any)),
    }
}

fn parse_protocol(word: &str) -> Result<Protocol, InvalidRule> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "icmp" => Ok(Protocol::Icmp),
        _ => {
            Err(invalid(format!("{:?} is no protocol", shown(word)), "write /tcp, /udp or /icmp at the end"))
        }
    }
}

fn split_ports(text: &str) -> Result<(&str, Option<&str>), InvalidRule> {
    if let Some(inner) = text.strip_prefix('[') {
        let (target, after) = inner
            .split_once(']')
            .ok_or_else(|| invalid("the bracket is not closed", "write it as in [2001:db8::/32]:443"))?;
        return match after.strip_prefix(':') {
            Some(ports) => Ok((target, Some(ports))),
            None if after.is_empty() => Ok((target, None)),
            None => Err(invalid("something stands after the bracket", "write it as in [2001:db8::/32]:443")),
        };
    }
    let colons = text.matches(':').count();
    match text.split_once(':') {
        Some((_, after)) if after.starts_with("//") => Ok((text, None)), // a URL: the target's parser tells
        Some((target, ports)) if colons == 1 => Ok((target, Some(ports))),
        _ => Ok((text, None)), // none, or an IPv6 address without brackets
    }
}

fn parse_target(text: &str) -> Result<Target, InvalidRule> {
    if text.is_empty() {
        return Err(invalid("it names no destination", "write an address, a network, or a domain name"));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return openable(address.into()).map(Target::Net);
    }
    if looks_like_a_network(text) {
        return parse_net(text).map(Target::Net);
    }
    let pattern = DomainPattern::parse(text).map_err(|error| {
        invalid(format!("{:?} is no destination: {}", shown(text), error.problem), error.mend)
    })?;
    Ok(Target::Domain(pattern))
}

fn looks_like_a_network(text: &str) -> bool {
    text.contains(':') && !text.contains("//")
        || text.split_once('/').is_some_and(|(head, _)| {
            head.parse::<IpAddr>().is_ok() || head.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
}

fn parse_net(text: &str) -> Result<IpNet, InvalidRule> {
    let net: IpNet = text.parse().map_err(|_| {
        invalid(format!("{:?} is no network", shown(text)), "write it as in 10.1.0.0/16 or 2001:db8::/32")
    })?;
    if net.addr() != net.network() {
        let problem = format!("{net} has bits set beyond its prefix");
        return Err(invalid(
            problem,
            format!("write {}, or {} for the one address", net.trunc(), net.addr()),
        ));
    }
    openable(net)
}

fn openable(net: IpNet) -> Result<IpNet, InvalidRule> {
    match Scope::within(net) {
        Some(Scope::Never(range)) => Err(invalid(
            format!("{net} lies in {range}, which no sandbox ever reaches"),
            "remove the rule: loopback, multicast, broadcast and reserved addresses stay closed",
        )),
        _ => Ok(net),
    }
}

fn parse_ports(text: Option<&str>) -> Result<Vec<PortRange>, InvalidRule> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let mut ports: Vec<PortRange> = text.split(',').map(parse_range).collect::<Result<_, _>>()?;
    ports.sort_unstable();
    Ok(ports)
}

fn parse_range(text: &str) -> Result<PortRange, InvalidRule> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange { first: parse_port(first)?, last: parse_port(last)? };
    if range.first > range.last {
        return Err(invalid(
            format!("the range {range} runs backwards"),
            format!("write {}-{}", last, first),
        ));
    }
    Ok(range)
}

fn parse_port(text: &str) -> Result<u16, InvalidRule> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| {
        invalid(format!("{:?} is no port", shown(text)), "ports are 1 to 65535, as in :443 or :80,8000-8100")
    })
}

impl PortRange {
    /// # Errors
    /// Port 0, or a last port before the first.
    pub fn new(first: u16, last: u16) -> Result<Self, InvalidRule> {
        parse_range(&format!("{first}-{last}"))
    }

    pub(crate) const fn exactly(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether a port is one of these.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Net(IpNet::V6(net)) if !self.ports.is_empty() => write!(f, "[{net}]")?,
            Target::Net(net) => net.fmt(f)?,
            Target::Domain(pattern) => pattern.fmt(f)?,
        }
        for (index, range) in self.ports.iter().enumerate() {
            write!(f, "{}{range}", if index == 0 { ':' } else { ',' })?;
        }
        match self.protocols {
            Protocols::Any => Ok(()),
            Protocols::Only(protocol) => write!(f, "/{protocol}"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// What a client sent, short enough to be shown.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(80)]
}

fn invalid(problem: impl Into<String>, mend: impl Into<String>) -> InvalidRule {
    InvalidRule { problem: problem.into(), mend: mend.into() }
}
