//! Promises about bytes that flow while a request is open.

use super::client::{get, open, send, tunnel};
use super::upstream::{EVENT, QUIT, TestUpstream};
use super::{Fixture, route, soon};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::{Frame, Incoming};
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Each event is there before the next one is sent.
pub async fn server_sent_events_arrive_one_by_one(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    a.release_event();
    let mut response = open(entrance, get("a.example.com", "/events")).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    next_event(&mut response).await;
    for _ in 0..3 {
        a.release_event();
        next_event(&mut response).await;
    }
}

async fn next_event(response: &mut Response<Incoming>) {
    let frame =
        soon("an event", response.frame()).await.expect("the stream goes on").expect("the stream is whole");
    assert_eq!(frame.into_data().ok().as_deref(), Some(EVENT.as_bytes()));
}

/// The upstream has each chunk before the client sends the next one.
pub async fn an_upload_arrives_while_it_is_sent(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    let request = Request::post("/upload").header("host", "a.example.com").body(body);
    let request = request.expect("the case's request is valid");
    let answer = tokio::spawn(open(entrance, request));
    for chunk in 1..=4_u64 {
        sender.send(Frame::data(Bytes::from(vec![7; 1000]))).await.expect("the request is open");
        soon("a chunk at the upstream", a.uploaded(chunk * 1000)).await;
    }
    drop(sender);
    let answer = soon("the answer", answer).await.expect("the request is answered");
    let body = answer.collect().await.expect("the answer is whole").to_bytes();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).expect("JSON")["bytes"], 4000);
}

/// The upgrade passes, then every byte in both directions, a megabyte at once too.
pub async fn a_websocket_passes_both_ways(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    let mut stream = tunnel(entrance, "a.example.com").await;
    for message in [&b"ping"[..], &[0x81, 0x00], &b"pong"[..]] {
        stream.write_all(message).await.expect("the tunnel takes bytes");
        stream.flush().await.expect("the tunnel takes bytes");
        let mut echo = vec![0; message.len()];
        soon("an echo", stream.read_exact(&mut echo)).await.expect("the tunnel gives bytes");
        assert_eq!(echo, message);
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let copy = sent.clone();
    let writing = tokio::spawn(async move { writer.write_all(&copy).await.map(|()| writer) });
    let mut echo = vec![0; sent.len()];
    soon("a megabyte", reader.read_exact(&mut echo)).await.expect("the tunnel gives bytes");
    assert_eq!(echo, sent);
    writing.await.expect("the writer lives").expect("the tunnel takes bytes");
}

/// No half-dead connection stays when the client is gone or the upstream dies.
pub async fn a_tunnel_that_ends_on_one_side_ends_on_the_other(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    let mut ended_by_upstream = tunnel(entrance, "a.example.com").await;
    ended_by_upstream.write_all(&[QUIT]).await.expect("the tunnel takes bytes");
    ended_by_upstream.flush().await.expect("the tunnel takes bytes");
    let end = soon("the tunnel's end", ended_by_upstream.read(&mut [0])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");

    let b = TestUpstream::start("b").await;
    fixture.apply([route("b", "b.example.com", b.address)]).await;
    let ended_by_client = tunnel(entrance, "b.example.com").await;
    drop(ended_by_client);
    soon("the upstream to notice", b.abandoned()).await;
}

/// The work upstream stops when nobody waits for its answer.
pub async fn a_client_that_leaves_ends_the_request_at_the_upstream(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    a.release_event();
    let mut response = open(entrance, get("a.example.com", "/events")).await;
    next_event(&mut response).await;
    drop(response);
    soon("the upstream to notice", a.abandoned()).await;
}

/// A terminal does not end because somebody else's sandbox was created. Needs the capability.
pub async fn open_streams_outlive_a_change_of_the_set(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    if !fixture.provider.capabilities().connections_outlive_changes {
        return eprintln!(
            "UNSUPPORTED: {} ends connections when the set changes",
            fixture.provider.adapter()
        );
    }
    let (a, b) = (TestUpstream::start("a").await, TestUpstream::start("b").await);
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    a.release_event();
    let mut events = open(entrance, get("a.example.com", "/events")).await;
    next_event(&mut events).await;
    let mut stream = tunnel(entrance, "a.example.com").await;
    fixture.apply([route("a", "a.example.com", b.address)]).await;
    assert_eq!(send(entrance, get("a.example.com", "/")).await.tag(), "b");
    a.release_event();
    next_event(&mut events).await;
    stream.write_all(b"x").await.expect("the tunnel takes bytes");
    soon("an echo", stream.read_exact(&mut [0])).await.expect("the tunnel gives bytes");
}
