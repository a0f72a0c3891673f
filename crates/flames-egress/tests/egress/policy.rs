//! What is written is read as it was meant, or refused with place, problem and mend.

use crate::some;
use flames_egress::{EgressPolicy, MAX_DNS_SERVERS, MAX_RULES, Mistake, PolicySpec, Rule};
use proptest::prelude::*;

fn spec(allow: &[&str], deny: &[&str]) -> PolicySpec {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    PolicySpec { allow: owned(allow), deny: owned(deny), ..PolicySpec::default() }
}

fn mistakes(spec: &PolicySpec) -> Vec<Mistake> {
    EgressPolicy::new(spec).unwrap_err().mistakes
}

fn only(spec: &PolicySpec) -> Mistake {
    let mut all = mistakes(spec);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn nothing_is_the_default_and_is_sealed() {
    let policy = EgressPolicy::new(&PolicySpec::default()).unwrap();
    assert_eq!(policy, EgressPolicy::default());
    assert!(policy.is_sealed() && !policy.resolves());
    assert!(!EgressPolicy::internet().is_sealed() && EgressPolicy::internet().resolves());
}

#[test]
fn a_rule_is_written_as_it_was_read() {
    for text in [
        "10.0.0.0/8",
        "10.1.2.3/32:443/tcp",
        "192.0.2.0/24:22,8000-8100",
        "203.0.113.0/24/icmp",
        "*.example.com",
        "api.example.com:443",
        "[2001:db8::/32]:443/udp",
        "2001:db8::/32",
    ] {
        assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
    }
    for (text, same) in [
        ("10.1.2.3", "10.1.2.3/32"),
        (" Example.COM ", "example.com"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("10.0.0.1:90,80", "10.0.0.1/32:80,90"),
        ("a.com/TCP", "a.com/tcp"),
        ("10.0.0.1:5-5", "10.0.0.1/32:5"),
    ] {
        assert_eq!(text.parse::<Rule>().unwrap().to_string(), same);
    }
}

#[test]
fn a_wrong_rule_is_refused_with_what_is_wrong_and_the_mend() {
    for (text, problem, mend) in [
        ("10.0.0.0/33", "\"10.0.0.0/33\" is no network", "10.1.0.0/16"),
        ("10.0.0/8", "is no network", "10.1.0.0/16"),
        ("10.0.0.1/8", "10.0.0.1/8 has bits set beyond its prefix", "write 10.0.0.0/8, or 10.0.0.1"),
        ("300.1.1.1", "neither a name nor an address", "up to 255"),
        ("2001:db8::/129", "is no network", "2001:db8::/32"),
        ("[2001:db8::1:443", "bracket", "[2001:db8::/32]:443"),
        ("[2001:db8::1]443", "after the bracket", "[2001:db8::/32]:443"),
        ("example.com:0", "\"0\" is no port", "1 to 65535"),
        ("example.com:65536", "\"65536\" is no port", "1 to 65535"),
        ("example.com:http", "\"http\" is no port", "1 to 65535"),
        ("example.com:+80", "\"+80\" is no port", "1 to 65535"),
        ("example.com:", "\"\" is no port", "1 to 65535"),
        ("example.com:90-80", "runs backwards", "80-90"),
        ("example.com:80,80", "overlap", "once"),
        ("example.com:80/sctp", "\"sctp\" is no protocol", "/tcp"),
        ("1.1.1.1:80/icmp", "ICMP has no ports", "leave the ports out"),
        ("https://example.com", "URL", "host alone"),
        ("example.com/path", "\"path\" is no protocol", "/tcp"),
        ("*", "star", "*.example.com"),
        ("a.*.com", "star", "*.example.com"),
        ("intranet", "no dot", "whole name"),
        ("", "names no destination", "write an address"),
        (":443", "names no destination", "write an address"),
        ("127.0.0.1", "no sandbox ever reaches", "remove the rule"),
        ("127.0.0.0/8:80", "no sandbox ever reaches", "remove the rule"),
        ("::ffff:10.0.0.1", "no sandbox ever reaches", "remove the rule"),
        ("224.0.0.0/4", "no sandbox ever reaches", "remove the rule"),
    ] {
        let found = only(&spec(&["1.1.1.1", text], &[]));
        assert_eq!(found.place, "allow[1]", "{text}");
        assert!(found.problem.contains(problem), "{text}: {}", found.problem);
        assert!(found.mend.contains(mend), "{text}: {}", found.mend);
    }
}

#[test]
fn too_many_ports_rules_or_servers_are_refused_with_the_limit() {
    let ports: Vec<String> = (1..=17).map(|port| (port * 2).to_string()).collect();
    let found = only(&spec(&[&format!("1.1.1.1:{}", ports.join(","))], &[]));
    assert!(found.problem.contains("more than 16"), "{found:?}");

    let many: Vec<String> =
        (0..=MAX_RULES).map(|index| format!("10.0.{}.{}", index / 256, index % 256)).collect();
    let whole = PolicySpec { allow: many[..MAX_RULES].to_vec(), ..PolicySpec::default() };
    assert_eq!(EgressPolicy::new(&whole).unwrap().allow().len(), MAX_RULES);
    let found = only(&PolicySpec { deny: vec!["1.1.1.1".into()], ..whole });
    assert_eq!(found.problem, "257 rules, more than 256");

    let servers = vec!["1.1.1.1".to_owned(); MAX_DNS_SERVERS + 1];
    assert_eq!(only(&PolicySpec { dns: servers, ..PolicySpec::default() }).place, "dns");
}

#[test]
fn rules_that_contradict_or_have_no_effect_are_refused() {
    let internet = |allow: &[&str], deny: &[&str]| PolicySpec { internet: true, ..spec(allow, deny) };
    let found = only(&internet(&["1.1.1.1"], &["1.1.1.1/32"]));
    assert_eq!((found.place.as_str(), found.mend.as_str()), ("deny[0]", "remove one of the two"));
    assert!(only(&internet(&["a.com", "A.com."], &[])).problem.contains("twice"));
    assert!(only(&internet(&[], &["a.com"])).problem.contains("only addresses can be denied"));
    assert!(only(&spec(&["1.1.1.1"], &["8.8.8.8"])).mend.contains("turn internet on"));
}

#[test]
fn a_dns_server_inside_needs_a_rule_that_names_it() {
    let with = |allow: &[&str], server: &str| PolicySpec { dns: vec![server.into()], ..spec(allow, &[]) };
    assert!(only(&with(&["a.com"], "10.0.0.2")).mend.contains("add \"10.0.0.2:53\" to allow"));
    assert!(only(&with(&["0.0.0.0/0"], "169.254.169.254")).problem.contains("no rule allows it by name"));
    assert!(only(&with(&[], "127.0.0.1")).problem.contains("no address of a server"));
    assert!(only(&with(&[], "dns.example.com")).problem.contains("no address"));
    EgressPolicy::new(&with(&["a.com", "10.0.0.2:53"], "10.0.0.2")).unwrap();
    EgressPolicy::new(&with(&["a.com"], "1.1.1.1")).unwrap();
}

#[test]
fn limits_outside_their_range_are_refused() {
    let mistakes = mistakes(&PolicySpec {
        out_bytes_per_second: Some(1),
        in_bytes_per_second: Some(u64::MAX),
        budget_bytes: Some(0),
        ..PolicySpec::default()
    });
    let places: Vec<&str> = mistakes.iter().map(|one| one.place.as_str()).collect();
    assert_eq!(places, ["out_bytes_per_second", "in_bytes_per_second", "budget_bytes"]);
}

#[test]
fn every_mistake_is_told_at_once_and_unknown_fields_are_named() {
    let all = mistakes(&spec(&["1.1.1.1/40", "x"], &["a:b:c"]));
    assert_eq!(
        all.iter().map(|one| one.place.as_str()).collect::<Vec<_>>(),
        ["allow[0]", "allow[1]", "deny[0]"]
    );
    let unknown = serde_json::from_str::<PolicySpec>(r#"{"allowed":["1.1.1.1"]}"#).unwrap_err();
    assert!(unknown.to_string().contains("unknown field `allowed`"), "{unknown}");
    let invalid = serde_json::from_str::<EgressPolicy>(r#"{"allow":["1.1.1.1/40"]}"#).unwrap_err();
    assert!(invalid.to_string().contains("allow[0]: \"1.1.1.1/40\" is no network"), "{invalid}");
}

proptest! {
    #[test]
    fn a_policy_survives_its_way_over_the_wire(policy in some::policy()) {
        let text = serde_json::to_string(&policy).unwrap();
        prop_assert_eq!(serde_json::from_str::<EgressPolicy>(&text).unwrap(), policy);
    }

    #[test]
    fn no_text_makes_the_rule_parser_panic_and_what_it_takes_it_writes_back(text in "[a-z0-9:./*,\\[\\]-]{0,40}|\\PC{0,20}") {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
        }
    }
}
