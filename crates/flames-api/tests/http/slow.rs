//! Clients that are slow, and listeners that end.

use crate::house::House;
use axum::Router;
use axum::body::Body;
use axum::http::header;
use axum::routing::get;
use flames_api::server::{self, Bounds};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const UNBOUNDED: Bounds = Bounds { connections_per_client: None };

struct Listening {
    stream: TcpStream,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

async fn connect() -> Listening {
    connect_to(House::local().await.router(), UNBOUNDED).await
}

async fn connect_to(router: Router, bounds: Bounds) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(server::serve_tcp(listener, router, bounds, shutdown.clone()));
    Listening { stream: TcpStream::connect(address).await.unwrap(), address, shutdown, serving }
}

async fn connect_from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// What a connection answers to a request, to its end.
async fn asked(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // One that is closed at once may be reset before it has everything.
    let _reset = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let _reset = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_cut_off() {
    let mut silent = connect().await;
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(30), silent.stream.read_to_end(&mut answer)).await;
    assert!(end.is_ok() && answer.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_end_is_answered_and_the_connection_ends() {
    let mut slow = connect().await;
    let head = b"POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{";
    slow.stream.write_all(head).await.unwrap();
    let mut answer = vec![0; 12];
    let end = tokio::time::timeout(Duration::from_secs(60), slow.stream.read_exact(&mut answer)).await;
    end.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_cut_off_and_others_do_not_notice() {
    let (held, gone) = tokio::sync::oneshot::channel::<()>();
    let held = Arc::new(Mutex::new(Some(held)));
    let endless = move || {
        let held = held.lock().unwrap().take();
        let body = futures::stream::repeat_with(move || {
            let _held = &held;
            Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[0; 65536]))
        });
        std::future::ready(Body::from_stream(body))
    };
    let router = Router::new().route("/endless", get(endless)).route("/healthz", get(async || ()));
    let mut greedy = connect_to(router, UNBOUNDED).await;
    greedy.stream.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let other = TcpStream::connect(greedy.address).await.unwrap();
    assert!(asked(other).await.starts_with(b"HTTP/1.1 200"));
    // Its body is dropped with its connection.
    tokio::time::timeout(Duration::from_secs(300), gone).await.unwrap().unwrap_err();
}

/// What a listener says of its connection to a request: the value of its header.
async fn told_of_the_connection(router: Router, request: &str) -> (u16, Option<String>) {
    let mut client = connect_to(router, UNBOUNDED).await.stream;
    client.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let told = head.lines().find_map(|line| line.strip_prefix("connection: ")).map(str::to_owned);
    (head.split(' ').nth(1).unwrap().parse().unwrap(), told)
}

#[tokio::test]
async fn a_refusal_of_a_request_with_a_body_ends_its_connection_and_no_other_answer_does() {
    let router = || async { House::local().await.router() };
    let post = |body: &str| {
        let length = body.len();
        format!(
            "POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let close = Some("close".to_owned());
    assert_eq!(told_of_the_connection(router().await, &post("{")).await, (400, close));
    let without_body = "GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(told_of_the_connection(router().await, without_body).await, (404, None));
    let well = post(r#"{"template":"mini"}"#);
    assert_eq!(told_of_the_connection(router().await, &well).await, (201, None));
}

/// One that reads only when all is sent, as simple clients do.
#[tokio::test]
async fn a_client_that_is_refused_while_it_sends_can_send_on_and_reads_why() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let (listener, shutdown) = (UnixListener::bind(&socket).unwrap(), CancellationToken::new());
    let serving = server::serve_unix(listener, House::local().await.router(), shutdown.clone());
    let client = async {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let length = 16 << 20;
        let head = format!(
            "PUT /v1/sandboxes/x/files?path=/a HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The refusal is there, and no socket holds all of the rest.
        stream.readable().await.unwrap();
        stream.write_all(&vec![7; length]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        shutdown.cancel();
    };
    tokio::join!(serving, client);
}

/// As an answer that is forwarded, whose server read only half of the request.
#[tokio::test]
async fn an_answer_that_says_itself_that_its_connection_ends_is_not_changed() {
    let router = Router::new().route("/half", get(async || [(header::CONNECTION, "close")]));
    let told = told_of_the_connection(router, "GET /half HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(told, (200, Some("close".to_owned())));
}

#[tokio::test]
async fn a_client_with_too_many_connections_gets_no_more_and_others_do_not_notice() {
    let bounds = Bounds { connections_per_client: NonZeroU32::new(2) };
    let first = connect_to(House::local().await.router(), bounds).await;
    let _second = connect_from("127.0.0.1", first.address).await;
    assert_eq!(asked(connect_from("127.0.0.1", first.address).await).await, b"");
    assert!(asked(connect_from("127.0.0.2", first.address).await).await.starts_with(b"HTTP/1.1 204"));
    assert!(asked(first.stream).await.starts_with(b"HTTP/1.1 204"), "what it had, it keeps");
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
