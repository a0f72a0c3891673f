//! Idle limits on real VMs: what nobody uses ends by its rule, and what has an open command does not.

use crate::home::Home;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout};

/// Long enough for a command to begin within it on a busy machine.
const LIMIT: &str = "8s";

/// What `flames events` tells, from the daemon's first change on.
struct Events {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Events {
    fn of(home: &Home) -> Self {
        let mut process = home.spawn(&["events", "--since", "0"]);
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Reads on until each of the sandboxes came to its state; fails if `unharmed` changed on the way.
    fn until(&mut self, mut wanted: Vec<(&str, &str)>, unharmed: Option<&str>) {
        while !wanted.is_empty() {
            let line = self.lines.next().unwrap().unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            let (id, state) = (words[1], words[2]);
            let harmed = unharmed == Some(id) && !matches!(state, "starting" | "running");
            assert!(!harmed, "{line}: it was in use");
            wanted.retain(|wanted| *wanted != (id, state));
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Every wait is for an event. That a limit went by without an end is told by the ends of others with the same limit, which
/// began later.
#[test]
fn vm_that_nobody_uses_ends_by_its_rule_and_one_with_an_open_command_when_that_has_ended() {
    let Some(mut home) = Home::with_vms() else { return };
    home.up();
    let mut events = Events::of(&home);
    let used = home.create(&["--timeout", "0", "--idle-timeout", LIMIT]);
    let mut command = home.spawn(&["exec", "-n", &used, "--", "sh", "-c", "echo begun; sleep 5000"]);
    let mut output = BufReader::new(command.stdout.take().unwrap()).lines();
    assert_eq!(output.next().unwrap().unwrap(), "begun");

    let idle = ["--timeout", "0", "--idle-timeout", LIMIT];
    let ends = home.create(&idle);
    // It works, and nobody follows that.
    home.sh(&ends, "sleep 5000 >/dev/null 2>&1 &");
    let rests = home.create(&[&idle[..], &["--pause-on-timeout=disk-only"]].concat());
    events.until(vec![(&ends, "removed"), (&rests, "snapshotted")], Some(&used));
    assert_eq!(home.json(&["inspect", &used])["state"], "running");
    assert_eq!(home.json(&["inspect", &rests])["kept"], "disk_only");

    command.kill().unwrap();
    command.wait().unwrap();
    events.until(vec![(&used, "removed")], None);
}
