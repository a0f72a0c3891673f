//! Clients that are slow, and listeners that end.

use crate::house::House;
use flames_api::server;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

struct Listening {
    stream: TcpStream,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

async fn connect() -> Listening {
    let router = House::local().await.router();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(server::serve_tcp(listener, router, shutdown.clone()));
    Listening { stream: TcpStream::connect(address).await.unwrap(), shutdown, serving }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_end_its_headers_is_cut_off() {
    let mut slow = connect().await;
    slow.stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let began = Instant::now();
    let mut answer = Vec::new();
    slow.stream.read_to_end(&mut answer).await.unwrap();
    assert!(began.elapsed() <= Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(!answer.starts_with(b"HTTP/1.1 204"));
}

#[tokio::test]
async fn a_whole_request_is_answered() {
    let mut quick = connect().await;
    quick.stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    quick.stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 204"));
}

#[tokio::test(start_paused = true)]
async fn a_listener_ends_soon_after_it_is_told_even_with_a_client_that_stays() {
    let stays = connect().await;
    stays.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(20), stays.serving).await.unwrap().unwrap();
}
