//! A sandbox reaches nothing: not the world, not the host, not a cloud's metadata.

use crate::home::Home;
use std::net::TcpListener;
use std::time::Duration;

/// What a guest could try, besides the listener on the host.
const ELSEWHERE: [&str; 5] =
    ["8.8.8.8 53", "169.254.169.254 80", "172.16.0.1 22", "172.16.0.1 80", "10.0.2.2 80"];

#[test]
fn vm_reaches_neither_the_world_nor_its_host() {
    let Some(home) = Home::as_root() else { return };
    assert_reaches_nothing(home);
}

#[test]
fn vm_of_an_ordinary_user_reaches_neither_the_world_nor_its_host() {
    let Some(home) = Home::as_nobody() else { return };
    assert_reaches_nothing(home);
}

fn assert_reaches_nothing(mut home: Home) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    home.up();
    let id = home.create(&[]);
    assert_eq!(
        home.sh(&id, "(nc -l -p 9 -e echo heard &) ; sleep 0.3; nc -w 1 127.0.0.1 9"),
        "heard\n",
        "the probe works"
    );
    let host_ports = host_addresses().into_iter().map(|address| format!("{address} {port}"));
    let own = [format!("172.16.0.1 {port}")];
    let targets = ELSEWHERE.map(str::to_owned).into_iter().chain(own).chain(host_ports);
    let probes: Vec<_> = targets.map(|target| probe(&target)).collect();
    assert_eq!(home.sh(&id, &format!("{} wait", probes.join(" "))), "");
    assert!(listener.accept().is_err(), "somebody came through to the host");
}

/// Says the target if it can be connected to.
fn probe(target: &str) -> String {
    format!("(timeout 3 nc -w 2 {target} < /dev/null > /dev/null 2>&1 && echo reached {target}) &")
}

/// The addresses by which the host could be reached from elsewhere.
fn host_addresses() -> Vec<String> {
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    probe.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    // Sends nothing: it only asks the kernel which address would be used.
    let address = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr());
    address.into_iter().map(|address| address.ip().to_string()).collect()
}
