//! Promises about requests and clients that ask for too much.

use super::client::{get, open, raw, send, tunnel, with_body};
use super::upstream::{EVENT, TestUpstream};
use super::{Fixture, route, soon};
use crate::Limits;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A byte now and then does not hold a connection for longer than the listener's limit.
pub async fn slow_headers_are_cut(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    let limit = fixture.listener.header_timeout;
    let stream = TcpStream::connect(entrance).await.expect("the entrance accepts");
    let started = Instant::now();
    let (mut reader, writer) = stream.into_split();
    let dripping = tokio::spawn(drip(writer, limit / 10));
    let mut answer = Vec::new();
    let _ = soon("the slow client to be cut", reader.read_to_end(&mut answer)).await;
    dripping.abort();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(started.elapsed() < limit * 3 + Duration::from_secs(2), "cut after {:?}", started.elapsed());
    assert_eq!(a.requests(), 0);
}

async fn drip(mut writer: tokio::net::tcp::OwnedWriteHalf, pause: Duration) {
    let _ = writer.write_all(b"GET / HTTP/1.1\r\nHost: a.example.com\r\nX-Slow: ").await;
    while writer.write_all(b"x").await.is_ok() {
        tokio::time::sleep(pause).await;
    }
}

/// They are answered 431 (or cut), cost no request upstream and do not hurt the next client.
pub async fn huge_headers_are_refused(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    let huge = "x".repeat(fixture.listener.max_header_bytes * 2 + 8192);
    let request = format!("GET / HTTP/1.1\r\nHost: a.example.com\r\nX-Huge: {huge}\r\n\r\n");
    let answer = raw(entrance, request.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(a.requests(), 0);
    assert_eq!(send(entrance, get("a.example.com", "/")).await.tag(), "a");
}

/// The client is told before the upstream is asked, and a body at the limit passes.
pub async fn a_huge_body_is_answered_413(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    let limits = Limits { max_body_bytes: 1000, ..Limits::default() };
    fixture.apply([route("a", "a.example.com", a.address).limited_to(limits)]).await;
    let upload = |bytes: usize| with_body("POST", "a.example.com", "/upload", Bytes::from(vec![7; bytes]));
    let answer = send(entrance, upload(1001)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.json()["code"], 413);
    assert_eq!(a.whole_uploads(), 0);
    assert_eq!(send(entrance, upload(1000)).await.tag(), "a");
}

/// Without a length the limit is found on the way: the upstream sees a broken body, never a shorter whole one.
pub async fn a_huge_chunked_body_never_reaches_the_upstream_whole(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    let limits = Limits { max_body_bytes: 1000, ..Limits::default() };
    fixture.apply([route("a", "a.example.com", a.address).limited_to(limits)]).await;
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    let head = "POST /upload HTTP/1.1\r\nHost: a.example.com\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = raw(entrance, format!("{head}{}0\r\n\r\n", chunk.repeat(3)).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(a.whole_uploads(), 0);
    let answer = raw(entrance, format!("{head}{}0\r\n\r\n", chunk.repeat(2)).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// With a JSON body that names the route.
pub async fn an_upstream_that_answers_late_is_answered_504(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    let limits = Limits { header_timeout: Duration::from_millis(300), ..Limits::default() };
    fixture.apply([route("late-one", "a.example.com", a.address).limited_to(limits)]).await;
    let answer = send(entrance, get("a.example.com", "/late")).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!((&answer.json()["code"], &answer.json()["route"]), (&504.into(), &"late-one".into()));
}

async fn with_short_idle_timeout(fixture: &Fixture, upstream: SocketAddr) -> Duration {
    let idle = Duration::from_millis(600);
    let limits = Limits { idle_timeout: idle, ..Limits::default() };
    fixture.apply([route("a", "a.example.com", upstream).limited_to(limits)]).await;
    idle
}

/// The timeout counts from the last byte, not from the start; a cut answer does not look whole.
pub async fn a_silent_stream_is_cut_and_a_moving_one_is_not(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    let idle = with_short_idle_timeout(&fixture, a.address).await;
    a.release_event();
    let mut response = open(entrance, get("a.example.com", "/events")).await;
    let started = Instant::now();
    while started.elapsed() < idle * 3 {
        let frame =
            soon("an event", response.frame()).await.expect("the stream goes on").expect("it is whole");
        assert_eq!(frame.into_data().ok().as_deref(), Some(EVENT.as_bytes()));
        tokio::time::sleep(idle / 4).await;
        a.release_event();
    }
    let mut last = soon("an event", response.frame()).await;
    while let Some(Ok(_)) = last {
        last = soon("the silent stream to be cut", response.frame()).await;
    }
    if fixture.provider.capabilities().cut_answers_look_cut {
        assert!(matches!(last, Some(Err(_))), "a cut answer looks whole");
    }
    soon("the upstream to notice", a.abandoned()).await;
}

/// Also an upgraded connection may not be silent for ever.
pub async fn a_silent_tunnel_is_cut(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    with_short_idle_timeout(&fixture, a.address).await;
    let mut stream = tunnel(entrance, "a.example.com").await;
    let end = soon("the silent tunnel to be cut", stream.read(&mut [0])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

/// One more than allowed waits or is refused; when one leaves there is room again. Needs the capability.
pub async fn connections_past_the_limit_are_not_served(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    if !fixture.provider.capabilities().connection_limit {
        return eprintln!("UNSUPPORTED: {} has no connection limit", fixture.provider.adapter());
    }
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    let mut held = Vec::new();
    for _ in 0..fixture.listener.max_connections {
        held.push(tunnel(entrance, "a.example.com").await);
    }
    let mut extra = TcpStream::connect(entrance).await.expect("the operating system accepts");
    let _ = extra.write_all(b"GET / HTTP/1.1\r\nHost: a.example.com\r\nConnection: close\r\n\r\n").await;
    let mut answer = String::new();
    let answered = tokio::time::timeout(Duration::from_millis(400), extra.read_to_string(&mut answer)).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answered:?}");
    drop(extra);
    drop(held);
    let mut response = open(entrance, get("a.example.com", "/")).await;
    assert_eq!(response.status(), StatusCode::OK);
    soon("the body", response.body_mut().collect()).await.expect("the answer is whole");
}
