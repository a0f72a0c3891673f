//! What one sandbox may reach, checked as a whole.

use crate::{DomainName, Rule, Scope, Target};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The most rules of a policy, allowing and denying ones together.
pub const MAX_RULES: usize = 256;
/// The most DNS servers of a policy.
pub const MAX_DNS_SERVERS: usize = 10;
/// The lowest rate limit, in bytes per second: below it not even a handshake gets through.
pub const MIN_BYTES_PER_SECOND: u64 = 1024;
/// The highest rate limit, in bytes per second; the kernel counts no higher.
pub const MAX_BYTES_PER_SECOND: u64 = 10_000_000_000;

/// What a sandbox may reach. The default is nothing at all.
///
/// Always valid: it is made of a [`PolicySpec`] alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PolicySpec", into = "PolicySpec")]
pub struct EgressPolicy(Arc<Parts>);

/// Behind a pointer: a policy stands in the record of every sandbox, and travels with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parts {
    base: Base,
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    dns: Vec<IpAddr>,
    limits: Limits,
}

/// What holds where no rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Base {
    /// Nothing is reached.
    #[default]
    Nothing,
    /// The public internet is reached, and no special address.
    Internet,
}

/// A policy as it is written: over HTTP, in records, in files. What is left out is not allowed, or not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PolicySpec {
    /// Whether the public internet is reached where no rule says otherwise. Private, link-local and metadata
    /// addresses are never part of it.
    pub internet: bool,
    /// Destinations that are reached: `TARGET[:PORTS][/PROTOCOL]`, where the target is an address, a network or a
    /// domain name (`*.example.com` for those below). An allowed destination is reached even when a `deny` rule
    /// names it, too.
    #[cfg_attr(feature = "openapi", schema(example = json!(["*.example.com", "10.1.0.0/16:443/tcp"])))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Destinations that are not reached though `internet` is on: addresses and networks, with ports and protocol.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Addresses of the DNS servers that names are looked up with; default: those of the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// The most that is sent, in bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_bytes_per_second: Option<u64>,
    /// The most that is received, in bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_bytes_per_second: Option<u64>,
    /// After so many bytes, sent and received ones together, nothing passes any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_bytes: Option<u64>,
}

/// How much may pass. `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The most that is sent, in bytes per second.
    pub out_bytes_per_second: Option<u64>,
    /// The most that is received, in bytes per second.
    pub in_bytes_per_second: Option<u64>,
    /// The most that is sent and received in all, in bytes.
    pub budget_bytes: Option<u64>,
}

/// Everything that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidPolicy {
    /// Each mistake; at least one.
    pub mistakes: Vec<Mistake>,
}

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where: a field, with the index in a list.
    pub place: String,
    /// What is wrong there.
    pub problem: String,
    /// What to do about it.
    pub mend: String,
}

impl EgressPolicy {
    /// The public internet, and no special address.
    pub fn internet() -> Self {
        Self(Arc::new(Parts { base: Base::Internet, ..Parts::default() }))
    }

    /// Checks a policy as it was written.
    ///
    /// # Errors
    /// Every mistake with its place, not only the first.
    pub fn new(spec: &PolicySpec) -> Result<Self, InvalidPolicy> {
        let mut mistakes = Vec::new();
        check_sizes(spec, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(InvalidPolicy { mistakes }); // a list past its limit is not read at all
        }
        let policy = Parts {
            base: if spec.internet { Base::Internet } else { Base::Nothing },
            allow: parse_rules("allow", &spec.allow, &mut mistakes),
            deny: parse_rules("deny", &spec.deny, &mut mistakes),
            dns: parse_servers(&spec.dns, &mut mistakes),
            limits: check_limits(spec, &mut mistakes),
        };
        if mistakes.is_empty() {
            check_together(&policy, &mut mistakes);
        }
        if mistakes.is_empty() { Ok(Self(Arc::new(policy))) } else { Err(InvalidPolicy { mistakes }) }
    }

    /// What holds where no rule does.
    pub fn base(&self) -> Base {
        self.0.base
    }

    /// The allowing rules. They win over the denying ones.
    pub fn allow(&self) -> &[Rule] {
        &self.0.allow
    }

    /// The denying rules, about addresses only.
    pub fn deny(&self) -> &[Rule] {
        &self.0.deny
    }

    /// The DNS servers of choice; empty are those of the node.
    pub fn dns(&self) -> &[IpAddr] {
        &self.0.dns
    }

    /// How much may pass.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Whether nothing at all is reached.
    pub fn is_sealed(&self) -> bool {
        self.0.base == Base::Nothing && self.0.allow.is_empty()
    }

    /// Whether names can be looked up: without a rule about names, and without the internet, DNS would only be a
    /// way out.
    pub fn resolves(&self) -> bool {
        self.0.base == Base::Internet || self.domain_rules().next().is_some()
    }

    /// The allowing rules about names, with their place.
    pub(crate) fn domain_rules(&self) -> impl Iterator<Item = (usize, &Rule)> {
        self.0.allow.iter().enumerate().filter(|(_, rule)| matches!(rule.target(), Target::Domain(_)))
    }

    /// The allowing rules whose names include this one, with their place.
    pub fn rules_naming<'a>(&'a self, name: &'a DomainName) -> impl Iterator<Item = (usize, &'a Rule)> {
        self.domain_rules().filter(move |(_, rule)| match rule.target() {
            Target::Domain(pattern) => pattern.matches(name),
            Target::Net(_) => false,
        })
    }
}

fn check_sizes(spec: &PolicySpec, mistakes: &mut Vec<Mistake>) {
    let rules = spec.allow.len() + spec.deny.len();
    if rules > MAX_RULES {
        let problem = format!("{rules} rules, more than {MAX_RULES}");
        mistakes.push(mistake(
            "allow and deny",
            problem,
            "join neighbouring networks and ports into one rule",
        ));
    }
    if spec.dns.len() > MAX_DNS_SERVERS {
        let problem = format!("{} servers, more than {MAX_DNS_SERVERS}", spec.dns.len());
        mistakes.push(mistake("dns", problem, "name the few that answer fastest"));
    }
}

fn parse_rules(list: &str, texts: &[String], mistakes: &mut Vec<Mistake>) -> Vec<Rule> {
    let mut rules = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(rule) => rules.push(rule),
            Err(crate::InvalidRule { problem, mend }) => {
                mistakes.push(mistake(format!("{list}[{index}]"), problem, mend));
            }
        }
    }
    rules
}

fn parse_servers(texts: &[String], mistakes: &mut Vec<Mistake>) -> Vec<IpAddr> {
    let mut servers = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let place = format!("dns[{index}]");
        match text.trim().parse::<IpAddr>() {
            Ok(server) if matches!(Scope::of(server), Scope::Never(_)) => {
                let problem = format!("{server} is no address of a server");
                mistakes.push(mistake(place, problem, "name a server that the node can reach, not loopback"));
            }
            Ok(server) => servers.push(server),
            Err(_) => {
                let shown = &text[..text.floor_char_boundary(80)];
                mistakes.push(mistake(place, format!("{shown:?} is no address"), "write it as in 1.1.1.1"));
            }
        }
    }
    servers
}

fn check_limits(spec: &PolicySpec, mistakes: &mut Vec<Mistake>) -> Limits {
    for (place, rate) in [
        ("out_bytes_per_second", spec.out_bytes_per_second),
        ("in_bytes_per_second", spec.in_bytes_per_second),
    ] {
        if rate.is_some_and(|rate| !(MIN_BYTES_PER_SECOND..=MAX_BYTES_PER_SECOND).contains(&rate)) {
            let problem = format!("{} bytes per second", rate.unwrap_or_default());
            let mend = format!("choose {MIN_BYTES_PER_SECOND} to {MAX_BYTES_PER_SECOND}, or leave it out");
            mistakes.push(mistake(place, problem, mend));
        }
    }
    if spec.budget_bytes == Some(0) {
        let mend = "leave it out for no limit; to allow nothing, leave the rules out";
        mistakes.push(mistake("budget_bytes", "0 bytes", mend));
    }
    Limits {
        out_bytes_per_second: spec.out_bytes_per_second,
        in_bytes_per_second: spec.in_bytes_per_second,
        budget_bytes: spec.budget_bytes,
    }
}

/// What is wrong only with other parts in view: rules that contradict each other, or that can have no effect.
fn check_together(policy: &Parts, mistakes: &mut Vec<Mistake>) {
    check_twins("allow", &policy.allow, mistakes);
    check_twins("deny", &policy.deny, mistakes);
    for (index, rule) in policy.deny.iter().enumerate() {
        let place = format!("deny[{index}]");
        if matches!(rule.target(), Target::Domain(_)) {
            let problem = format!("{rule} is a name, and only addresses can be denied");
            let mend = "leave internet off and allow the names that are wanted, or deny its addresses";
            mistakes.push(mistake(place, problem, mend));
        } else if let Some(at) = policy.allow.iter().position(|allowed| allowed == rule) {
            let problem = format!("{rule} is allowed by allow[{at}], too, and allow wins");
            mistakes.push(mistake(place, problem, "remove one of the two"));
        } else if policy.base == Base::Nothing {
            let problem =
                format!("{rule} is denied already: without internet nothing is reached but what is allowed");
            mistakes.push(mistake(place, problem, "remove it, or turn internet on"));
        }
    }
    for (index, server) in policy.dns.iter().enumerate() {
        let opened = || {
            let named = |rule: &&Rule| rule.covers(crate::Protocol::Udp, crate::DNS_PORT);
            let holds = |rule: &Rule| matches!(rule.target(), Target::Net(net) if net.contains(server));
            policy.allow.iter().filter(named).any(|rule| rule.names_a_special_range() && holds(rule))
        };
        if matches!(Scope::of(*server), Scope::Special(_)) && !opened() {
            let problem = format!("{server} is not a public address, and no rule allows it by name");
            mistakes.push(mistake(format!("dns[{index}]"), problem, format!("add \"{server}:53\" to allow")));
        }
    }
}

fn check_twins(list: &str, rules: &[Rule], mistakes: &mut Vec<Mistake>) {
    let mut seen = BTreeSet::new();
    for (index, rule) in rules.iter().enumerate() {
        if !seen.insert(rule) {
            let problem = format!("{rule} stands there twice");
            mistakes.push(mistake(format!("{list}[{index}]"), problem, "remove one of the two"));
        }
    }
}

fn mistake(place: impl Into<String>, problem: impl Into<String>, mend: impl Into<String>) -> Mistake {
    Mistake { place: place.into(), problem: problem.into(), mend: mend.into() }
}

impl TryFrom<PolicySpec> for EgressPolicy {
    type Error = InvalidPolicy;
    fn try_from(spec: PolicySpec) -> Result<Self, InvalidPolicy> {
        Self::new(&spec)
    }
}

impl From<EgressPolicy> for PolicySpec {
    fn from(policy: EgressPolicy) -> Self {
        Self {
            internet: policy.0.base == Base::Internet,
            allow: policy.0.allow.iter().map(Rule::to_string).collect(),
            deny: policy.0.deny.iter().map(Rule::to_string).collect(),
            dns: policy.0.dns.iter().map(IpAddr::to_string).collect(),
            out_bytes_per_second: policy.0.limits.out_bytes_per_second,
            in_bytes_per_second: policy.0.limits.in_bytes_per_second,
            budget_bytes: policy.0.limits.budget_bytes,
        }
    }
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let Mistake { place, problem, mend } = mistake;
            write!(f, "{}{place}: {problem} ({mend})", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}
