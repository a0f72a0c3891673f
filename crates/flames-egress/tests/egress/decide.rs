//! The decision keeps what the documentation says.

use crate::some;
use flames_egress::{
    Action, Carries, Destination, DomainName, EgressPolicy, PolicySpec, Protocol, Reason, Scope, decide,
    decide_name,
};
use proptest::prelude::*;

const TCP: Carries = Carries::Known(Protocol::Tcp);
const UDP: Carries = Carries::Known(Protocol::Udp);

fn policy(internet: bool, allow: &[&str], deny: &[&str]) -> EgressPolicy {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    EgressPolicy::new(&PolicySpec {
        internet,
        allow: owned(allow),
        deny: owned(deny),
        ..PolicySpec::default()
    })
    .unwrap()
}

fn to(policy: &EgressPolicy, address: &str, port: u16) -> (Action, Reason) {
    let verdict = decide(policy, Destination::address(address.parse().unwrap()), port, TCP);
    (verdict.action, verdict.by)
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

#[test]
fn by_default_nothing_is_reached() {
    let none = EgressPolicy::default();
    assert_eq!(to(&none, "203.0.113.7", 443), (Action::Deny, Reason::Base));
    assert_eq!(to(&none, "203.0.113.7", 53), (Action::Deny, Reason::Base));
    assert_eq!(to(&none, "10.0.0.1", 443), (Action::Deny, Reason::Special));
}

#[test]
fn the_internet_is_public_addresses_alone() {
    let internet = EgressPolicy::internet();
    assert_eq!(to(&internet, "203.0.113.7", 443), (Action::Allow, Reason::Base));
    assert_eq!(to(&internet, "169.254.169.254", 80), (Action::Deny, Reason::Special));
    assert_eq!(to(&internet, "192.168.1.1", 80), (Action::Deny, Reason::Special));
    assert_eq!(to(&internet, "127.0.0.1", 80), (Action::Deny, Reason::Never));
    assert_eq!(to(&internet, "203.0.113.7", 53), (Action::Resolve, Reason::Dns));
}

#[test]
fn allow_wins_over_deny_and_deny_over_the_internet() {
    let rules = policy(true, &["203.0.113.7:443"], &["203.0.113.0/24"]);
    assert_eq!(to(&rules, "203.0.113.7", 443), (Action::Allow, Reason::Allowed(0)));
    assert_eq!(to(&rules, "203.0.113.7", 80), (Action::Deny, Reason::Denied(0)));
    assert_eq!(to(&rules, "198.51.100.1", 80), (Action::Allow, Reason::Base));
}

#[test]
fn a_special_range_opens_only_to_a_rule_that_names_it() {
    let wild = policy(false, &["0.0.0.0/0", "8.0.0.0/5"], &[]);
    assert_eq!(to(&wild, "203.0.113.7", 80), (Action::Allow, Reason::Allowed(0)));
    assert_eq!(to(&wild, "10.0.0.1", 80), (Action::Deny, Reason::Special));
    assert_eq!(to(&wild, "169.254.169.254", 80), (Action::Deny, Reason::Special));
    let named = policy(false, &["10.1.0.0/16", "169.254.169.254:80"], &[]);
    assert_eq!(to(&named, "10.1.2.3", 80), (Action::Allow, Reason::Allowed(0)));
    assert_eq!(to(&named, "10.2.2.3", 80), (Action::Deny, Reason::Special));
    assert_eq!(to(&named, "169.254.169.254", 80), (Action::Allow, Reason::Allowed(1)));
    assert_eq!(to(&named, "169.254.169.254", 443), (Action::Deny, Reason::Special));
}

#[test]
fn a_name_opens_the_addresses_that_dns_gave_for_it_and_no_special_ones() {
    let rules = policy(false, &["*.example.com"], &[]);
    let names = [name("a.example.com")];
    let of = |address: &str, port, carries| {
        decide(&rules, Destination::named(address.parse().unwrap(), &names), port, carries).action
    };
    assert_eq!(of("203.0.113.7", 22, TCP), Action::Allow);
    assert_eq!(of("203.0.113.7", 443, TCP), Action::Inspect);
    assert_eq!(of("203.0.113.7", 443, UDP), Action::Deny);
    assert_eq!(of("10.0.0.1", 22, TCP), Action::Deny);
    assert_eq!(to(&rules, "203.0.113.7", 22).0, Action::Deny);
}

#[test]
fn an_inspected_connection_goes_on_only_to_a_name_that_is_allowed() {
    let rules = policy(false, &["*.example.com"], &[]);
    let at = "203.0.113.7".parse().unwrap();
    assert_eq!(decide_name(&rules, at, 443, Some(&name("a.example.com"))).by, Reason::Allowed(0));
    assert_eq!(decide_name(&rules, at, 443, Some(&name("evil.test"))).action, Action::Deny);
    assert_eq!(decide_name(&rules, at, 443, None).action, Action::Deny);
    assert_eq!(
        decide_name(&rules, "10.0.0.1".parse().unwrap(), 443, Some(&name("a.example.com"))).by,
        Reason::Special
    );
    let open = policy(true, &["a.example.com"], &["203.0.113.7"]);
    assert_eq!(decide_name(&open, at, 443, Some(&name("evil.test"))).by, Reason::Denied(0));
    assert_eq!(
        decide_name(&open, "203.0.113.8".parse().unwrap(), 443, Some(&name("evil.test"))).by,
        Reason::Base
    );
}

proptest! {
    #[test]
    fn no_policy_opens_loopback_multicast_or_reserved_addresses(
        policy in some::policy(), address in some::address(), names in some::names(), port in some::port(), carries in some::carries(),
    ) {
        let verdict = decide(&policy, Destination::named(address, &names), port, carries);
        if matches!(Scope::of(address), Scope::Never(_)) {
            prop_assert!(matches!(verdict.action, Action::Deny | Action::Resolve));
        }
        if carries == Carries::Other {
            prop_assert_eq!(verdict.action, Action::Deny);
        }
    }

    #[test]
    fn a_special_address_is_reached_only_when_a_rule_within_its_range_covers_it(
        policy in some::policy(), address in some::address(), names in some::names(), port in some::port(), carries in some::carries(),
    ) {
        let verdict = decide(&policy, Destination::named(address, &names), port, carries);
        if let (Scope::Special(range), Action::Allow | Action::Inspect) = (Scope::of(address), verdict.action) {
            let Reason::Allowed(rule) = verdict.by else { return Err(TestCaseError::fail("no rule named")) };
            let flames_egress::Target::Net(net) = policy.allow()[rule].target() else {
                return Err(TestCaseError::fail("a name opened a special range"));
            };
            prop_assert!(range.contains(net) && net.contains(&address));
        }
    }

    #[test]
    fn one_more_allow_rule_never_closes_anything(
        policy in some::policy(), more in some::rule(&["203.0.113.0/24", "10.0.0.0/8", "192.0.2.1"]),
        address in some::address(), names in some::names(), port in some::port(), carries in some::carries(),
    ) {
        let destination = Destination::named(address, &names);
        let before = decide(&policy, destination, port, carries).action;
        let mut spec = PolicySpec::from(policy);
        spec.allow.push(more);
        let Ok(wider) = EgressPolicy::new(&spec) else { return Ok(()) }; // twins
        if before != Action::Deny {
            prop_assert_ne!(decide(&wider, destination, port, carries).action, Action::Deny);
        }
    }

    #[test]
    fn without_rules_and_internet_nothing_passes(address in some::address(), names in some::names(), port in some::port(), carries in some::carries()) {
        let verdict = decide(&EgressPolicy::default(), Destination::named(address, &names), port, carries);
        prop_assert_eq!(verdict.action, Action::Deny);
    }
}
