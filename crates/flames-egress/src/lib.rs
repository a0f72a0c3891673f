//! What a sandbox may reach: the rules, and everything that follows from them without doing anything.
//!
//! Pure: no I/O, no clock, no lock. Whoever owns the namespaces carries the answers out.
//!
//! - The model: [`EgressPolicy`] (made of a [`PolicySpec`], which is its form on every wire), [`Rule`], [`Limits`].
//! - For the kernel: [`Ruleset::for_namespace`] gives the whole table of one namespace as one transaction
//!   ([`Ruleset::script`]), [`Ruleset::admit`] adds addresses that DNS gave, [`Carried`] is what must outlive a
//!   replacement, the figures among it, by the names in [`counter`].
//! - For a resolver: [`dns::Question`]. For a proxy: [`ServerName::of_client_hello`], [`RequestHead`], then
//!   [`decide_name`].
//! - The figures: [`Traffic::of`].
//! - The decision: [`decide()`], [`decide_name`]. Everything else must agree with it, and is tested to.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod decide;
pub mod dns;
mod domain;
mod policy;
mod request;
mod rule;
mod ruleset;
mod server_name;
mod special;
mod traffic;

pub use decide::{Action, Carries, DNS_PORT, Destination, NAMED_PORTS, Reason, Verdict, decide, decide_name};
pub use domain::{DomainName, DomainPattern, InvalidDomain};
pub use policy::{
    Base, EgressPolicy, InvalidPolicy, Limits, MAX_BYTES_PER_SECOND, MAX_DNS_SERVERS, MAX_RULES,
    MIN_BYTES_PER_SECOND, Mistake, PolicySpec,
};
pub use request::{Body, RequestHead};
pub use rule::{InvalidRule, MAX_PORT_RANGES, PortRange, Protocol, Protocols, Rule, Target};
pub use ruleset::{
    Admitted, Carried, Count, Mark, OUTWARD_MARK, Packet, Ruleset, TABLE, Uplink, Wiring, counter,
};
pub use server_name::{MAX_PEEK, ServerName};
pub use special::Scope;
pub use traffic::{Effect, RuleTraffic, Traffic};
