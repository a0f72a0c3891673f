//! Marks of connections: which rule admitted them.

use crate::Rule;
use sha2::{Digest, Sha256};
use std::fmt;

/// What a connection carries (`ct mark`): a hash of what admitted it, and what is done with it. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark(u32);

impl Mark {
    /// Set in the mark of a connection that goes through the proxy.
    pub const INSPECTED: u32 = 0x8000_0000;
    /// Set in the mark of a question that the resolver answers.
    pub const RESOLVED: u32 = 0x4000_0000;

    /// Of a rule; the same in every policy that has it.
    pub fn of_rule(rule: &Rule) -> Self {
        Self::hash(&["rule", &rule.to_string()])
    }

    /// Of questions for DNS.
    pub fn resolve() -> Self {
        Self(Self::hash(&["resolve"]).0 | Self::RESOLVED)
    }

    /// Of an internet less what is denied: a connection to it is decided anew when that changes.
    pub(super) fn internet(denied: &[Rule]) -> Self {
        let denied: Vec<String> = denied.iter().map(Rule::to_string).collect();
        let parts: Vec<&str> = std::iter::once("internet").chain(denied.iter().map(String::as_str)).collect();
        Self::hash(&parts)
    }

    pub(super) fn inspected(self) -> Self {
        Self(self.0 | Self::INSPECTED)
    }

    /// The number that the kernel holds.
    pub fn value(self) -> u32 {
        self.0
    }

    /// The mark of the rule that a set of addresses belongs to, by the set's name; `None` for other sets.
    pub fn of_set(name: &str) -> Option<Self> {
        let mark = name.strip_prefix("names4_").or_else(|| name.strip_prefix("names6_"))?;
        u32::from_str_radix(mark, 16).ok().filter(|value| *value != 0).map(Self)
    }

    fn hash(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        let digest = digest.finalize();
        let value = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
        let value = value & !(Self::INSPECTED | Self::RESOLVED);
        Self(value.max(1)) // zero is a connection that nobody judged
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}
