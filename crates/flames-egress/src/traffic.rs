//! What a sandbox sent and received, and what was dropped: figures of counters, in the words of its rules.

use crate::{Carried, Count, EgressPolicy, Mark, Rule, counter};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a namespace counted since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Traffic {
    /// What the guest sent and what was let out.
    pub sent: Count,
    /// What came back on connections that the guest opened.
    pub received: Count,
    /// Bytes of the budget that are used, sent and received ones together.
    pub budget_used_bytes: u64,
    /// What was dropped, by cause: `default` (no rule allows it), `special` (a private, link-local or metadata address
    /// that no rule names), `never`, `protocol`, `spoofed`, `invalid`, `inbound`, `rate_out`, `rate_in`, `budget`,
    /// `dns` (names that may not be asked), `name` (names presented that are not allowed), `deny` (all rules that deny).
    /// Causes that nothing was dropped for are left out.
    pub dropped: BTreeMap<String, Count>,
    /// Each rule of the policy in force, in its order.
    pub rules: Vec<RuleTraffic>,
}

/// How often a rule had its effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RuleTraffic {
    /// The rule, as the policy writes it.
    pub rule: String,
    /// Whether it allows or denies.
    pub effect: Effect,
    /// Connections that it let through, or packets that it dropped.
    pub hits: u64,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It lets connections through.
    Allow,
    /// It drops packets.
    Deny,
}

impl Traffic {
    /// Reads the counters of a namespace under a policy. Others than those of its table may be among them: all that begin
    /// with `drop_` are told by what follows.
    pub fn of(policy: &EgressPolicy, counted: &Carried) -> Self {
        let count = |name: &str| counted.counters.get(name).copied().unwrap_or_default();
        let allows = policy.allow().iter().map(|rule| told(rule, Effect::Allow, &count));
        let denies = policy.deny().iter().map(|rule| told(rule, Effect::Deny, &count));
        Self {
            sent: count(counter::OUT),
            received: count(counter::IN),
            budget_used_bytes: counted.budget_used,
            dropped: dropped(&counted.counters),
            rules: allows.chain(denies).collect(),
        }
    }

    /// What was dropped for any cause.
    pub fn dropped_in_all(&self) -> Count {
        self.dropped.values().fold(Count::default(), |sum, one| sum.plus(*one))
    }
}

fn told(rule: &Rule, effect: Effect, count: &impl Fn(&str) -> Count) -> RuleTraffic {
    let mark = Mark::of_rule(rule);
    let counter = match effect {
        Effect::Allow => counter::of_allow(mark),
        Effect::Deny => counter::of_deny(mark),
    };
    RuleTraffic { rule: rule.to_string(), effect, hits: count(&counter).packets }
}

/// Rules that were withdrawn have no counter any more, so what they denied is in no sum.
fn dropped(counters: &BTreeMap<String, Count>) -> BTreeMap<String, Count> {
    let mut dropped: BTreeMap<String, Count> = BTreeMap::new();
    for (name, count) in counters.iter().filter(|(_, count)| count.packets > 0) {
        let cause = match (name.strip_prefix("drop_"), name.starts_with("deny_")) {
            (Some(cause), _) => cause,
            (None, true) => "deny",
            (None, false) => continue,
        };
        let sum = dropped.entry(cause.to_owned()).or_default();
        *sum = sum.plus(*count);
    }
    dropped
}

impl Count {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PolicySpec;

    #[test]
    fn counters_are_told_in_the_words_of_the_rules() {
        let spec = PolicySpec {
            internet: true,
            allow: vec!["10.0.0.1".into()],
            deny: vec!["203.0.113.0/24".into(), "192.0.2.1".into()],
            ..PolicySpec::default()
        };
        let policy = EgressPolicy::new(&spec).unwrap();
        let two = Count { packets: 2, bytes: 100 };
        let names = [
            counter::of_allow(Mark::of_rule(&policy.allow()[0])),
            counter::of_deny(Mark::of_rule(&policy.deny()[0])),
            counter::of_deny(Mark::of_rule(&policy.deny()[1])),
            counter::DEFAULT.to_owned(),
            counter::OUT.to_owned(),
            "drop_fragments".to_owned(),
        ];
        let mut counted = Carried { counters: names.map(|name| (name, two)).into(), ..Carried::default() };
        counted.counters.insert(counter::SPECIAL.to_owned(), Count::default());
        let traffic = Traffic::of(&policy, &counted);
        assert_eq!((traffic.sent, traffic.received), (two, Count::default()));
        let four = two.plus(two);
        let expected = [("default", two), ("deny", four), ("fragments", two)];
        assert_eq!(traffic.dropped, expected.map(|(cause, count)| (cause.to_owned(), count)).into());
        let rules: Vec<_> =
            traffic.rules.iter().map(|one| (one.rule.as_str(), one.effect, one.hits)).collect();
        let deny = |rule| (rule, Effect::Deny, 2);
        assert_eq!(rules, [("10.0.0.1/32", Effect::Allow, 2), deny("203.0.113.0/24"), deny("192.0.2.1/32")]);
        assert_eq!(traffic.dropped_in_all().packets, 8);
    }
}
