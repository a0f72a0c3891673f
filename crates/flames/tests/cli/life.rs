//! A sandbox's life with a daemon: made, looked at, used, ended, and what happens without being asked.

use crate::home::{Home, end, first_line};
use crate::host;
use serde_json::Value;

#[test]
fn vm_lives_from_create_to_rm_on_the_command_line() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let id = home.create(&["--label", "team=a", "--env", "GREETING=hello", "--timeout", "600"]);
    step_lists_and_filters(&home, &id);
    step_inspect_tells_stages_and_host(&home, &id);
    step_exec_has_environment_user_and_directory(&home, &id);
    step_json_of_exec_parses(&home, &id);
    assert!(home.ok(&["timeout", &id, "900"]).contains(&id));
    assert!(home.json(&["timeout", &id, "0"])["ends_at"].is_null());
    assert_eq!(home.ok(&["rm", &id]).trim(), id);
    assert_eq!(home.refused(&["inspect", &id])["code"], "sandbox_not_found");
    assert_eq!(home.json(&["ls"]), Value::Array(vec![]));
}

fn step_lists_and_filters(home: &Home, id: &str) {
    let ids = |words: &[&str]| home.ok(&[&["ls", "-q"], words].concat());
    assert_eq!(ids(&[]).trim(), id);
    assert_eq!(ids(&["--label", "team=a", "--state", "running", "-t", "mini"]).trim(), id);
    assert_eq!(ids(&["--label", "team=b"]), "");
    assert_eq!(ids(&["--state", "failed,paused"]), "");
    assert!(home.ok(&["ls"]).contains("team=a"));
    assert_eq!(home.refused(&["ls", "--state", "happy"])["id"], "state");
}

fn step_inspect_tells_stages_and_host(home: &Home, id: &str) {
    let shown: Value = serde_json::from_str(&home.ok(&["inspect", id])).unwrap();
    assert_eq!((&shown["state"], &shown["memory_mib"]), (&"running".into(), &128.into()));
    for stage in ["record_ms", "disk_ms", "vmm_spawn_ms", "kernel_to_agent_ms", "agent_init_ms", "create_ms"]
    {
        assert!(shown["timings"][stage].as_f64().unwrap() > 0.0, "{stage}: {shown}");
    }
    let vmm = u32::try_from(shown["host"]["pid"].as_u64().unwrap()).unwrap();
    assert_eq!(host::vmms(&home.data()), [vmm]);
}

fn step_exec_has_environment_user_and_directory(home: &Home, id: &str) {
    let line = "echo $GREETING $MORE; id -un; pwd";
    let user = home.ok(&["exec", "-n", "-e", "MORE=x", id, "--", "sh", "-c", line]);
    assert_eq!(user, "hello x\nuser\n/home/user\n");
    let root = home.ok(&["exec", "-n", "-u", "root", "-w", "/etc", id, "--", "sh", "-c", line]);
    assert_eq!(root, "hello\nroot\n/etc\n");
    assert_eq!(home.flames_fed(&["exec", id, "--", "wc", "-c"], b"12345").text().trim(), "5");
    let late = home.flames(&["exec", "-n", "--timeout", "1", id, "--", "sleep", "50"]);
    assert_ne!(late.code, 0, "{late:?}");
}

fn step_json_of_exec_parses(home: &Home, id: &str) {
    let ended = home.json(&["exec", "-n", id, "--", "echo", "hi"]);
    assert_eq!((&ended["exit_code"], &ended["stdout"]), (&0.into(), &"hi\n".into()));
}

#[test]
fn vm_ends_by_itself_when_its_time_is_over() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let kept = home.create(&["--timeout", "600"]);
    home.create(&["--timeout", "1"]);
    host::wait_for("its end", || host::vmms(&home.data()).len() == 1);
    host::wait_for("the end of its record", || home.ok(&["ls", "-q"]).trim() == kept);
}

#[test]
fn vm_that_dies_leaves_a_failed_sandbox_with_the_cause() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let id = home.create(&[]);
    host::signal(host::vmms(&home.data())[0], "KILL");
    let state = || home.json(&["inspect", &id]);
    host::wait_for("the failure", || state()["state"] == "failed");
    assert_eq!(state()["failure"]["cause"], "vm_exited", "{}", state());
    host::wait_for("an empty host", || host::vmms(&home.data()).is_empty());
    let refused = home.refused(&["exec", "-n", &id, "--", "true"]);
    assert_eq!((&refused["code"], &refused["status"]), (&"sandbox_not_running".into(), &409.into()));
    home.ok(&["rm", &id]);
}

#[test]
fn vm_goes_on_when_a_client_goes_away_mid_stream() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let id = home.create(&[]);
    let mut client =
        home.spawn(&["exec", "-n", &id, "--", "sh", "-c", "while :; do echo tick; sleep 0.1; done"]);
    assert_eq!(first_line(&mut client), "tick");
    assert_eq!(end(client, "KILL"), None);
    assert_eq!(home.sh(&id, "ps | grep -c '[e]cho tick'").trim(), "1", "the command goes on");
    assert_eq!(home.sh(&id, "echo fine"), "fine\n");
}

#[test]
fn vm_create_whose_client_goes_away_is_destroyed_again() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let client = home.spawn(&["create"]);
    host::wait_for("a VMM", || !host::vmms(&home.data()).is_empty());
    end(client, "KILL");
    host::wait_for("the end of the VMM", || host::vmms(&home.data()).is_empty());
    host::wait_for("the end of the record", || home.ok(&["ls", "-q"]).is_empty());
}

#[test]
fn vm_rm_all_ends_every_sandbox() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let ids = [home.create(&[]), home.create(&[])];
    let removed = home.json(&["rm", "--all"]);
    let removed: Vec<_> = removed["removed"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(removed.len() == 2 && ids.iter().all(|id| removed.contains(&id.as_str())), "{removed:?}");
    assert_eq!(host::vmms(&home.data()), [0; 0]);
    assert_eq!(home.ok(&["rm", "--all"]), "");
}

#[test]
fn vm_twenty_at_once_all_succeed() {
    let Some(home) = Home::with_vms() else { return };
    let report = home.json(&["bench", "boot", "-n", "20", "-c", "20", "--memory", "96"]);
    assert_eq!((&report["count"], &report["failed"]), (&20.into(), &0.into()), "{report}");
}
