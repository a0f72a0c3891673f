//! What a sandbox may reach, from the command line: mistakes are told, and what is said holds on real VMs, between test
//! hosts in namespaces.

use crate::home::Home;
use crate::host::{self, ip};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;

/// Rules that nobody can mean, and what is said of each.
const MISTAKES: [(&[&str], &str); 12] = [
    (&["--allow-out", "10.0.0.0/33"], "network.allow[0]"),
    (&["--allow-out", "10.0.0.1/24"], "network.allow[0]"),
    (&["--allow-out", "300.1.1.1"], "network.allow[0]"),
    (&["--allow-out", "10.0.0.1:0"], "network.allow[0]"),
    (&["--allow-out", "10.0.0.1", "--allow-out", "10.0.0.1:70000"], "network.allow[1]"),
    (&["--allow-out", "10.0.0.1:90-80"], "network.allow[0]"),
    (&["--allow-out", "10.0.0.1/sctp"], "network.allow[0]"),
    (&["--allow-out", "exa mple.com"], "network.allow[0]"),
    (&["--allow-out", "a.*.example.com"], "network.allow[0]"),
    (&["--deny-out", "203.0.113.0/24"], "network.deny[0]"),
    (&["--internet", "--deny-out", "example.com"], "network.deny[0]"),
    (&["--internet", "--dns", "nowhere"], "network.dns[0]"),
];

#[test]
fn a_rule_that_nobody_can_mean_is_refused_by_name_and_nothing_is_made() {
    let mut home = Home::bare();
    home.up();
    for (words, place) in MISTAKES {
        let problem = home.refused(&[&["create"], words].concat());
        assert_eq!(problem["id"], place, "{words:?}: {problem}");
        assert_eq!(problem["status"], 400, "{words:?}: {problem}");
    }
    let many: Vec<String> =
        (0..257).map(|n| format!("--allow-out=10.{}.{}.0/24", n / 256, n % 256)).collect();
    let words: Vec<&str> = ["create"].into_iter().chain(many.iter().map(String::as_str)).collect();
    assert!(home.refused(&words).to_string().contains("256"));
    let set = home.refused(&["network", "set", "nobody", "--allow-out", "10.0.0.0/33"]);
    assert!(set.to_string().contains("10.0.0.0/33") || set.to_string().contains("nobody"), "{set}");
    assert_eq!(home.ok(&["ls", "-q"]), "");
}

/// A host that forwards, and a world behind it with two addresses that answer on port 8080.
struct World {
    names: [String; 2],
}

const REACHED: &str = "198.51.100.10";
const OTHER: &str = "198.51.100.20";

impl World {
    fn new() -> Self {
        let names = ["u", "w"].map(|kind| format!("flt{kind}{}", std::process::id()));
        let [uplink, world] = &names;
        let world_of = Self { names: names.clone() };
        for name in &names {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!("-n {uplink} link add wan type veth peer name eth0 netns {world}"));
        ip(&format!("-n {uplink} link set wan up"));
        ip(&format!("-n {uplink} address add 203.0.113.1/24 dev wan"));
        ip(&format!("-n {world} link set eth0 up"));
        ip(&format!("-n {world} address add 203.0.113.2/24 dev eth0"));
        for address in [REACHED, OTHER] {
            ip(&format!("-n {world} address add {address}/32 dev lo"));
        }
        ip(&format!("-n {uplink} route add default via 203.0.113.2"));
        ip(&format!("netns exec {uplink} sysctl -qw net.ipv4.ip_forward=1"));
        world_of.listen();
        world_of
    }

    /// Says hello to everybody, until the test's process ends.
    fn listen(&self) {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.names[1])).unwrap();
        let (bound, is_bound) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let into = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(into)).unwrap();
            let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
            bound.send(()).unwrap();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.write_all(b"hello\n");
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut [0]);
            }
        });
        is_bound.recv().unwrap();
    }

    fn configure(&self, home: &Home) {
        home.configure(&format!(
            "[network]\nrange = \"100.125.0.0/24\"\nuplink_namespace = \"/run/netns/{}\"\n",
            self.names[0]
        ));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&format!("netns del {name}"));
        }
    }
}

/// What an address says to the guest: nothing, if it is not reached.
fn heard(home: &Home, id: &str, address: &str) -> String {
    home.sh(id, &format!("timeout 20 nc -w 5 {address} 8080 < /dev/null 2> /dev/null || true"))
}

const ALLOWED: [&str; 2] = ["--allow-out", "198.51.100.10:8080/tcp"];

#[test]
fn vm_reaches_what_its_policy_says_through_a_change_and_a_daemon_s_death() {
    let Some(mut home) = Home::as_root() else { return };
    let world = World::new();
    world.configure(&home);
    home.up();
    let id = home.create(&[&ALLOWED[..], &["--timeout", "0"]].concat());
    assert_eq!((heard(&home, &id, REACHED), heard(&home, &id, OTHER)), ("hello\n".into(), String::new()));
    let shown = home.ok(&["network", "show", &id]);
    assert!(shown.contains("allow     198.51.100.10/32:8080/tcp"), "{shown}");
    assert!(shown.contains("1 connections let through") && shown.contains("(default)"), "{shown}");

    home.down("KILL");
    home.up();
    assert_eq!((heard(&home, &id, REACHED), heard(&home, &id, OTHER)), ("hello\n".into(), String::new()));
    let shown = home.ok(&["network", "show", &id]);
    assert!(shown.contains("2 connections let through"), "what was counted stays: {shown}");

    home.ok(&["network", "set", &id, "--internet", "--deny-out", "198.51.100.10"]);
    assert_eq!((heard(&home, &id, REACHED), heard(&home, &id, OTHER)), (String::new(), "hello\n".into()));
    let sealed = home.ok(&["network", "set", &id]);
    assert!(sealed.contains("nothing is reached"), "{sealed}");
    assert_eq!(heard(&home, &id, OTHER), "");
    home.ok(&["rm", &id]);
    home.down("TERM");
    assert_eq!(home.footprint(), [""; 0]);
}

#[test]
fn vm_from_a_warm_pool_has_the_policy_of_its_create_when_it_is_handed_out() {
    let Some(mut home) = Home::as_root() else { return };
    let world = World::new();
    world.configure(&home);
    home.up();
    home.ok(&[
        "pool",
        "set",
        "mini",
        "--running",
        "1",
        "--paused",
        "0",
        "--prepared",
        "0",
        "--min",
        "0",
        "--max",
        "3",
    ]);
    // A pool that was asked may grow.
    let ready = || home.json(&["pool", "show", "mini"])["ready"].as_u64() >= Some(1);
    host::wait_for("a full pool", ready);
    let created = home.json(&[&["create", "--timeout", "0"], &ALLOWED[..]].concat());
    assert_eq!(created["path"], "warm", "{created}");
    let id = created["id"].as_str().unwrap();
    assert_eq!((heard(&home, id, REACHED), heard(&home, id, OTHER)), ("hello\n".into(), String::new()));
    // The next of the same pool asks for nothing, and has nothing of its predecessor's.
    host::wait_for("its successor", ready);
    let next = home.json(&["create", "--timeout", "0"]);
    assert_eq!(next["path"], "warm", "{next}");
    assert_eq!(heard(&home, next["id"].as_str().unwrap(), REACHED), "");
    home.ok(&["pool", "rm", "mini"]);
    home.ok(&["rm", "--all"]);
    home.down("TERM");
    assert_eq!(home.footprint(), [""; 0]);
}
