//! The agent in real microVMs: what only a guest of its own can show.

use crate::harness::{Home, output, request, shell};
use flames_node::{
    AGENT_PORT, AccessToken, FailurePoint, GuestErrorKind, InitRequest, LocalNode, NetworkMode, Node,
    ProcessEvent, ProcessEvents, StartProcess, TerminalSize, VmId,
};
use std::time::{Instant, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn unix_nanos() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_that_is_initialised_again_is_another_sandbox() {
    let Some(home) = Home::real(NetworkMode::Namespaces, FailurePoint::none()) else { return };
    let run = home.node.create(request("run-1")).await.unwrap().run;
    let old = home.node.guest(&run).await.unwrap();
    let facts = "cat /etc/machine-id; arp -s 172.16.0.9 06:00:00:00:00:09; cat /proc/net/arp";
    let before = output(&old, facts).await;
    assert!(before.contains("172.16.0.9"), "{before}");
    let mut stream = old.start(&shell("echo on; exec sleep 1000")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), ProcessEvent::Stdout("on\n".into()));

    let control = AccessToken::new(home.control_token(&run));
    let new = home.guest_with_token(&run, AccessToken::new("token-of-the-clone"));
    let mut message = InitRequest {
        entropy: Some(vec![7; 32]),
        access_token: Some("token-of-the-clone".into()),
        control_token: Some("control-token-of-the-clone".into()),
        close_connections: true,
        hostname: Some("clone".into()),
        env_vars: Some([("GREETING".to_owned(), "new".to_owned())].into()),
        renew_machine_id: true,
        time_unix_nanos: unix_nanos(),
        ..InitRequest::default()
    };
    let started = Instant::now();
    let done = new.init(&control, &message).await.unwrap();
    eprintln!("init: {:?} as the node sees it, {} us in the agent", started.elapsed(), done.took_micros);
    assert!(done.entropy_credited && done.control_token_replaced && done.neighbours_flushed, "{done:?}");
    assert!(done.clock_stepped && done.connections_closed >= 1, "{done:?}");
    let skew = (unix_nanos() - done.time_unix_nanos).unsigned_abs();
    assert!(skew < 50_000_000, "{skew} ns");

    assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), GuestErrorKind::Unavailable);
    let after = output(&new, "hostname; cat /etc/hostname /etc/machine-id; echo $GREETING").await;
    assert_eq!(after, format!("clone\nclone\n{}\nnew\n", done.machine_id));
    assert!(!before.contains(&done.machine_id));
    assert!(!output(&new, "cat /proc/net/arp").await.contains("172.16.0.9"));
    let refused = new.init(&control, &InitRequest::default()).await.unwrap_err();
    assert_eq!(refused.kind(), GuestErrorKind::Unauthenticated, "the old control token must open nothing");

    message.time_unix_nanos = unix_nanos();
    let control = AccessToken::new("control-token-of-the-clone");
    for round in ["again", "and again"] {
        message.hostname = Some(format!("clone-{}", round.len()));
        let started = Instant::now();
        let done = new.init(&control, &message).await.unwrap();
        eprintln!("{round}: {:?}, {} us in the agent", started.elapsed(), done.took_micros);
    }
    home.close().await;
}

/// Reads a terminal until it showed `wanted`.
async fn shows(events: &mut ProcessEvents, wanted: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(wanted) {
        match events.next().await.unwrap().unwrap() {
            ProcessEvent::Pty(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("{other:?} after {seen:?}"),
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_has_terminals_that_are_typed_into_resized_and_left() {
    let Some(home) = Home::real(NetworkMode::Namespaces, FailurePoint::none()) else { return };
    let run = home.node.create(request("run-1")).await.unwrap().run;
    let guest = home.node.guest(&run).await.unwrap();
    let terminal = Some(TerminalSize { columns: 100, rows: 30 });
    let shell =
        StartProcess { command: "/bin/sh".into(), args: vec!["-i".into()], terminal, ..Default::default() };
    let mut events = guest.start(&shell).await.unwrap();
    let pid = events.pid();
    guest.send_keys(pid, b"tty; stty size; echo $((6*7))-done\n").await.unwrap();
    let seen = shows(&mut events, "42-done").await;
    assert!(seen.contains("/dev/pts/") && seen.contains("30 100"), "{seen}");
    guest.resize(pid, TerminalSize { columns: 132, rows: 43 }).await.unwrap();
    guest.send_keys(pid, b"stty size\n").await.unwrap();
    shows(&mut events, "43 132").await;
    drop(events);
    let mut again = guest.attach(pid).await.unwrap();
    guest.send_keys(pid, b"exit 3\n").await.unwrap();
    loop {
        match again.next().await.unwrap().unwrap() {
            ProcessEvent::End(end) => break assert_eq!(end.exit_code, 3),
            ProcessEvent::Pty(_) => {}
            other => panic!("{other:?}"),
        }
    }
    home.close().await;
}

/// A call as an E2B client makes it; gives the answer's body.
async fn call(node: &LocalNode, run: &VmId, method: &str, message: &str) -> String {
    let mut stream = node.connect(run, AGENT_PORT).await.unwrap();
    let request = format!(
        "POST /filesystem.Filesystem/{method} HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\
         X-Access-Token: 0123456789abcdef\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{message}",
        message.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_tells_of_a_thousand_files_in_new_folders() {
    let Some(home) = Home::real(NetworkMode::Namespaces, FailurePoint::none()) else { return };
    let run = home.node.create(request("run-1")).await.unwrap().run;
    let guest = home.node.guest(&run).await.unwrap();
    output(&guest, "mkdir /root/watched").await;
    let watch = r#"{"path":"/root/watched","recursive":true}"#;
    let watcher = call(&home.node, &run, "CreateWatcher", watch).await;
    let script = "cd /root/watched; for d in 1 2 3 4 5 6 7 8 9 10; do mkdir -p a/$d/b; i=0; \
                  while [ $i -lt 100 ]; do echo x > a/$d/b/$i; i=$((i+1)); done; done";
    output(&guest, script).await;
    let told = call(&home.node, &run, "GetWatcherEvents", &watcher).await;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let made = told["events"].as_array().unwrap().iter().filter(|event| {
        event["type"] == "EVENT_TYPE_CREATE" && event["name"].as_str().unwrap().matches('/').count() == 3
    });
    let names: std::collections::BTreeSet<_> = made.map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 1000);
    home.close().await;
}
