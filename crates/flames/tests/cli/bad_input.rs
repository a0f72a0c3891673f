//! Bad input to a daemon that runs: each has its status, its code and its exit code, and leaves nothing.

use crate::home::{Home, WITHOUT_INGRESS};
use std::fs;

#[test]
fn vm_bad_creates_are_refused_and_leave_nothing() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let unknown = home.refused(&["create", "-t", "no-such-template"]);
    assert_eq!((&unknown["code"], &unknown["status"]), (&"template_not_found".into(), &404.into()));
    assert_eq!((&unknown["resource"], &unknown["id"]), (&"template".into(), &"no-such-template".into()));
    assert!(unknown["mend"].as_str().unwrap().contains("template ls"), "{unknown}");
    for (words, field) in [
        (["-t", "../etc"], "template"),
        (["--memory", "0"], "memory_mib"),
        (["--memory", "4294967295"], "memory_mib"),
        (["--cpus", "0"], "vcpus"),
        (["--cpus", "4096"], "vcpus"),
        (["--disk", "1"], "disk_mib"),
        (["--user", "a b"], "user"),
        (["--workdir", "relative"], "workdir"),
    ] {
        let refused = home.refused(&[&["create"], words.as_slice()].concat());
        assert_eq!(
            (&refused["status"], &refused["id"]),
            (&400.into(), &field.into()),
            "{words:?}: {refused}"
        );
    }
    assert_eq!(home.ok(&["ls", "-q"]), "");
    assert_eq!(home.flames(&["run", "-n", "-t", "no-such-template", "--", "true"]).code, 125);
}

#[test]
fn vm_bad_commands_are_refused_and_the_sandbox_goes_on() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let id = home.create(&[]);
    let exec = |words: &[&str], command: &str| {
        let words = [&["--json", "exec", "-n"], words, &[&id, "--", command]].concat();
        let ended = home.flames(&words);
        let problem: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
        (ended.code, problem["status"].as_u64().unwrap(), problem["code"].as_str().unwrap().to_owned())
    };
    assert_eq!(exec(&[], "/no/such/command"), (127, 404, "guest_not_found".into()));
    assert_eq!(exec(&["-w", "/no/such/directory"], "true"), (125, 400, "guest_invalid_argument".into()));
    assert_eq!(exec(&["-u", "nobody-here"], "true"), (125, 400, "guest_unknown_user".into()));
    for (id, status) in [("i0unknown", 404), ("../../keys", 400)] {
        let refused = home.refused(&["exec", "-n", id, "--", "true"]);
        assert_eq!(refused["status"], status, "{refused}");
    }
    assert_eq!(home.sh(&id, "echo fine"), "fine\n");
}

#[test]
fn vm_disk_that_is_full_is_said_and_the_sandbox_goes_on() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let id = home.create(&["--disk", "16"]);
    fs::write(home.file("large"), vec![7; 40 << 20]).unwrap();
    let full = home.refused(&["cp", home.file("large").to_str().unwrap(), &format!("{id}:/tmp/large")]);
    assert_eq!((&full["status"], &full["code"]), (&507.into(), &"guest_resource_exhausted".into()), "{full}");
    home.sh(&id, "rm -f /tmp/large; echo small > /tmp/small; sync");
    assert_eq!(home.ok(&["cp", &format!("{id}:/tmp/small"), "-"]), "small\n");
}

#[test]
fn vm_upload_above_the_limit_is_refused_and_leaves_no_file() {
    let Some(mut home) = Home::with_vms() else { return };
    let config = home.file("flames.toml");
    fs::write(&config, format!("{WITHOUT_INGRESS}[api]\nmax_upload_mib = 1\n")).unwrap();
    home.up_with(&["--config", config.to_str().unwrap()]);
    let id = home.create(&[]);
    fs::write(home.file("large"), vec![7; 3 << 20]).unwrap();
    let refused = home.refused(&["cp", home.file("large").to_str().unwrap(), &format!("{id}:/tmp/large")]);
    assert_eq!(
        (&refused["status"], &refused["code"]),
        (&413.into(), &"upload_too_large".into()),
        "{refused}"
    );
    assert_eq!(home.sh(&id, "ls /tmp"), "");
}

#[test]
fn vm_create_on_a_host_without_room_is_refused_before_anything_is_written() {
    let Some(mut home) = Home::with_vms() else { return };
    let config = home.file("flames.toml");
    fs::write(&config, format!("{WITHOUT_INGRESS}[node]\nreserve_disk_mib = 1000000000\n")).unwrap();
    home.up_with(&["--config", config.to_str().unwrap()]);
    let refused = home.refused(&["create"]);
    assert_eq!((&refused["status"], &refused["code"]), (&503.into(), &"unavailable".into()), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("MiB"), "{refused}");
    assert_eq!(home.ok(&["ls", "-q"]), "");
    assert_eq!(fs::read_dir(home.data().join("vms")).unwrap().count(), 0);
}

#[test]
fn vm_keys_open_the_tcp_listener_and_nothing_else_does() {
    let Some(mut home) = Home::with_vms() else { return };
    let daemon = home.up();
    let (url, key) = (daemon.url.clone(), daemon.key.clone().expect("the first start shows a key"));
    let remote = |key: &str, words: &[&str]| {
        home.flames(&[&["--json", "--url", &url, "--api-key", key], words].concat())
    };
    let wrong = remote("e2b_0000", &["create"]);
    let problem: serde_json::Value = serde_json::from_str(&wrong.stderr).unwrap();
    assert_eq!(
        (wrong.code, &problem["status"], &problem["code"]),
        (1, &401.into(), &"unauthenticated".into())
    );
    assert_eq!(remote(&key, &["ls"]).code, 0);
    let local_only = remote(&key, &["key", "create", "another"]);
    assert!(local_only.code == 1 && local_only.stderr.contains("local_only"), "{local_only:?}");

    let made = home.json(&["key", "create", "second"]);
    let second = made["key"].as_str().unwrap();
    assert_eq!(remote(second, &["ls"]).code, 0);
    home.ok(&["key", "revoke", made["id"].as_str().unwrap()]);
    assert_eq!(remote(second, &["ls"]).code, 1);
}
