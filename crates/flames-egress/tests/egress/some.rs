//! Policies and destinations to try, near enough to each other that they meet.

use flames_egress::{Carries, DomainName, EgressPolicy, PolicySpec, Protocol};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::IpAddr;

const NETS: [&str; 12] = [
    "0.0.0.0/0",
    "203.0.113.0/24",
    "203.0.113.7",
    "198.51.100.0/25",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "169.254.169.254",
    "192.168.0.0/16",
    "8.0.0.0/5",
    "::/0",
    "2001:db8::/32",
    "fd00::/8",
];
const NAMES: [&str; 4] = ["a.example.com", "*.example.com", "example.com", "b.test"];
const ADDRESSES: [&str; 16] = [
    "203.0.113.7",
    "203.0.113.8",
    "198.51.100.1",
    "198.51.100.200",
    "10.1.2.3",
    "10.2.0.1",
    "10.0.0.53",
    "169.254.169.254",
    "169.254.1.1",
    "192.168.1.1",
    "127.0.0.1",
    "224.0.0.251",
    "8.8.8.8",
    "2001:db8::7",
    "fd00::1",
    "ff02::1",
];
const PORTS: [u16; 6] = [53, 80, 443, 8080, 22, 65535];

pub(crate) fn rule(targets: &'static [&'static str]) -> impl Strategy<Value = String> {
    let ports = prop::sample::select(vec!["", ":80", ":443", ":53", ":22,8000-8100", ":1-65535"]);
    let protocol = prop::sample::select(vec!["", "/tcp", "/udp", "/icmp"]);
    (prop::sample::select(targets), ports, protocol).prop_map(|(target, ports, protocol)| {
        let ports = if protocol == "/icmp" { "" } else { ports };
        if target.contains(':') && !ports.is_empty() {
            format!("[{target}]{ports}{protocol}")
        } else {
            format!("{target}{ports}{protocol}")
        }
    })
}

pub(crate) fn policy() -> impl Strategy<Value = EgressPolicy> {
    let allow = prop::collection::vec(prop_oneof![3 => rule(&NETS), 2 => rule(&NAMES)], 0..5);
    (any::<bool>(), allow, prop::collection::vec(rule(&NETS), 0..4)).prop_map(|(internet, allow, deny)| {
        let allow: BTreeSet<String> = allow.into_iter().collect();
        let deny: BTreeSet<String> =
            deny.into_iter().filter(|rule| internet && !allow.contains(rule)).collect();
        let spec = PolicySpec {
            internet,
            allow: allow.into_iter().collect(),
            deny: deny.into_iter().collect(),
            ..PolicySpec::default()
        };
        EgressPolicy::new(&spec).unwrap()
    })
}

pub(crate) fn address() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(&ADDRESSES[..]).prop_map(|text| text.parse().unwrap())
}

pub(crate) fn names() -> impl Strategy<Value = Vec<DomainName>> {
    let known = prop::sample::select(vec!["a.example.com", "example.com", "b.test", "c.test"]);
    prop::collection::vec(known.prop_map(|name| DomainName::parse(name).unwrap()), 0..3)
}

pub(crate) fn port() -> impl Strategy<Value = u16> {
    prop::sample::select(&PORTS[..])
}

pub(crate) fn carries() -> impl Strategy<Value = Carries> {
    prop::sample::select(vec![
        Carries::Known(Protocol::Tcp),
        Carries::Known(Protocol::Udp),
        Carries::Known(Protocol::Icmp),
        Carries::Other,
    ])
}
