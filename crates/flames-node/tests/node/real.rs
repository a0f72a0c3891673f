//! Real microVMs under QEMU: they boot, talk, are isolated, and leave nothing.

use crate::harness::{Home, count, request, shell};
use flames_node::{
    ErrorKind, FailurePoint, GuestClient, GuestErrorKind, LeakKind, NetworkMode, Node, ProcessEvent,
    StartProcess, Stdin, WriteFile,
};
use futures::StreamExt;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Output and exit code of a process.
async fn output(guest: &GuestClient, process: &StartProcess) -> (String, i32) {
    let mut events = guest.start(process).await.unwrap();
    let mut text = Vec::new();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) | ProcessEvent::Pty(bytes) => {
                text.extend(bytes)
            }
            ProcessEvent::End(end) => return (String::from_utf8(text).unwrap(), end.exit_code),
        }
    }
    panic!("no end");
}

async fn runs_a_command(network: NetworkMode) {
    let Some(home) = Home::real(network, FailurePoint::none()) else { return };
    let created = home.node.create(request("run-1")).await.unwrap();
    eprintln!("{:?}", created.timings);
    let guest = home.node.guest(&created.run).await.unwrap();
    let (text, code) = output(&guest, &shell("echo $GREETING from $(hostname); exit 3")).await;
    assert_eq!((text.as_str(), code), ("hello from i0test\n", 3));
    home.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_in_a_namespace_runs_a_command() {
    runs_a_command(NetworkMode::Namespaces).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_without_root_runs_a_command() {
    runs_a_command(NetworkMode::User).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_reads_standard_input_and_is_told_of_its_end() {
    let Some(home) = Home::real(NetworkMode::Namespaces, FailurePoint::none()) else { return };
    let run = home.node.create(request("run-1")).await.unwrap().run;
    let guest = home.node.guest(&run).await.unwrap();
    let mut events = guest.start(&StartProcess { stdin: Stdin::Open, ..shell("cat") }).await.unwrap();
    guest.send_input(events.pid(), b"through").await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), ProcessEvent::Stdout("through".into()));
    guest.close_stdin(events.pid()).await.unwrap();
    let Some(Ok(ProcessEvent::End(end))) = events.next().await else { panic!("no end") };
    assert_eq!(end.exit_code, 0);
    assert!(events.next().await.is_none());
    home.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_refuses_with_the_right_kind() {
    let Some(home) = Home::real(NetworkMode::Namespaces, FailurePoint::none()) else { return };
    let run = home.node.create(request("run-1")).await.unwrap().run;
    let guest = home.node.guest(&run).await.unwrap();
    let missing = StartProcess { command: "/no/such/program".into(), ..Default::default() };
    assert!(guest.start(&missing).await.is_err());
    let nowhere = StartProcess { cwd: Some("/no/such/dir".into()), ..shell("true") };
    assert_eq!(guest.start(&nowhere).await.unwrap_err().kind(), GuestErrorKind::InvalidArgument);
    let nobody = StartProcess { user: Some("no-such-user".into()), ..shell("true") };
    assert_eq!(guest.start(&nobody).await.unwrap_err().kind(), GuestErrorKind::Unauthenticated);
    assert_eq!(guest.read_file("/no/such/file", None).await.unwrap_err().kind(), GuestErrorKind::NotFound);
    home.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_files_come_back_as_they_went_in() {
    let Some(home) = Home::real(NetworkMode::Namespaces, FailurePoint::none()) else { return };
    let run = home.node.create(request("run-1")).await.unwrap().run;
    let guest = home.node.guest(&run).await.unwrap();
    let content: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    let chunks: Vec<_> =
        content.chunks(65_536).map(|chunk| Ok(bytes::Bytes::copy_from_slice(chunk))).collect();
    let file = WriteFile { path: "/tmp/a b/ü".into(), user: None };
    assert_eq!(guest.write_file(&file, futures::stream::iter(chunks).boxed()).await.unwrap(), "/tmp/a b/ü");
    assert_eq!(guest.stat("/tmp/a b/ü", None).await.unwrap().size, 3_000_000);
    let mut download = guest.read_file("/tmp/a b/ü", None).await.unwrap();
    let mut back = Vec::new();
    while let Some(chunk) = download.body.next().await {
        back.extend(chunk.unwrap());
    }
    assert!(back == content, "{} of {} bytes", back.len(), content.len());
    guest.remove("/tmp/a b", None).await.unwrap();
    assert!(guest.list_dir("/tmp", 1, None).await.unwrap().iter().all(|entry| entry.name != "a b"));
    home.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_can_reach_nothing_outside_itself() {
    let Some(home) = Home::real(NetworkMode::Namespaces, FailurePoint::none()) else { return };
    let run = home.node.create(request("run-1")).await.unwrap().run;
    let guest = home.node.guest(&run).await.unwrap();
    // Addresses of the host side, of a neighbour, of link-local metadata, of the internet: none answers a ping.
    for address in ["172.16.0.1", "172.16.0.3", "169.254.169.254", "1.1.1.1"] {
        let (text, code) = output(&guest, &shell(&format!("ping -c 1 -W 1 {address} 2>&1"))).await;
        assert_ne!(code, 0, "{address}: {text}");
        assert!(!text.contains("bytes from"), "{address}: {text}");
    }
    home.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_ports_are_reached_from_within_the_namespace_and_closed_ones_are_told() {
    let Some(home) = Home::real(NetworkMode::Namespaces, FailurePoint::none()) else { return };
    let run = home.node.create(request("run-1")).await.unwrap().run;
    assert_eq!(home.node.connect(&run, 7777).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let mut stream = home.node.connect(&run, 49983).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    home.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_destroyed_in_the_middle_of_a_stream_ends_the_stream() {
    let Some(home) = Home::real(NetworkMode::Namespaces, FailurePoint::none()) else { return };
    let run = home.node.create(request("run-1")).await.unwrap().run;
    let guest = home.node.guest(&run).await.unwrap();
    let mut events = guest.start(&shell("echo on; exec sleep 1000")).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), ProcessEvent::Stdout("on\n".into()));
    home.node.destroy(&run).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap_err().kind(), GuestErrorKind::Unavailable);
    assert_eq!(guest.health().await.unwrap_err().kind(), GuestErrorKind::Unavailable);
    home.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_creates_of_ten_at_once_all_succeed_and_leave_nothing() {
    let Some(home) = Home::real(NetworkMode::Namespaces, FailurePoint::none()) else { return };
    let node = Arc::new(home.node.clone());
    let creates = (0..10).map(|number| {
        let node = Arc::clone(&node);
        tokio::spawn(async move { node.create(request(&format!("run-{number}"))).await })
    });
    for create in futures::future::join_all(creates).await {
        create.unwrap().unwrap();
    }
    assert_eq!(count(&node, LeakKind::Process).await, (10, 0));
    home.close().await;
}
