//! `flames run` without a daemon: one command, one microVM, nothing left.

use crate::home::{Home, end, first_line};
use crate::host;

#[test]
fn vm_run_passes_output_and_exit_code_on() {
    let Some(home) = Home::with_vms() else { return };
    let ended = home.flames(&["run", "-n", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((ended.code, ended.text().as_str(), ended.stderr.as_str()), (7, "out\n", "err\n"));
}

#[test]
fn vm_run_exits_as_a_shell_does_for_a_missing_command_and_a_killed_one() {
    let Some(home) = Home::with_vms() else { return };
    let missing = home.flames(&["run", "-n", "--", "/no/such/command"]);
    assert_eq!(missing.code, 127, "{missing:?}");
    assert!(missing.stderr.contains("/no/such/command"), "{missing:?}");
    let killed = home.flames(&["run", "-n", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.code, 137, "{killed:?}");
}

#[test]
fn vm_run_passes_five_megabytes_of_input_through_a_command() {
    let Some(home) = Home::with_vms() else { return };
    let input: Vec<u8> =
        (0..5_000_000_u32).map(|place| place.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    let ended = home.flames_fed(&["run", "--", "cat"], &input);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout == input, "{} of {} bytes, or others", ended.stdout.len(), input.len());
}

#[test]
fn vm_run_as_json_is_one_document_with_timings_left_out() {
    let Some(home) = Home::with_vms() else { return };
    let ended = home.flames(&["--json", "run", "-n", "--timings", "--", "sh", "-c", "echo hi; exit 3"]);
    let document: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((ended.code, &document["exit_code"], &document["stdout"]), (3, &3.into(), &"hi\n".into()));
}

#[test]
fn vm_a_command_that_takes_all_memory_is_killed_and_the_agent_goes_on() {
    let Some(home) = Home::with_vms() else { return };
    let eater = "tail /dev/zero; echo $?; cat /proc/self/oom_score_adj";
    let ended = home.flames(&["run", "-n", "--memory", "96", "--", "sh", "-c", eater]);
    assert_eq!((ended.code, ended.text().as_str()), (0, "137\n0\n"), "{ended:?}");
}

#[test]
fn vm_run_interrupted_destroys_its_sandbox_and_exits_130() {
    let Some(home) = Home::with_vms() else { return };
    let mut run = home.spawn(&["run", "-n", "--", "sh", "-c", "echo up; sleep 100"]);
    assert_eq!(first_line(&mut run), "up");
    let node = host::embedded(&home.data()).remove(0);
    assert_eq!(host::vmms(&node).len(), 1);
    assert_eq!(host::namespaces(&node).is_empty(), !host::is_root());
    assert_eq!(end(run, "INT"), Some(130));
    assert_eq!(host::footprint(&node, &node), [""; 0]);
}

#[test]
fn vm_run_interrupted_while_it_boots_leaves_nothing() {
    let Some(home) = Home::with_vms() else { return };
    let run = home.spawn(&["run", "-n", "--", "true"]);
    host::wait_for("a VMM", || !host::vmms(&home.data()).is_empty());
    let node = host::embedded(&home.data()).remove(0);
    assert_eq!(end(run, "INT"), Some(130));
    assert_eq!(host::footprint(&node, &node), [""; 0]);
}

#[test]
fn vm_run_that_was_killed_is_cleared_away_by_the_next() {
    let Some(home) = Home::with_vms() else { return };
    let mut run = home.spawn(&["run", "-n", "--", "sh", "-c", "echo up; sleep 100"]);
    assert_eq!(first_line(&mut run), "up");
    let node = host::embedded(&home.data()).remove(0);
    assert_eq!(end(run, "KILL"), None);
    assert_eq!(host::vmms(&node).len(), 1, "a VM outlives its daemon");
    assert_eq!(home.flames(&["run", "-n", "--", "echo", "next"]).text(), "next\n");
    assert_eq!(host::footprint(&node, &node), [""; 0]);
    assert!(!node.exists());
}

#[test]
fn vm_two_runs_at_once_without_a_daemon_do_not_disturb_each_other() {
    let Some(home) = Home::with_vms() else { return };
    let runs = ["one", "two"]
        .map(|word| home.spawn(&["run", "-n", "--", "sh", "-c", &format!("hostname; echo {word}")]));
    let outputs = runs.map(|run| run.wait_with_output().unwrap());
    let lines = outputs.each_ref().map(|output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!((lines[0][1].as_str(), lines[1][1].as_str()), ("one", "two"));
    assert_ne!(lines[0][0], lines[1][0], "each is a sandbox of its own");
}
