//! The one decision: may this sandbox reach that destination?
//!
//! First match wins:
//!
//! 1. TCP or UDP to port 53, when the policy has names at all: Flames answers, whatever server was asked.
//! 2. Any protocol but TCP, UDP and ICMP: denied.
//! 3. Loopback, multicast, broadcast, reserved: denied; no rule opens them.
//! 4. An allow rule that lies wholly within a special range (private, link-local, metadata): allowed.
//! 5. Any other address of a special range: denied, whatever wider rule or name covers it.
//! 6. An allow rule about addresses: allowed.
//! 7. An allow rule about names one of which DNS gave this address for: allowed; TCP to 80 and 443 once the name that
//!    the client presents is allowed ([`decide_name`]), UDP to 80 and 443 not at all, since nobody can read it there.
//! 8. A deny rule: denied.
//! 9. The base: the internet is allowed, or nothing.

use crate::{Base, DomainName, EgressPolicy, Protocol, Rule, Scope, Target};
use std::net::IpAddr;

/// The port of DNS.
pub const DNS_PORT: u16 = 53;
/// Ports on which clients say in the clear whom they mean: HTTP and TLS.
pub const NAMED_PORTS: [u16; 2] = [80, 443];

/// Where a packet wants to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// Its address.
    pub address: IpAddr,
    /// The names that DNS gave this address for, to this sandbox, not too long ago.
    pub names: &'a [DomainName],
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// A protocol that rules know.
    Known(Protocol),
    /// Any other: GRE, SCTP, raw.
    Other,
}

/// What is done, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What is done.
    pub action: Action,
    /// Why.
    pub by: Reason,
}

/// What is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It passes.
    Allow,
    /// It passes once the name that the client presents is allowed: [`decide_name`].
    Inspect,
    /// It is a question that Flames answers: [`crate::dns`].
    Resolve,
    /// It does not pass.
    Deny,
}

/// Why a verdict was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `allow[i]` of the policy.
    Allowed(usize),
    /// `deny[i]` of the policy.
    Denied(usize),
    /// The policy's base.
    Base,
    /// A private, link-local or otherwise special address that no rule names.
    Special,
    /// An address that no rule can open.
    Never,
    /// A protocol that rules do not know.
    Protocol,
    /// A question for DNS.
    Dns,
}

impl<'a> Destination<'a> {
    /// A bare address.
    pub fn address(address: IpAddr) -> Self {
        Self { address, names: &[] }
    }

    /// An address with the names that DNS gave it for.
    pub fn named(address: IpAddr, names: &'a [DomainName]) -> Self {
        Self { address, names }
    }
}

/// Whether a sandbox may reach a destination. The order is told at the top of this module.
pub fn decide(policy: &EgressPolicy, to: Destination<'_>, port: u16, carries: Carries) -> Verdict {
    let Carries::Known(protocol) = carries else { return Verdict::deny(Reason::Protocol) };
    if policy.resolves() && port == DNS_PORT && protocol != Protocol::Icmp {
        return Verdict { action: Action::Resolve, by: Reason::Dns };
    }
    match Scope::of(to.address) {
        Scope::Never(_) => Verdict::deny(Reason::Never),
        Scope::Special(_) => {
            let named = |rule: &Rule| rule.names_a_special_range() && means(rule, to.address, port, protocol);
            policy.allow().iter().position(named).map_or(Verdict::deny(Reason::Special), Verdict::allow)
        }
        Scope::Public => {
            let allowed = policy.allow().iter().position(|rule| means(rule, to.address, port, protocol));
            let by_address = allowed.map(Verdict::allow);
            let verdict = by_address.or_else(|| by_name(policy, to.names, port, protocol));
            verdict.unwrap_or_else(|| without_allow(policy, to.address, port, protocol))
        }
    }
}

/// Whether a connection that [`decide`] wants inspected may go on, now that the client said whom it means; `None` when
/// it said no name. TCP alone is inspected.
///
/// A name that no rule allows may still go where it could go without any: an internet that is not denied there.
pub fn decide_name(policy: &EgressPolicy, to: IpAddr, port: u16, name: Option<&DomainName>) -> Verdict {
    let rule = name.and_then(|name| {
        let mut rules = policy.rules_naming(name);
        rules.find(|(_, rule)| rule.covers(Protocol::Tcp, port)).map(|(index, _)| index)
    });
    match (Scope::of(to), rule) {
        (Scope::Public, Some(rule)) => Verdict::allow(rule),
        _ => decide(policy, Destination::address(to), port, Carries::Known(Protocol::Tcp)),
    }
}

fn by_name(policy: &EgressPolicy, names: &[DomainName], port: u16, protocol: Protocol) -> Option<Verdict> {
    let shows_its_name = NAMED_PORTS.contains(&port) && protocol != Protocol::Icmp;
    if shows_its_name && protocol == Protocol::Udp {
        return None;
    }
    let matching = |rule: &Rule| {
        let Target::Domain(pattern) = rule.target() else { return false };
        rule.covers(protocol, port) && names.iter().any(|name| pattern.matches(name))
    };
    let rule = policy.allow().iter().position(matching)?;
    let action = if shows_its_name { Action::Inspect } else { Action::Allow };
    Some(Verdict { action, by: Reason::Allowed(rule) })
}

fn without_allow(policy: &EgressPolicy, address: IpAddr, port: u16, protocol: Protocol) -> Verdict {
    let denied = policy.deny().iter().position(|rule| means(rule, address, port, protocol));
    match (denied, policy.base()) {
        (Some(rule), _) => Verdict::deny(Reason::Denied(rule)),
        (None, Base::Internet) => Verdict { action: Action::Allow, by: Reason::Base },
        (None, Base::Nothing) => Verdict::deny(Reason::Base),
    }
}

fn means(rule: &Rule, address: IpAddr, port: u16, protocol: Protocol) -> bool {
    let Target::Net(net) = rule.target() else { return false };
    net.contains(&address) && rule.covers(protocol, port)
}

impl Verdict {
    fn allow(rule: usize) -> Self {
        Self { action: Action::Allow, by: Reason::Allowed(rule) }
    }

    fn deny(by: Reason) -> Self {
        Self { action: Action::Deny, by }
    }
}
