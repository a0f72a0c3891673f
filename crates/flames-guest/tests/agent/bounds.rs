//! What the agent refuses: too large, too deep, too long, malformed.

use crate::support::{Guest, TOKEN, answer};
use flames_guest::frame::{MAX_PAYLOAD, MESSAGE, encode};
use reqwest::StatusCode;
use serde_json::json;
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
