//! Rules as the kernel takes them and tells them back. Needs root.

use super::testbed::Netns;
use crate::net::firewall::{self, Way};
use crate::net::nfnetlink::Family;
use crate::net::{nft, observed};
use flames_egress::{Admitted, Carried, Count, EgressPolicy, Mark, PolicySpec, Ruleset, counter};
use flames_provider::conformance;
use std::time::Duration;

/// A namespace; `None`, loudly, without root.
fn namespace() -> Option<Netns> {
    if !rustix::process::geteuid().is_root() {
        conformance::skip("root", "run as root");
        return None;
    }
    Some(Netns::new())
}

fn naming(names: &[&str]) -> EgressPolicy {
    let allow = names.iter().map(ToString::to_string).collect();
    let spec = PolicySpec { allow, budget_bytes: Some(1 << 30), ..PolicySpec::default() };
    EgressPolicy::new(&spec).unwrap()
}

fn admitted(rule: Mark, address: &str, seconds: u64) -> Admitted {
    Admitted { rule, address: address.parse().unwrap(), for_: Duration::from_secs(seconds) }
}

#[test]
fn what_is_read_back_is_what_was_carried_over_and_what_was_admitted_since() {
    let Some(netns) = namespace() else { return };
    let policy = naming(&["*.example.com", "other.example.org"]);
    let name = Mark::of_rule(&policy.allow()[0]);
    let gone = Mark::of_rule(&"gone.example.com".parse().unwrap());
    let carried = Carried {
        counters: [(counter::OUT.to_owned(), Count { packets: 3, bytes: 99 })].into(),
        budget_used: 4711,
        admitted: vec![admitted(name, "203.0.113.9", 600), admitted(gone, "203.0.113.10", 600)],
    };
    let later = [admitted(name, "203.0.113.9", 9000), admitted(name, "2001:db8::9", 300)];
    let read = netns.run(|| {
        nft::apply(&firewall::policy_rules(&policy, Way::Open, carried)).unwrap();
        let again = observed::carried().unwrap();
        nft::apply(&firewall::policy_rules(&policy, Way::Open, again)).unwrap();
        nft::apply(&Ruleset::admit(&later)).unwrap();
        observed::figures().unwrap()
    });
    assert_eq!(read.counters[counter::OUT], Count { packets: 3, bytes: 99 });
    assert_eq!(read.counters[counter::DEFAULT], Count::default());
    assert!(read.counters.contains_key(&counter::of_allow(name)));
    assert_eq!(read.budget_used, 4711);
    let mut held: Vec<_> = read.admitted.iter().map(|one| (one.address.to_string(), one.rule)).collect();
    held.sort();
    assert_eq!(held, [("2001:db8::9".to_owned(), name), ("203.0.113.9".to_owned(), name)]);
    let renewed = read.admitted.iter().find(|one| one.address.is_ipv4()).unwrap();
    assert!(renewed.for_ > Duration::from_secs(8000), "{renewed:?}");
}

#[test]
fn a_thousand_addresses_are_read_back_though_they_come_in_many_messages() {
    let Some(netns) = namespace() else { return };
    let policy = naming(&["*.example.com"]);
    let name = Mark::of_rule(&policy.allow()[0]);
    let many = (0..1000).map(|n| admitted(name, &format!("203.0.{}.{}", n / 250, n % 250), 600)).collect();
    let carried = Carried { admitted: many, ..Carried::default() };
    let read = netns.run(|| {
        nft::apply(&firewall::policy_rules(&policy, Way::Open, carried)).unwrap();
        observed::carried().unwrap()
    });
    assert_eq!(read.admitted.len(), 1000);
}

#[test]
fn rules_that_are_refused_change_nothing_and_are_told_in_the_programs_words() {
    let Some(netns) = namespace() else { return };
    let (refused, table) = netns.run(|| {
        nft::apply("table inet flames {\n counter kept {\n }\n}\n").unwrap();
        let refused = nft::apply("delete table inet flames\nadd rule inet nowhere nothing accept\n");
        (refused.unwrap_err(), observed::has_table(Family::Inet, "flames").unwrap())
    });
    assert!(refused.to_string().contains("No such file or directory"), "{refused}");
    assert!(table);
}

#[test]
fn a_table_is_found_by_family_and_name() {
    let Some(netns) = namespace() else { return };
    let found = netns.run(|| {
        nft::apply("table inet flames {\n}\ntable ip other {\n}\n").unwrap();
        let has = |family, name| observed::has_table(family, name).unwrap();
        [
            has(Family::Inet, "flames"),
            has(Family::Netdev, "flames"),
            has(Family::Inet, "flame"),
            has(Family::Inet, "other"),
        ]
    });
    assert_eq!(found, [true, false, false, false]);
}

#[test]
fn a_namespace_without_rules_tells_no_figures() {
    let Some(netns) = namespace() else { return };
    let error = netns.run(observed::carried).unwrap_err();
    assert!(error.to_string().contains("its rules are gone"), "{error}");
}
