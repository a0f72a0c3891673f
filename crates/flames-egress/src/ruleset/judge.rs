//! The ruleset's decision, carried out in this process: what the kernel does with the lines, for tests that hold them
//! against [`crate::decide()`].

use super::{Family, Line, Match, Ruleset, Then, counter};
use crate::{Action, Carries, Mark, NAMED_PORTS, Protocol};
use std::net::IpAddr;

/// The first packet of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Where it goes.
    pub address: IpAddr,
    /// To which port; 0 for ICMP.
    pub port: u16,
    /// What it carries.
    pub carries: Carries,
}

impl Ruleset {
    /// What the lines do with a packet when the sets of these rules hold its address, and in which counter it is counted.
    pub fn judge(&self, packet: &Packet, held_by: &[Mark]) -> (Action, Option<String>) {
        match self.decision.iter().find(|line| line.matches(packet, held_by)).map(|line| &line.then) {
            Some(Then::Refuse { counter }) => (Action::Deny, Some(counter.clone())),
            Some(Then::Admit { mark, counter }) => (mark.action(), counter.clone()),
            None => (Action::Deny, Some(counter::DEFAULT.to_owned())),
        }
    }
}

impl Mark {
    fn action(self) -> Action {
        match self.value() {
            value if value & Self::RESOLVED != 0 => Action::Resolve,
            value if value & Self::INSPECTED != 0 => Action::Inspect,
            _ => Action::Allow,
        }
    }
}

impl Line {
    fn matches(&self, packet: &Packet, held_by: &[Mark]) -> bool {
        self.when.iter().all(|condition| condition.holds(packet, held_by))
    }
}

impl Match {
    fn holds(&self, packet: &Packet, held_by: &[Mark]) -> bool {
        let protocol = match packet.carries {
            Carries::Known(protocol) => Some(protocol),
            Carries::Other => None,
        };
        match self {
            Self::NotOf(these) => !protocol.is_some_and(|one| these.contains(&one)),
            Self::Of(these) => protocol.is_some_and(|one| these.contains(&one)),
            Self::Port(ranges) => {
                protocol != Some(Protocol::Icmp) && ranges.iter().any(|range| range.contains(packet.port))
            }
            Self::PortUnnamed => protocol != Some(Protocol::Icmp) && !NAMED_PORTS.contains(&packet.port),
            Self::To(nets) => nets.iter().any(|net| net.contains(&packet.address)),
            Self::ToNamesOf(mark, family) => {
                held_by.contains(mark) && packet.address.is_ipv4() == (*family == Family::V4)
            }
        }
    }
}
