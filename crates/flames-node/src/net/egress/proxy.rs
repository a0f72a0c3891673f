//! Connections whose client must say whom it means: TLS by its server name, HTTP by its host.
//!
//! The kernel redirects here what a rule about names admits to ports 80 and 443. The client's first bytes are read, as
//! few as tell its name and no longer than a bounded time, the policy decides about the name and the address that the
//! client wanted, and then bytes are copied as they are, to that very address. Of an HTTP connection the first
//! request decides.

use super::Shared;
use super::exchange::exchange;
use flames_egress::{Action, DomainName, EgressPolicy, MAX_PEEK, RequestHead, ServerName, decide_name};
use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How long a client may take until it is clear whom it means.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long the other side may take to answer.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// The most connections of one guest at once.
const MAX_CONNECTIONS: usize = 512;
const HTTP_PORT: u16 = 80;

/// What a client said.
#[derive(Debug)]
struct Head {
    name: Option<DomainName>,
    /// Everything that was read.
    bytes: Vec<u8>,
    /// What the bytes begin with on a port for HTTP.
    request: Option<RequestHead>,
}

/// Serves one guest until its run ends.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let cut = shared.cut.clone();
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((client, _)) => match Arc::clone(&room).try_acquire_owned() {
                    Ok(permit) => drop(tokio::spawn(attend(Arc::clone(&shared), client, permit))),
                    Err(_) => reset(&client),
                },
                // A client that is gone already, or no descriptor free: the next may fare better.
                Err(error) => {
                    tracing::debug!(%error, "a guest's connection was not accepted");
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = cut.cancelled() => {}
    }
}

/// One connection, until either side ends it, the run ends, or the policy no longer allows it.
async fn attend(shared: Arc<Shared>, mut client: TcpStream, _room: OwnedSemaphorePermit) {
    let cut = shared.cut.clone();
    let outcome = tokio::select! {
        outcome = relay(&shared, &mut client) => outcome,
        () = cut.cancelled() => Err(io::ErrorKind::ConnectionReset.into()),
    };
    if let Err(error) = outcome {
        tracing::debug!(slot = shared.slot.name(), %error, "a guest's connection was cut");
        reset(&client);
    }
}

async fn relay(shared: &Shared, client: &mut TcpStream) -> io::Result<()> {
    let mut policies = shared.policy.subscribe();
    let to = original_destination(client)?;
    let head = tokio::time::timeout(HEAD_DEADLINE, read_head(client, to.port())).await;
    let head = match head.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(head) => head,
        Err(error) => return Err(refuse(shared, error)),
    };
    if !allows(&policies.borrow_and_update(), to, head.name.as_ref()) {
        let whom = head.name.map_or_else(|| "nobody by name".to_owned(), |name| name.to_string());
        return Err(refuse(shared, io::Error::other(format!("{whom} at {to} is not allowed"))));
    }
    let server = tokio::time::timeout(CONNECT_DEADLINE, shared.connect_out(to)).await;
    let mut server = server.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    tokio::select! {
        passed = pass(client, &mut server, &head) => passed,
        () = until_forbidden(&mut policies, to, head.name.as_ref()) => {
            reset(&server);
            Err(io::Error::other("it is no longer allowed"))
        }
    }
}

async fn pass(client: &mut TcpStream, server: &mut TcpStream, head: &Head) -> io::Result<()> {
    if let Some(request) = &head.request {
        return exchange(client, server, request, &head.bytes[request.length..]).await;
    }
    server.write_all(&head.bytes).await?;
    copy_bidirectional(client, server).await.map(drop)
}

async fn until_forbidden(
    policies: &mut watch::Receiver<Arc<EgressPolicy>>,
    to: SocketAddr,
    name: Option<&DomainName>,
) {
    // Without a sender the run is over, and its end cuts.
    while policies.changed().await.is_ok() {
        if !allows(&policies.borrow_and_update(), to, name) {
            return;
        }
    }
    std::future::pending().await
}

fn allows(policy: &EgressPolicy, to: SocketAddr, name: Option<&DomainName>) -> bool {
    decide_name(policy, to.ip(), to.port(), name).action == Action::Allow
}

fn refuse(shared: &Shared, error: io::Error) -> io::Error {
    shared.refused.names.fetch_add(1, Ordering::Relaxed);
    error
}

/// Where the client wanted to go, before it was redirected.
fn original_destination(client: &TcpStream) -> io::Result<SocketAddr> {
    let wanted = getsockopt(client, sockopt::OriginalDst)?;
    let address = Ipv4Addr::from(wanted.sin_addr.s_addr.to_ne_bytes());
    Ok((IpAddr::V4(address), u16::from_be(wanted.sin_port)).into())
}

/// Reads until it is clear whom the client means.
async fn read_head(client: &mut TcpStream, port: u16) -> io::Result<Head> {
    let mut bytes = Vec::with_capacity(2048);
    loop {
        let read = client.read_buf(&mut bytes).await?;
        if let Some((name, request)) = whom(&bytes, port)? {
            return Ok(Head { name, bytes, request });
        }
        if read == 0 || bytes.len() >= MAX_PEEK {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Whom the bytes of a client mean, and the request that says so; `None` when more must come.
fn whom(bytes: &[u8], port: u16) -> io::Result<Option<(Option<DomainName>, Option<RequestHead>)>> {
    if port == HTTP_PORT {
        let request = RequestHead::read(bytes).map_err(io::Error::other)?;
        return Ok(request.map(|request| (request.name.clone(), Some(request))));
    }
    match ServerName::of_client_hello(bytes) {
        ServerName::Named(name) => Ok(Some((Some(name), None))),
        ServerName::Unnamed => Ok(Some((None, None))),
        ServerName::Malformed(why) => Err(io::Error::other(why)),
        ServerName::Incomplete => Ok(None),
    }
}

/// Ends a connection so that its peer knows that it was no orderly end.
fn reset(stream: &TcpStream) {
    // A socket that takes no options is closed all the same.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}
