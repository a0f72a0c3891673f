//! HTTP to servers that many names share: one request a connection, and that one for a name that is allowed. Needs root.

use super::egress::{Room, SOON, ask, by_name, converse, dns};
use super::testbed::{Netns, PUBLIC};
use crate::net::HOST_IP;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ALLOWED: &str = "GET /a HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const EVIL: &str = "GET /b HTTP/1.1\r\nHost: evil.example.net\r\n\r\n";

/// A server that heeds no `Connection: close`: it answers the first head, listens until the other side ends, and tells
/// all that it heard on each connection.
fn stubborn(netns: &Netns, answer: &'static str) -> mpsc::UnboundedReceiver<String> {
    let (tell, heard) = mpsc::unbounded_channel();
    let listener = netns.listen((PUBLIC, 80));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut all = Vec::new();
            while !all.windows(4).any(|end| end == b"\r\n\r\n")
                && stream.read_buf(&mut all).await.unwrap() > 0
            {}
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.read_to_end(&mut all).await;
            tell.send(String::from_utf8(all).unwrap()).unwrap();
        }
    });
    heard
}

/// A guest that may reach one name, and has looked it up.
async fn room() -> Option<Room> {
    let room = Room::with(by_name(&["api.example.com"])).await?;
    dns(&room.bed.world, PUBLIC);
    ask(&room.guest, HOST_IP, "api.example.com").await.unwrap();
    Some(room)
}

async fn say(stream: &mut TcpStream, words: &str) {
    stream.write_all(words.as_bytes()).await.unwrap();
}

async fn hear(stream: &mut TcpStream, words: &str) {
    let mut heard = vec![0; words.len()];
    tokio::time::timeout(SOON, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), words);
}

async fn told(heard: &mut mpsc::UnboundedReceiver<String>) -> String {
    tokio::time::timeout(SOON, heard.recv()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_of_a_connection_arrives_nowhere() {
    let Some(room) = room().await else { return };
    let mut heard = stubborn(&room.bed.world, OK);
    let body = |fields: &str, body: &str| {
        format!("POST /a HTTP/1.1\r\nHost: api.example.com\r\n{fields}\r\n\r\n{body}")
    };
    let firsts = [
        ALLOWED.to_owned(),
        ALLOWED.replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n"),
        ALLOWED.replace("\r\n\r\n", "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"),
        ALLOWED.replace("\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        body("Content-Length: 3", "abc"),
        body("Content-Length: 0", ""),
    ];
    for first in firsts {
        // At once, and after the answer.
        for (pipelined, later) in [(EVIL, ""), ("", EVIL)] {
            let mut client = room.connect((PUBLIC, 80)).await.unwrap();
            say(&mut client, &format!("{first}{pipelined}")).await;
            hear(&mut client, OK).await;
            say(&mut client, later).await;
            let arrived = told(&mut heard).await;
            assert!(arrived.starts_with(first.split("\r\n").next().unwrap()), "{arrived}");
            assert!(arrived.contains("\r\nConnection: close"), "{arrived}");
            assert!(!arrived.contains("evil") && !arrived.contains("h2c"), "{first}: {arrived}");
            assert_eq!(first.ends_with("abc"), arrived.ends_with("\r\n\r\nabc"), "{arrived}");
        }
    }
    room.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_which_servers_could_see_different_ends_is_cut_before_a_byte_arrives() {
    let Some(room) = room().await else { return };
    let mut heard = stubborn(&room.bed.world, OK);
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Content-Length: 4\r\nContent-Length: 5",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
    ] {
        let mut client = room.connect((PUBLIC, 80)).await.unwrap();
        say(
            &mut client,
            &format!("POST / HTTP/1.1\r\nHost: api.example.com\r\n{fields}\r\n\r\n0\r\n\r\n{EVIL}"),
        )
        .await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(SOON, client.read_to_end(&mut rest)).await.unwrap();
        assert!(ended.is_err() && rest.is_empty(), "{fields}");
    }
    assert!(heard.try_recv().is_err(), "a connection came");
    room.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_chunks_arrives_whole() {
    let Some(room) = room().await else { return };
    let mut heard = stubborn(&room.bed.world, OK);
    let mut client = room.connect((PUBLIC, 80)).await.unwrap();
    say(&mut client, "PUT / HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    hear(&mut client, OK).await;
    for chunk in ["3\r\nabc\r\n", "2\r\nde\r\n", "0\r\n\r\n"] {
        say(&mut client, chunk).await;
    }
    client.shutdown().await.unwrap();
    assert!(told(&mut heard).await.ends_with("\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"));
    room.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_the_server_agrees_to_is_open_in_both_directions() {
    let Some(room) = room().await else { return };
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let listener = room.bed.world.listen((PUBLIC, 80));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
        let head = String::from_utf8(head).unwrap();
        assert!(head.contains("\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n"), "{head}");
        stream.write_all(agreed.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let mut client = room.connect((PUBLIC, 80)).await.unwrap();
    say(&mut client, &ALLOWED.replace("\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"))
        .await;
    hear(&mut client, agreed).await;
    converse(&mut client, b"\x81\x02hi").await.unwrap();
    converse(&mut client, b"\x81\x05again").await.unwrap();
    room.close().await;
}
