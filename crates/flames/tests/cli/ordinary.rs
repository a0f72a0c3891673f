//! The same without root: QEMU's user networking, the agent's port on loopback, guarded by its token.

use crate::home::{Home, end, first_line};
use crate::host;

#[test]
fn vm_of_an_ordinary_user_runs_a_command_and_leaves_nothing() {
    let Some(home) = Home::as_nobody() else { return };
    let ended = home.flames(&["run", "-n", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((ended.code, ended.text().as_str(), ended.stderr.as_str()), (7, "out\n", "err\n"));
    let mut run = home.spawn(&["run", "-n", "--", "sh", "-c", "echo up; sleep 100"]);
    assert_eq!(first_line(&mut run), "up");
    assert_eq!(end(run, "INT"), Some(130));
}

#[test]
fn vm_of_an_ordinary_user_lives_with_a_daemon_and_is_adopted() {
    let Some(mut home) = Home::as_nobody() else { return };
    home.up();
    let id = home.create(&[]);
    let shown = home.json(&["inspect", &id]);
    assert!(shown["host"]["netns"].is_null(), "{shown}");
    let port = u16::try_from(shown["host"]["host_port"].as_u64().unwrap()).unwrap();
    step_the_agents_port_is_guarded(port);
    std::fs::write(home.file("in"), "there and back").unwrap();
    home.ok(&["cp", home.file("in").to_str().unwrap(), &format!("{id}:/tmp/in")]);
    home.down("KILL");
    home.up();
    assert_eq!(home.ok(&["cp", &format!("{id}:/tmp/in"), "-"]), "there and back");
    home.ok(&["rm", &id]);
    assert_eq!(host::vmms(&home.data()), [0; 0]);
}

/// Whoever is on this machine can connect to it; without the token nothing is answered.
fn step_the_agents_port_is_guarded(port: u16) {
    use std::io::{Read, Write};
    let mut stranger = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stranger
        .write_all(b"GET /files?path=/etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stranger.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}
