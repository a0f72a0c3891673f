//! The agent in real microVMs: what only a guest of its own can show.

use crate::harness::{Home, request};
use flames_node::{
    AGENT_PORT, AccessToken, Dial, FailurePoint, GuestClient, GuestErrorKind, GuestStream, InitRequest,
    LocalNode, NetworkMode, Node, ProcessEvent, Result, StartProcess, VmId,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Connections to a run's agent that are not the node's own.
#[derive(Debug)]
struct Direct {
    node: LocalNode,
    run: VmId,
}

#[async_trait::async_trait]
impl Dial for Direct {
    async fn dial(&self) -> Result<GuestStream> {
        self.node.connect(&self.run, AGENT_PORT).await
    }
}

fn shell(command: &str) -> StartProcess {
    StartProcess { command: "/bin/sh".into(), args: vec!["-c".into(), command.into()], ..Default::default() }
}

async fn output(guest: &GuestClient, command: &str) -> String {
    let mut events = guest.start(&shell(command)).await.unwrap();
    let mut text = Vec::new();
    while let Some(event) = events.next().await {
        if let ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) = event.unwrap() {
            text.extend(bytes);
        }
    }
    String::from_utf8(text).unwrap()
}

/// The node keeps the control token in the run's record.
fn control_token(root: &Path) -> AccessToken {
    let record = std::fs::read(root.join("data/vms/run-1/run.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    AccessToken::new(record["control_token"].as_str().unwrap())
}

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

    let control = control_token(home.root.path());
    let direct = Arc::new(Direct { node: home.node.clone(), run: run.clone() });
    let new = GuestClient::new(direct, AccessToken::new("token-of-the-clone"));
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
