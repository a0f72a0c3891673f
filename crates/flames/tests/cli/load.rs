//! `flames bench create`: it measures, deletes what it made, and what it saves can be compared.

use crate::home::{Home, end};
use crate::host;
use serde_json::Value;

#[test]
fn vm_a_load_is_measured_saved_and_compared_and_leaves_no_sandbox() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let closed = home.json(&["bench", "create", "-n", "2", "--save", "closed.json"]);
    let burst = home.json(&["bench", "create", "--burst", "2", "--no-command", "--save", "burst.json"]);
    for report in [&closed, &burst] {
        assert_eq!((&report["created"], &report["failed"]), (&2.into(), &0.into()), "{report}");
        assert_eq!(report["embedded_daemon"], false);
    }
    assert!(named(&closed, "create to first output")["p50_ms"].as_f64().unwrap() > 0.0);
    assert!(named(&burst, "create, from intended start")["p50_ms"].as_f64().unwrap() > 0.0);
    let ramp = home.json(&["bench", "create", "--ramp", "1..3", "-d", "2s", "--no-command"]);
    assert!(ramp["created"].as_u64().unwrap() >= 1, "{ramp}");
    assert_eq!((&ramp["created"], &ramp["failed"]), (&ramp["planned"], &0.into()), "{ramp}");
    assert_eq!(home.ok(&["ls", "-q"]), "");
    let lines = home.json(&["bench", "compare", "closed.json", "burst.json"]);
    let created = lines.as_array().unwrap().iter().find(|line| line["what"] == "created").unwrap();
    assert_eq!(created["ratios"][0], 1.0);
}

#[test]
fn vm_an_interrupted_load_deletes_what_lives() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let load = home.spawn(&["bench", "create", "-d", "10m", "--keep", "10m"]);
    host::wait_for("a sandbox that is kept", || home.ok(&["ls"]).contains("running"));
    assert_eq!(end(load, "INT"), Some(130));
    assert_eq!(home.ok(&["ls", "-q"]), "");
}

#[test]
fn vm_a_load_on_a_template_that_does_not_exist_fails_and_says_which_error_how_often() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let ended = home.flames(&["--json", "bench", "create", "-n", "3", "-t", "nothing"]);
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((ended.code, &report["created"], &report["failed"]), (1, &0.into(), &3.into()), "{report}");
    let error = &report["errors"][0];
    assert_eq!((&error["count"], error["at"].as_str()), (&3.into(), Some("create")), "{error}");
    assert!(error["kind"].as_str().unwrap().starts_with("404 "), "{error}");
}

#[test]
fn a_host_that_cannot_start_anything_now_refuses_and_is_not_counted_as_failing() {
    let mut home = Home::bare();
    home.up();
    let report = home.json(&["bench", "create", "--burst", "3"]);
    assert_eq!((&report["refused"], &report["failed"]), (&3.into(), &0.into()), "{report}");
    assert_eq!(report["errors"][0]["refusal"], true);
    assert_eq!(named(&report, "refusal")["count"], 3);
}

#[test]
fn a_file_that_is_no_result_of_a_load_is_not_compared() {
    let home = Home::bare();
    for name in ["a.json", "b.json"] {
        std::fs::write(home.file(name), r#"{"kind":"flames bench pool","schema":1}"#).unwrap();
    }
    let refused = home.flames(&["bench", "compare", "files/a.json", "files/b.json"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("a.json") && refused.stderr.contains("`flames bench pool`"),
        "{}",
        refused.stderr
    );
}

fn named<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["latencies"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()
}
