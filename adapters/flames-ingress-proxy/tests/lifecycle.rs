//! How the proxy starts, ends and reaches upstreams.
#![allow(clippy::unwrap_used)]

use flames_ingress::{ErrorKind, Host, IngressProvider, Route, RouteId, RouteSet, Upstream};
use flames_ingress_proxy::{Dial, Proxy, ProxyConfig, Transport};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.x\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn routes(upstream: SocketAddr) -> RouteSet {
    let (id, host) = (RouteId::parse("a").unwrap(), Host::parse("a.x").unwrap());
    RouteSet::new([Route::new(id, host, Upstream::Tcp(upstream))]).unwrap()
}

/// Reads one request and answers it.
async fn answer_one(stream: &mut TcpStream) {
    read_until(stream, b"\r\n\r\n").await;
    stream.write_all(ANSWER).await.unwrap();
}

async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        bytes.push(stream.read_u8().await.unwrap());
    }
    bytes
}

#[tokio::test]
async fn shutdown_lets_an_open_request_finish_and_takes_no_new_one() {
    let upstream = TcpListener::bind(LOOPBACK).await.unwrap();
    let proxy = Arc::new(Proxy::start(ProxyConfig::new(LOOPBACK)).await.unwrap());
    proxy.apply(&routes(upstream.local_addr().unwrap())).await.unwrap();
    let entrance = proxy.entrance().unwrap();
    let mut client = TcpStream::connect(entrance).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    let (mut open, _) = upstream.accept().await.unwrap();
    let ending = tokio::spawn({
        let proxy = Arc::clone(&proxy);
        async move { proxy.shutdown(Duration::from_secs(30)).await }
    });
    while TcpStream::connect(entrance).await.is_ok() {
        tokio::task::yield_now().await;
    }
    answer_one(&mut open).await;
    assert!(read_until(&mut client, b"ok").await.starts_with(b"HTTP/1.1 200"));
    ending.await.unwrap();
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn a_client_with_too_many_connections_gets_no_more_and_others_do_not_notice() {
    let upstream = TcpListener::bind(LOOPBACK).await.unwrap();
    let config = ProxyConfig { connections_per_client: NonZeroU32::new(2), ..ProxyConfig::new(LOOPBACK) };
    let proxy = Proxy::start(config).await.unwrap();
    proxy.apply(&routes(upstream.local_addr().unwrap())).await.unwrap();
    let entrance = proxy.entrance().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = upstream.accept().await.unwrap();
            tokio::spawn(async move {
                loop {
                    answer_one(&mut stream).await;
                }
            });
        }
    });
    let mut first = connect_from("127.0.0.1", entrance).await;
    let mut second = connect_from("127.0.0.1", entrance).await;
    for open in [&mut first, &mut second] {
        assert!(asked(open).await.starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(asked(&mut connect_from("127.0.0.1", entrance).await).await, b"", "one too many");
    assert!(asked(&mut connect_from("127.0.0.2", entrance).await).await.starts_with(b"HTTP/1.1 200"));
    assert!(asked(&mut first).await.starts_with(b"HTTP/1.1 200"), "what it had, it keeps");
    drop(second);
    // Its place is free once the proxy has noticed.
    let again = async { while asked(&mut connect_from("127.0.0.1", entrance).await).await.is_empty() {} };
    tokio::time::timeout(Duration::from_secs(30), again).await.unwrap();
}

async fn connect_from(address: &str, to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// What a request is answered; nothing by a proxy that closed the connection.
async fn asked(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    if stream.write_all(REQUEST).await.is_ok() {
        while !bytes.ends_with(b"ok") {
            match stream.read_u8().await {
                Ok(byte) => bytes.push(byte),
                Err(_) => break,
            }
        }
    }
    bytes
}

#[tokio::test]
async fn shutdown_cuts_what_outlives_its_deadline() {
    let upstream = TcpListener::bind(LOOPBACK).await.unwrap();
    let proxy = Proxy::start(ProxyConfig::new(LOOPBACK)).await.unwrap();
    proxy.apply(&routes(upstream.local_addr().unwrap())).await.unwrap();
    let mut client = TcpStream::connect(proxy.entrance().unwrap()).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    let _never_answered = upstream.accept().await.unwrap();
    proxy.shutdown(Duration::from_millis(50)).await;
    assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_taken_address_is_unavailable_and_named() {
    let taken = TcpListener::bind(LOOPBACK).await.unwrap().local_addr().unwrap();
    let _first = Proxy::start(ProxyConfig::new(taken)).await.unwrap();
    let error = Proxy::start(ProxyConfig::new(taken)).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Unavailable, taken.to_string().as_str()));
}

#[tokio::test]
async fn a_limit_of_zero_is_refused_by_name() {
    let config = ProxyConfig { max_connections: 0, ..ProxyConfig::new(LOOPBACK) };
    let error = Proxy::start(config).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::InvalidInput, "max_connections"));
}

/// Reaches every upstream in another way than TCP, as the node does from inside a network namespace.
#[derive(Debug, Default)]
struct InMemory(Arc<AtomicUsize>);

impl Dial for InMemory {
    type Stream = tokio::io::DuplexStream;

    async fn dial(&self, _upstream: &Upstream) -> io::Result<Self::Stream> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let (near, mut far) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            loop {
                read_until(&mut far, b"\r\n\r\n").await;
                far.write_all(ANSWER).await.unwrap();
            }
        });
        Ok(near)
    }
}

#[tokio::test]
async fn requests_one_after_another_share_one_dialled_connection() {
    let dialled = Arc::new(AtomicUsize::new(0));
    let proxy = Proxy::start_with(ProxyConfig::new(LOOPBACK), InMemory(Arc::clone(&dialled))).await.unwrap();
    proxy.apply(&routes(([203, 0, 113, 1], 1).into())).await.unwrap();
    let mut client = TcpStream::connect(proxy.entrance().unwrap()).await.unwrap();
    for _ in 0..20 {
        client.write_all(REQUEST).await.unwrap();
        assert!(read_until(&mut client, b"ok").await.starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(dialled.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn behind_tls_the_upstream_learns_https() {
    let upstream = TcpListener::bind(LOOPBACK).await.unwrap();
    let made = rcgen::generate_simple_self_signed(["a.x".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let certificate = made.cert.der().clone();
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key);
    let transport = Transport::Tls(Arc::new(server.unwrap()));
    let proxy = Proxy::start(ProxyConfig { transport, ..ProxyConfig::new(LOOPBACK) }).await.unwrap();
    proxy.apply(&routes(upstream.local_addr().unwrap())).await.unwrap();
    let url = proxy.url(&RouteId::parse("a").unwrap()).await.unwrap().unwrap();
    assert_eq!(url.scheme(), "https");

    let mut client = tls(proxy.entrance().unwrap(), certificate).await;
    client.write_all(REQUEST).await.unwrap();
    client.flush().await.unwrap();
    let (mut open, _) = upstream.accept().await.unwrap();
    let seen = read_until(&mut open, b"\r\n\r\n").await;
    assert!(String::from_utf8(seen).unwrap().contains("x-forwarded-proto: https"));
    open.write_all(ANSWER).await.unwrap();
    assert!(read_until(&mut client, b"ok").await.starts_with(b"HTTP/1.1 200"));
}

async fn tls(
    entrance: SocketAddr,
    trusted: rustls::pki_types::CertificateDer<'static>,
) -> impl AsyncRead + AsyncWrite + Unpin {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(entrance).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("a.x").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}
