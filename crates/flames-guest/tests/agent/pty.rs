//! Processes on terminals.

use crate::support::{Events, Guest, uid};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::time::Duration;

async fn on_terminal(guest: &Guest, args: &[&str]) -> Events {
    let process = json!({"cmd": "/bin/sh", "args": args, "envs": {"PS1": "$ "}});
    let message = json!({"process": process, "pty": {"size": {"cols": 100, "rows": 30}}});
    guest.stream("process.Process/Start", message, &[]).await
}

async fn type_in(guest: &Guest, pid: u64, text: &str) {
    let input = json!({"process": {"pid": pid}, "input": {"pty": STANDARD.encode(text)}});
    guest.ok("process.Process/SendInput", input).await;
}

/// Reads output until it contains `wanted`; gives everything that was read.
async fn read_until(events: &mut Events, wanted: &str) -> String {
    let mut seen = String::new();
    let read = async {
        while !seen.contains(wanted) {
            let event = events.next().await;
            let bytes = STANDARD.decode(event["data"]["pty"].as_str().unwrap_or_default()).unwrap();
            seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), read).await;
    assert!(waited.is_ok(), "waited for {wanted:?}, got {seen:?}");
    seen
}

#[tokio::test]
async fn a_process_on_a_terminal_has_it_as_its_own_with_the_size_asked_for() {
    let guest = Guest::start().await;
    let mut events = on_terminal(&guest, &["-c", "tty; stty size; stat -c %u $(tty); echo $TERM"]).await;
    events.pid().await;
    let seen = read_until(&mut events, "xterm").await;
    assert!(seen.starts_with("/dev/pts/"), "{seen}");
    assert!(seen.contains(&format!("\r\n30 100\r\n{}\r\nxterm-256color\r\n", uid())), "{seen}");
    let story = events.collect().await;
    assert_eq!(story.end, json!({"exited": true, "status": "exit status 0"}));
}

#[tokio::test]
async fn what_is_typed_is_read_and_ctrl_c_interrupts_what_runs_in_front() {
    let guest = Guest::start().await;
    let mut events = on_terminal(&guest, &["-i"]).await;
    let pid = events.pid().await;
    type_in(&guest, pid, "echo one$((1+1))three\n").await;
    read_until(&mut events, "one2three").await;
    // The line is echoed before the program runs: only what it prints says that it is in front.
    type_in(&guest, pid, "sh -c 'echo in$((1+1))front; exec sleep 1000'\n").await;
    read_until(&mut events, "in2front").await;
    type_in(&guest, pid, "\x03").await;
    type_in(&guest, pid, "echo al${x}ive\n").await;
    read_until(&mut events, "alive").await;
    type_in(&guest, pid, "exit 3\n").await;
    let story = events.collect().await;
    assert_eq!(story.end["exitCode"], 3);
}

#[tokio::test]
async fn a_new_size_reaches_the_programs_on_the_terminal() {
    let guest = Guest::start().await;
    let script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut events = on_terminal(&guest, &["-c", script]).await;
    let pid = events.pid().await;
    read_until(&mut events, "ready").await;
    let size = json!({"process": {"pid": pid}, "pty": {"size": {"cols": 132, "rows": 43}}});
    guest.ok("process.Process/Update", size).await;
    read_until(&mut events, "43 132").await;
    assert_eq!(events.collect().await.end["exited"], true);
}

#[tokio::test]
async fn a_terminal_that_is_killed_ends_with_all_that_ran_on_it() {
    let guest = Guest::start().await;
    let mut events = on_terminal(&guest, &["-c", "sleep 1000 & echo child=$!; wait"]).await;
    let pid = events.pid().await;
    let seen = read_until(&mut events, "\n").await;
    let child = seen.trim().trim_start_matches("child=").to_owned();
    guest
        .ok("process.Process/SendSignal", json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}))
        .await;
    let story = events.collect().await;
    assert_eq!(story.end["status"], "signal: killed");
    let gone = async {
        while std::path::Path::new(&format!("/proc/{child}")).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
}

#[tokio::test]
async fn who_reconnects_sees_what_comes_from_then_on_and_so_does_everybody_else() {
    let guest = Guest::start().await;
    let mut first = on_terminal(&guest, &["-i"]).await;
    let pid = first.pid().await;
    drop(first);
    let connect = json!({"process": {"pid": pid}});
    let mut listeners = Vec::new();
    for _ in 0..3 {
        let mut events = guest.stream("process.Process/Connect", connect.clone(), &[]).await;
        assert_eq!(events.pid().await, pid);
        listeners.push(events);
    }
    type_in(&guest, pid, "echo to-$((40+2))\n").await;
    for events in &mut listeners {
        read_until(events, "to-42").await;
    }
    type_in(&guest, pid, "exit\n").await;
    for events in listeners {
        assert_eq!(events.collect().await.end["exited"], true);
    }
}

#[tokio::test]
async fn one_that_listens_and_never_reads_is_left_behind() {
    let guest = Guest::start().await;
    let mut events = guest.sh("read x; exec head -c 20000000 /dev/zero").await;
    let pid = events.pid().await;
    let lazy = guest.stream("process.Process/Connect", json!({"process": {"pid": pid}}), &[]).await;
    guest
        .ok(
            "process.Process/SendInput",
            json!({"process": {"pid": pid}, "input": {"stdin": STANDARD.encode("go\n")}}),
        )
        .await;
    let story = tokio::time::timeout(Duration::from_secs(60), events.collect()).await.unwrap();
    assert_eq!(story.stdout.len(), 20_000_000);
    let left = lazy.collect().await;
    assert_eq!(left.error["code"], "resource_exhausted");
}

#[tokio::test]
async fn pipes_and_terminals_are_not_confused() {
    let guest = Guest::start().await;
    let mut piped = guest.sh("exec sleep 1000").await;
    let piped = piped.pid().await;
    let mut terminal = on_terminal(&guest, &["-c", "exec sleep 1000"]).await;
    let terminal = terminal.pid().await;
    let select = |pid: u64| json!({"pid": pid});
    let size = json!({"size": {"cols": 1, "rows": 1}});
    let text = STANDARD.encode("x");
    for (method, message) in [
        ("Update", json!({"process": select(piped), "pty": size})),
        ("SendInput", json!({"process": select(piped), "input": {"pty": text}})),
        ("SendInput", json!({"process": select(terminal), "input": {"stdin": text}})),
        ("CloseStdin", json!({"process": select(terminal)})),
    ] {
        let code = guest.error(&format!("process.Process/{method}"), message.clone()).await;
        assert_eq!(code, "failed_precondition", "{message}");
    }
    let nothing = json!({"process": select(terminal), "input": {}});
    assert_eq!(guest.error("process.Process/SendInput", nothing).await, "invalid_argument");
    guest.ok("process.Process/Update", json!({"process": select(terminal)})).await;
    let unknown = json!({"process": {"pid": 1}, "pty": size});
    assert_eq!(guest.error("process.Process/Update", unknown).await, "not_found");
    let wrong = json!({"process": select(terminal), "pty": {"size": {"cols": "wide"}}});
    assert_eq!(guest.error("process.Process/Update", wrong).await, "invalid_argument");
}

#[tokio::test]
async fn output_of_a_terminal_comes_in_chunks_of_at_most_16_kib_and_whole() {
    let guest = Guest::start().await;
    let mut events = on_terminal(&guest, &["-c", "stty raw; echo ready; seq 1 20000"]).await;
    events.pid().await;
    let mut seen = Vec::new();
    while let Some(frame) = events.next_frame().await {
        let message: Value = serde_json::from_slice(&frame.payload).unwrap();
        let text = message["event"]["data"]["pty"].as_str().unwrap_or_default().to_owned();
        let bytes = STANDARD.decode(text).unwrap();
        assert!(bytes.len() <= 16 << 10);
        seen.extend(bytes);
    }
    let lines = String::from_utf8(seen).unwrap();
    let want: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert!(lines.ends_with(&want), "{} bytes", lines.len());
}
