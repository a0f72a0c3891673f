//! `process.Process`.

use crate::support::{Guest, is_root, uid};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flames_guest::frame::{END_STREAM, MESSAGE, encode};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn start(cmd: &str) -> Value {
    json!({"process": {"cmd": cmd}})
}

fn runs(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn events_come_as_start_then_output_then_end() {
    let guest = Guest::start().await;
    let story = guest.sh("echo out; echo err >&2; exit 3").await.collect().await;
    assert_eq!(story.order, ["start", "data", "end", "last"]);
    assert_eq!((story.stdout, story.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(
        story.end,
        json!({"exitCode": 3, "exited": true, "status": "exit status 3", "error": "exit status 3"})
    );
    assert_eq!(story.error, Value::Null);
}

#[tokio::test]
async fn success_has_no_exit_code_and_no_error_on_the_wire() {
    let guest = Guest::start().await;
    assert_eq!(
        guest.sh("true").await.collect().await.end,
        json!({"exited": true, "status": "exit status 0"})
    );
}

#[tokio::test]
async fn output_arrives_whole_in_chunks_of_at_most_32_kib() {
    let guest = Guest::start().await;
    let story = guest.sh("seq 1 400000").await.collect().await;
    let want: String = (1..=400_000).map(|number| format!("{number}\n")).collect();
    assert!(story.stdout == want.as_bytes(), "{} bytes of {}", story.stdout.len(), want.len());
    assert!(story.largest <= 32 << 10, "{}", story.largest);
}

#[tokio::test]
async fn the_environment_is_login_then_sandbox_then_request() {
    let guest = Guest::start().await;
    guest.init(json!({"envVars": {"FROM_INIT": "1", "BOTH": "init", "USER": "sandbox"}})).await;
    let message = json!({"process": {"cmd": "env", "envs": {"BOTH": "request"}}});
    let story = guest.stream("process.Process/Start", message, &[]).await.collect().await;
    let text = story.stdout_text();
    let mut env: Vec<&str> = text.lines().collect();
    env.sort_unstable();
    let home = format!("HOME={}", guest.home().display());
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        env,
        ["BOTH=request", "E2B_SANDBOX=true", "FROM_INIT=1", &home, "LOGNAME=user", path, "USER=sandbox"]
    );
}

#[tokio::test]
async fn a_process_runs_as_the_default_user_with_its_groups_at_home() {
    let guest = Guest::start().await;
    let text = guest.output_of("id -u; id -g; id -G; pwd; echo written > /dev/stdout").await;
    let groups = if is_root() { format!("{} 54322", uid()) } else { text.lines().nth(2).unwrap().to_owned() };
    assert_eq!(text, format!("{0}\n{0}\n{groups}\n{1}\nwritten\n", uid(), guest.home().display()));
}

#[tokio::test]
async fn a_call_may_name_its_user_and_an_unknown_one_is_refused() {
    let guest = Guest::start().await;
    let basic = |name: &str| format!("Basic {}", STANDARD.encode(format!("{name}:")));
    if is_root() {
        let story = guest.sh_with("id -u; pwd", &[("Authorization", &basic("root"))]).await.collect().await;
        assert_eq!(story.stdout_text(), "0\n/root\n");
    }
    let story = guest.sh_with("id", &[("Authorization", &basic("who"))]).await.collect().await;
    assert_eq!(story.error, json!({"code": "unauthenticated", "message": "invalid username: 'who'"}));
    let story = guest.sh_with("id", &[("Authorization", "Bearer x")]).await.collect().await;
    assert_eq!(story.error["code"], "unauthenticated");
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let guest = Guest::start().await;
    fs::write(guest.path("plain"), "no program").unwrap();
    for (message, code, named) in [
        (start("no-such-command"), "not_found", "no-such-command"),
        (start(&guest.path("plain")), "permission_denied", "plain"),
        (
            json!({"process": {"cmd": "ls", "cwd": "/no/such"}}),
            "invalid_argument",
            "cwd '/no/such' does not exist",
        ),
        (json!({"process": {"cmd": "ls", "cwd": "/etc/passwd"}}), "invalid_argument", "not a directory"),
        (json!({"process": {"cmd": "ls", "envs": {"A=B": "c"}}}), "invalid_argument", "A=B"),
        (json!({"process": {"cmd": "ls", "args": ["a\0b"]}}), "invalid_argument", "zero byte"),
        (json!({"process": {"args": ["a"]}}), "invalid_argument", "process.cmd"),
        (json!({}), "invalid_argument", "process.cmd"),
    ] {
        let story = guest.stream("process.Process/Start", message, &[]).await.collect().await;
        assert_eq!(story.order, ["last"]);
        assert_eq!(story.error["code"], code, "{}", story.error);
        assert!(story.error["message"].as_str().unwrap().contains(named), "{}", story.error);
    }
    assert_eq!(guest.ok("process.Process/List", json!({})).await, json!({}));
}

#[tokio::test]
async fn the_deadline_of_start_kills_and_is_never_told_as_an_end() {
    let guest = Guest::start().await;
    let began = Instant::now();
    let mut events = guest.sh_with("exec sleep 1000", &[("Connect-Timeout-Ms", "200")]).await;
    let pid = events.pid().await;
    let story = events.collect().await;
    assert_eq!(story.order, ["last"]);
    assert_eq!(story.error["code"], "deadline_exceeded");
    assert!(began.elapsed() >= Duration::from_millis(200));
    let late =
        guest.stream("process.Process/Connect", json!({"process": {"pid": pid}}), &[]).await.collect().await;
    assert_eq!(late.end["status"], "signal: killed");
    assert!(!runs(pid));
}

#[tokio::test]
async fn the_deadline_of_connect_ends_the_stream_alone() {
    let guest = Guest::start().await;
    let pid = guest.sh("exec sleep 1000").await.pid().await;
    let message = json!({"process": {"pid": pid}});
    let story = guest
        .stream("process.Process/Connect", message, &[("Connect-Timeout-Ms", "100")])
        .await
        .collect()
        .await;
    assert_eq!(
        (story.order.join(" "), &story.error["code"]),
        ("start last".to_owned(), &json!("deadline_exceeded"))
    );
    assert!(runs(pid));
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_end_its_process() {
    let guest = Guest::start().await;
    let mut events = guest.sh("read line; echo got $line; exit 5").await;
    let pid = events.pid().await;
    drop(events);
    let mut second = guest.stream("process.Process/Connect", json!({"process": {"pid": pid}}), &[]).await;
    assert_eq!(second.pid().await, pid);
    guest
        .ok(
            "process.Process/SendInput",
            json!({"process": {"pid": pid}, "input": {"stdin": STANDARD.encode("hello\n")}}),
        )
        .await;
    let story = second.collect().await;
    assert_eq!((story.stdout_text().as_str(), &story.end["exitCode"]), ("got hello\n", &json!(5)));
}

#[tokio::test]
async fn everyone_connected_gets_the_same_output() {
    let guest = Guest::start().await;
    let mut first = guest.sh("read line; seq 1 20000").await;
    let pid = first.pid().await;
    let mut second = guest.stream("process.Process/Connect", json!({"process": {"pid": pid}}), &[]).await;
    second.pid().await;
    guest.ok("process.Process/CloseStdin", json!({"process": {"pid": pid}})).await;
    let (first, second) = tokio::join!(first.collect(), second.collect());
    assert_eq!(first.stdout.len(), 108_894);
    assert_eq!(first.stdout, second.stdout);
}

#[tokio::test]
async fn a_late_connect_still_gets_start_and_end() {
    let guest = Guest::start().await;
    let mut events = guest.sh("exit 7").await;
    let pid = events.pid().await;
    events.collect().await;
    let story =
        guest.stream("process.Process/Connect", json!({"process": {"pid": pid}}), &[]).await.collect().await;
    assert_eq!(story.order, ["start", "end", "last"]);
    assert_eq!(story.end["exitCode"], 7);
}

#[tokio::test]
async fn nobody_is_found_under_a_wrong_name() {
    let guest = Guest::start().await;
    let story = guest
        .stream("process.Process/Connect", json!({"process": {"pid": 4_000_000}}), &[])
        .await
        .collect()
        .await;
    assert_eq!(story.error["code"], "not_found");
    for message in [json!({"process": {"tag": "none"}}), json!({"process": {"pid": 1}})] {
        assert_eq!(guest.error("process.Process/CloseStdin", message).await, "not_found");
    }
    assert_eq!(guest.error("process.Process/CloseStdin", json!({})).await, "invalid_argument");
}

#[tokio::test]
async fn after_sigkill_is_answered_the_process_is_gone_and_reaped() {
    let guest = Guest::start().await;
    for _ in 0..20 {
        let mut events = guest.sh("exec sleep 1000").await;
        let pid = events.pid().await;
        let kill = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
        guest.ok("process.Process/SendSignal", kill.clone()).await;
        assert!(!runs(pid), "a zombie would still be there");
        assert_eq!(guest.error("process.Process/SendSignal", kill).await, "not_found");
        let end = events.collect().await.end;
        assert_eq!(end, json!({"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}));
    }
}

#[tokio::test]
async fn sigterm_can_be_handled_by_the_process() {
    let guest = Guest::start().await;
    let mut events = guest.sh("trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.01; done").await;
    let pid = events.pid().await;
    events.wait_for("ready\n").await;
    guest.ok("process.Process/SendSignal", json!({"process": {"pid": pid}, "signal": 15})).await;
    let story = events.collect().await;
    assert_eq!((story.stdout_text().as_str(), &story.end["exitCode"]), ("bye\n", &json!(4)));
    let missing = guest.error("process.Process/SendSignal", json!({"process": {"pid": pid}})).await;
    assert_eq!(missing, "not_found");
}

#[tokio::test]
async fn a_process_that_a_real_time_signal_ends_is_not_lost() {
    let guest = Guest::start().await;
    let story = guest.sh("kill -34 $$; exec sleep 1000").await.collect().await;
    assert_eq!(story.end["status"], "signal: signal 34");
}

#[tokio::test]
async fn stdin_is_open_until_it_is_closed() {
    let guest = Guest::start().await;
    let mut events = guest.stream("process.Process/Start", start("cat"), &[]).await;
    let pid = events.pid().await;
    let input = |text: &str| json!({"process": {"pid": pid}, "input": {"stdin": STANDARD.encode(text)}});
    guest.ok("process.Process/SendInput", input("one ")).await;
    guest.ok("process.Process/SendInput", input("two")).await;
    guest.ok("process.Process/CloseStdin", json!({"process": {"pid": pid}})).await;
    assert_eq!(events.collect().await.stdout_text(), "one two");
    assert_eq!(guest.error("process.Process/SendInput", input("x")).await, "not_found");
}

#[tokio::test]
async fn without_stdin_a_process_reads_nothing() {
    let guest = Guest::start().await;
    let message = json!({"process": {"cmd": "cat"}, "stdin": false});
    assert_eq!(
        guest.stream("process.Process/Start", message, &[]).await.collect().await.end["status"],
        "exit status 0"
    );
    let sleeper = json!({"process": {"cmd": "sleep", "args": ["1000"]}, "stdin": false});
    let pid = guest.stream("process.Process/Start", sleeper, &[]).await.pid().await;
    let input = json!({"process": {"pid": pid}, "input": {"stdin": "eA=="}});
    assert_eq!(guest.error("process.Process/SendInput", input).await, "failed_precondition");
}

#[tokio::test]
async fn a_stream_of_input_reaches_the_process_in_order() {
    let guest = Guest::start().await;
    let mut events =
        guest.stream("process.Process/Start", json!({"process": {"cmd": "cat"}, "tag": "reader"}), &[]).await;
    let pid = events.pid().await;
    let mut body = encode(MESSAGE, br#"{"start":{"process":{"tag":"reader"}}}"#).to_vec();
    for word in ["a", "b", "c"] {
        let message = json!({"data": {"input": {"stdin": STANDARD.encode(word)}}});
        body.extend(encode(MESSAGE, &serde_json::to_vec(&message).unwrap()));
        body.extend(encode(MESSAGE, br#"{"keepalive":{}}"#));
    }
    body.extend(encode(END_STREAM, b"{}"));
    let mut answer = guest.stream_raw("process.Process/StreamInput", body, &[]).await;
    assert_eq!(&answer.next_frame().await.unwrap().payload[..], b"{}");
    assert_eq!(answer.next().await, json!({}));
    guest.ok("process.Process/CloseStdin", json!({"process": {"pid": pid}})).await;
    assert_eq!(events.collect().await.stdout_text(), "abc");
}

#[tokio::test]
async fn only_running_processes_are_listed_with_what_they_were_asked() {
    let guest = Guest::start().await;
    guest.sh("true").await.collect().await;
    let message = json!({"process": {"cmd": "sleep", "args": ["1000"]}, "tag": "mine"});
    let pid = guest.stream("process.Process/Start", message, &[]).await.pid().await;
    let want =
        json!({"processes": [{"config": {"cmd": "sleep", "args": ["1000"]}, "pid": pid, "tag": "mine"}]});
    assert_eq!(guest.ok("process.Process/List", json!({})).await, want);
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive() {
    let guest = Guest::start().await;
    let mut events = guest.sh_with("exec sleep 1000", &[("Keepalive-Ping-Interval", "1")]).await;
    events.pid().await;
    assert_eq!(events.next().await, json!({"keepalive": {}}));
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_holds_the_process_up_and_no_memory() {
    let guest = Guest::start().await;
    let before = guest.resident_kib();
    let mut events = guest.sh("exec head -c 300000000 /dev/zero").await;
    let pid = events.pid().await;
    // Nothing can be awaited: the promise is that nothing happens.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(runs(pid), "the process wrote everything although nobody read");
    let grown = guest.resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more");
}

#[tokio::test]
async fn orphans_are_reaped_too() {
    let guest = Guest::start().await;
    // The middle shell ends at once, and its child becomes the agent's.
    guest.output_of("(sh -c 'echo orphan; sleep 0.05' >/dev/null 2>&1 &)").await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while !children(&guest).is_empty() {
        assert!(Instant::now() < deadline, "left: {:?}", children(&guest));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(guest.output_of("echo still here").await, "still here\n");
}

fn children(guest: &Guest) -> Vec<String> {
    let pid = guest.child.id();
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_process_that_signals_its_group_hits_nobody_else() {
    let guest = Guest::start().await;
    let story = guest.sh("kill -TERM 0; sleep 1000").await.collect().await;
    assert_eq!(story.end["status"], "signal: terminated");
    assert_eq!(guest.output_of("echo still here").await, "still here\n");
}

#[tokio::test]
async fn fifty_processes_at_once_all_end_as_they_should() {
    let guest = std::sync::Arc::new(Guest::start().await);
    let runs = (0..50).map(|code| {
        let guest = std::sync::Arc::clone(&guest);
        tokio::spawn(async move { (code, guest.sh(&format!("exit {code}")).await.collect().await) })
    });
    for run in runs.collect::<Vec<_>>() {
        let (code, story) = run.await.unwrap();
        assert_eq!(story.end["status"], format!("exit status {code}"));
    }
}
