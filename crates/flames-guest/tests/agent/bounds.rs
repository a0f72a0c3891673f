//! What the agent refuses: too large, too deep, too long, malformed.

use crate::support::{Guest, TOKEN, answer};
use flames_guest::frame::{MAX_PAYLOAD, MESSAGE, encode};
use reqwest::StatusCode;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn messages_above_the_limit_are_refused() {
    let guest = Guest::start().await;
    let request = guest
        .post("/process.Process/List")
        .header("Content-Type", "application/json")
        .body(vec![b' '; MAX_PAYLOAD + 1]);
    let (status, body) = answer(request).await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::TOO_MANY_REQUESTS, Some("resource_exhausted")));
    let frame = vec![0, 0xff, 0xff, 0xff, 0xff];
    let story = guest.stream_raw("process.Process/Start", frame, &[]).await.collect().await;
    assert_eq!(story.error["code"], "invalid_argument");
}

#[tokio::test]
async fn malformed_messages_are_the_callers_fault() {
    let guest = Guest::start().await;
    for body in
        ["{", "[]", "7", r#"{"process":{"pid":"x"}}"#, r#"{"process":{"pid":-1}}"#, &"[".repeat(100_000)]
    {
        let request = guest
            .post("/process.Process/CloseStdin")
            .header("Content-Type", "application/json")
            .body(body.to_owned());
        let (status, answer) = answer(request).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (StatusCode::BAD_REQUEST, Some("invalid_argument")),
            "{answer}"
        );
    }
    for body in [
        vec![],
        vec![0, 0, 0],
        vec![1, 0, 0, 0, 0],
        encode(MESSAGE, b"{").to_vec(),
        b"{\"process\":{}}".to_vec(),
    ] {
        let story = guest.stream_raw("process.Process/Start", body, &[]).await.collect().await;
        assert_eq!(story.error["code"], "invalid_argument");
    }
}

#[tokio::test]
async fn another_content_type_is_refused() {
    let guest = Guest::start().await;
    let request = guest.post("/process.Process/List").header("Content-Type", "application/proto").body("{}");
    assert_eq!(answer(request).await.1["code"], "invalid_argument");
}

#[tokio::test]
async fn a_timeout_that_is_no_number_is_refused() {
    let guest = Guest::start().await;
    for timeout in ["x", "-1", "12345678901", ""] {
        let story = guest.sh_with("true", &[("Connect-Timeout-Ms", timeout)]).await.collect().await;
        assert_eq!(story.error["code"], "invalid_argument", "{timeout:?}");
    }
}

#[tokio::test]
async fn paths_that_no_kernel_would_take_are_refused() {
    let guest = Guest::start().await;
    for path in ["a\0b".to_owned(), "a/".repeat(3000)] {
        assert_eq!(
            guest.error("filesystem.Filesystem/Stat", json!({"path": path})).await,
            "invalid_argument"
        );
    }
    assert_eq!(answer(guest.get("/files?path=a%00b")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn headers_above_the_limit_are_refused() {
    let guest = Guest::start().await;
    let head = format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Large: {}", "x".repeat(66_000));
    assert_eq!(raw(&guest, &head).await, "HTTP/1.1 431 Request Header Fields Too Large");
}

/// Sends bytes as they are and reads the first line of the answer.
async fn raw(guest: &Guest, bytes: &str) -> String {
    let mut stream = TcpStream::connect(guest.url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = [0; 512];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_upload_that_announces_more_than_fits_is_refused_before_it_is_sent() {
    let guest = Guest::start().await;
    let path = guest.path("huge");
    let head = format!(
        "POST /files?path={path} HTTP/1.1\r\nHost: x\r\nX-Access-Token: {TOKEN}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: 1000000000000000\r\n\r\n"
    );
    assert_eq!(raw(&guest, &head).await, "HTTP/1.1 507 Insufficient Storage");
    assert!(!std::path::Path::new(&path).exists());
}

#[tokio::test]
async fn what_is_no_http_does_not_hurt() {
    let guest = Guest::start().await;
    for garbage in ["\0\0\0\0\r\n\r\n", "GET /health\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        assert!(!raw(&guest, garbage).await.contains("204"), "{garbage:?}");
    }
    guest.ok("process.Process/List", json!({})).await;
}

/// A call that must be answered while others misbehave.
async fn still_answers(guest: &Guest) {
    let started = Instant::now();
    assert_eq!(guest.output_of("echo here").await, "here\n");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

async fn connect(guest: &Guest) -> TcpStream {
    TcpStream::connect(guest.url.trim_start_matches("http://")).await.unwrap()
}

#[tokio::test]
async fn clients_that_send_a_byte_now_and_then_hold_nobody_up() {
    let guest = Guest::start().await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        slow.push(connect(&guest).await);
    }
    let request = format!(
        "POST /process.Process/Start HTTP/1.1\r\nHost: x\r\nX-Access-Token: {TOKEN}\r\n\
         Content-Type: application/connect+json\r\nContent-Length: 1000\r\n\r\n\0\0\0"
    );
    for byte in request.as_bytes().chunks(8) {
        for stream in &mut slow {
            stream.write_all(byte).await.unwrap();
        }
    }
    still_answers(&guest).await;
}

#[tokio::test]
async fn clients_that_never_read_hold_nobody_up_and_no_memory() {
    let guest = Guest::start().await;
    std::fs::write(guest.path("large"), vec![b'x'; 20_000_000]).unwrap();
    let before = guest.resident_kib();
    let (mut lazy, mut unread) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        let mut stream = connect(&guest).await;
        let head = format!(
            "GET /files?path={} HTTP/1.1\r\nHost: x\r\nX-Access-Token: {TOKEN}\r\n\r\n",
            guest.path("large")
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        lazy.push(stream);
        let events = guest.sh("exec head -c 100000000 /dev/zero").await;
        unread.push(events.into_response());
    }
    still_answers(&guest).await;
    let grown = guest.resident_kib().saturating_sub(before);
    assert!(grown < 48 << 10, "{grown} KiB more");
}

#[tokio::test]
async fn a_thousand_connections_are_served_and_more_have_to_wait() {
    let guest = Guest::start().await;
    let mut all = Vec::new();
    for _ in 0..1000 {
        all.push(connect(&guest).await);
    }
    still_answers(&guest).await;
    // As many again: the kernel's queue takes them, and they are served once others have gone.
    let mut waiting = Vec::new();
    for _ in 0..200 {
        let mut stream = connect(&guest).await;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        waiting.push(stream);
    }
    drop(all);
    for mut stream in waiting {
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer));
        read.await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }
}

#[tokio::test]
async fn fields_of_the_wrong_type_are_the_callers_fault_in_every_call() {
    let guest = Guest::start().await;
    for (method, message) in [
        ("filesystem.Filesystem/Stat", json!({"path": 7})),
        ("filesystem.Filesystem/ListDir", json!({"depth": -1})),
        ("filesystem.Filesystem/ListDir", json!({"depth": "deep"})),
        ("filesystem.Filesystem/Move", json!({"source": ["a"]})),
        ("filesystem.Filesystem/CreateWatcher", json!({"recursive": "yes"})),
        ("filesystem.Filesystem/GetWatcherEvents", json!({"watcherId": 1})),
        ("process.Process/SendSignal", json!({"process": {"pid": 1}, "signal": "SIGNAL_SIGHUP"})),
        ("process.Process/SendInput", json!({"process": {"pid": 1}, "input": {"stdin": "%"}})),
        ("process.Process/Update", json!({"process": "all"})),
    ] {
        assert_eq!(guest.error(method, message.clone()).await, "invalid_argument", "{method} {message}");
    }
}

#[tokio::test]
async fn the_deadline_of_a_unary_call_that_is_no_number_is_refused() {
    let guest = Guest::start().await;
    for method in ["process.Process/List", "filesystem.Filesystem/Stat"] {
        let request = guest.post(&format!("/{method}")).header("Connect-Timeout-Ms", "soon");
        assert_eq!(answer(request.json(&json!({}))).await.1["code"], "invalid_argument");
    }
}
