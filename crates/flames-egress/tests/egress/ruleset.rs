//! The compiled rules say what the decision says, and the kernel takes them.

use crate::some;
use flames_egress::{
    Carried, Carries, Destination, EgressPolicy, MAX_BYTES_PER_SECOND, MAX_RULES, Mark, Packet, PolicySpec,
    Protocol, Reason, Ruleset, Target, Uplink, Wiring, counter, decide,
};
use flames_provider::conformance;
use proptest::prelude::*;
use std::io::Write;
use std::process::{Command, Stdio};

fn wiring() -> Wiring {
    Wiring {
        tap: "tap0".into(),
        guest: [172, 16, 0, 2].into(),
        guest_mac: [6, 0, 0xac, 0x10, 0, 2],
        uplink: Some(Uplink { link: "up0".into(), resolver_port: 15053, proxy_port: 15443 }),
    }
}

fn rules(policy: &EgressPolicy) -> Ruleset {
    Ruleset::for_namespace(policy, &wiring(), Carried::default())
}

/// Where the ruleset counts what the decision says.
fn counted(policy: &EgressPolicy, by: Reason) -> Option<String> {
    match by {
        Reason::Allowed(rule) => Some(counter::of_allow(Mark::of_rule(&policy.allow()[rule]))),
        Reason::Denied(rule) => Some(counter::of_deny(Mark::of_rule(&policy.deny()[rule]))),
        Reason::Special => Some(counter::SPECIAL.into()),
        Reason::Never => Some(counter::NEVER.into()),
        Reason::Protocol => Some(counter::PROTOCOL.into()),
        Reason::Base | Reason::Dns => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_lines_decide_as_the_decision_does_and_count_for_the_same_reason(
        policy in some::policy(), address in some::address(), names in some::names(), port in some::port(), carries in some::carries(),
    ) {
        let port = if carries == Carries::Known(Protocol::Icmp) { 0 } else { port };
        let verdict = decide(&policy, Destination::named(address, &names), port, carries);
        let holds = |target: &Target| matches!(target, Target::Domain(pattern) if names.iter().any(|name| pattern.matches(name)));
        let held: Vec<Mark> =
            policy.allow().iter().filter(|rule| holds(rule.target())).map(Mark::of_rule).collect();
        let (action, counter) = rules(&policy).judge(&Packet { address, port, carries }, &held);
        prop_assert_eq!(action, verdict.action);
        match counted(&policy, verdict.by) {
            Some(expected) => prop_assert_eq!(counter, Some(expected)),
            None => prop_assert!(counter.is_none_or(|name| name == counter::DEFAULT)),
        }
    }
}

/// Runs `nft` in a namespace that ends with it: loads each script, then prints what `list` says.
fn kernel(scripts: &[String]) -> Option<String> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if !root || Command::new("nft").arg("--version").output().is_err() {
        conformance::skip("root", "run as root, with nft");
        return None;
    }
    let commands = "i=0; while [ $i -lt $1 ]; do nft -f $0/$i || exit 1; i=$((i+1)); done; nft -j list table inet flames";
    let folder = tempfile::tempdir().unwrap();
    for (index, script) in scripts.iter().enumerate() {
        std::fs::File::create(folder.path().join(index.to_string()))
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["-n", "sh", "-c", commands]).arg(folder.path()).arg(scripts.len().to_string());
    let output = unshare.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", scripts.last().unwrap());
    Some(String::from_utf8(output.stdout).unwrap())
}

fn every_kind_of_rule() -> EgressPolicy {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    EgressPolicy::new(&PolicySpec {
        internet: true,
        allow: owned(&[
            "10.1.0.0/16",
            "10.0.0.53:53",
            "203.0.113.7:443,8000-8100/tcp",
            "198.51.100.0/24/icmp",
            "2001:db8::/32",
            "[2001:db8::1]:80/udp",
            "fd00::/8",
            "a.example.com",
            "*.example.com:443,22",
            "b.test:53/udp",
            "c.test/icmp",
            "169.254.169.254:80",
        ]),
        deny: owned(&["203.0.113.0/24", "192.0.2.0/24:25/tcp", "2001:db8::/33"]),
        dns: owned(&["10.0.0.53"]),
        out_bytes_per_second: Some(1024),
        in_bytes_per_second: Some(MAX_BYTES_PER_SECOND),
        budget_bytes: Some(1 << 30),
    })
    .unwrap()
}

#[test]
fn the_kernel_takes_every_kind_of_rule_with_and_without_a_way_out() {
    let policy = every_kind_of_rule();
    let sealed = Wiring { uplink: None, ..wiring() };
    let scripts = [
        rules(&EgressPolicy::default()).script(),
        rules(&EgressPolicy::internet()).script(),
        rules(&policy).script(),
        Ruleset::for_namespace(&policy, &sealed, Carried::default()).script(),
    ];
    let Some(_) = kernel(&scripts) else { return };
}

#[test]
fn the_kernel_takes_as_many_rules_as_there_may_be() {
    let networks = (0..MAX_RULES / 2).map(|index| format!("203.0.113.{index}:443,8443/tcp"));
    let names = (0..MAX_RULES / 2).map(|index| format!("*.host{index}.example.com"));
    let spec = PolicySpec { allow: networks.chain(names).collect(), ..PolicySpec::default() };
    let Some(_) = kernel(&[rules(&EgressPolicy::new(&spec).unwrap()).script()]) else { return };
}

#[test]
fn a_mark_tells_rules_apart_and_is_the_same_in_every_policy() {
    let of = |text: &str| Mark::of_rule(&text.parse().unwrap());
    assert_eq!(of("10.0.0.1"), of("10.0.0.1/32"));
    assert_ne!(of("10.0.0.1"), of("10.0.0.1:80"));
    assert_eq!(of("a.example.com").value() & (Mark::INSPECTED | Mark::RESOLVED), 0);
    assert_ne!(Mark::resolve().value() & Mark::RESOLVED, 0);
}

#[test]
fn a_set_of_addresses_tells_whose_it_is_and_no_other_set_does() {
    let mark = Mark::of_rule(&"a.example.com".parse().unwrap());
    assert_eq!(Mark::of_set(&format!("names4_{mark}")), Some(mark));
    assert_eq!(Mark::of_set(&format!("names6_{mark}")), Some(mark));
    for other in ["live", "named_ports", "__set0", "names4_", "names4_xyz", "names4_00000000"] {
        assert_eq!(Mark::of_set(other), None, "{other}");
    }
}
