//! A relay of bytes that can spoil them: what stands between a sound proxy and a broken promise.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a relay does to the bytes of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spoil {
    Nothing,
    /// Writes the second text in place of the first.
    Replace(&'static str, &'static str),
    /// Adds a header behind the first line of each message.
    AddHeader(&'static str),
    /// Keeps everything back until this text has come.
    HoldUntil(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Relay {
    pub(crate) towards: Spoil,
    pub(crate) back: Spoil,
    /// Neither side learns that the other has gone.
    pub(crate) hides_ends: bool,
    /// After one failed connection none is tried.
    pub(crate) remembers_failure: bool,
    /// Cuts open connections at each change.
    pub(crate) cut: watch::Sender<u64>,
}

impl Relay {
    pub(crate) fn transparent() -> Self {
        let (towards, back) = (Spoil::Nothing, Spoil::Nothing);
        Self { towards, back, hides_ends: false, remembers_failure: false, cut: watch::Sender::new(0) }
    }

    /// Relays to `target` until the test's runtime ends.
    pub(crate) async fn start(&self, target: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (relay, failed) = (self.clone(), Arc::new(AtomicBool::new(false)));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay.clone().serve(client, target, Arc::clone(&failed)));
            }
        });
        address
    }

    async fn serve(self, client: TcpStream, target: SocketAddr, failed: Arc<AtomicBool>) {
        if self.remembers_failure && failed.load(Ordering::SeqCst) {
            return;
        }
        let Ok(server) = TcpStream::connect(target).await else {
            return failed.store(true, Ordering::SeqCst);
        };
        let mut cut = self.cut.subscribe();
        let (client, server) = (client.into_split(), server.into_split());
        let both = async {
            tokio::join!(
                carry(client.0, server.1, self.towards, self.hides_ends),
                carry(server.0, client.1, self.back, self.hides_ends)
            )
        };
        tokio::select! {
            _ = both => {}
            _ = cut.changed() => {}
        }
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, spoil: Spoil, hides_ends: bool) {
    let mut buffer = vec![0; 64 << 10];
    let mut held = Vec::new();
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        held.extend_from_slice(&buffer[..length]);
        if let Spoil::HoldUntil(text) = spoil
            && !contains(&held, text)
        {
            continue;
        }
        if to.write_all(&spoiled(std::mem::take(&mut held), spoil)).await.is_err() {
            break;
        }
    }
    if hides_ends {
        std::future::pending::<()>().await;
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn spoiled(bytes: Vec<u8>, spoil: Spoil) -> Vec<u8> {
    match spoil {
        Spoil::Replace(from, to) => replaced(&bytes, from, to),
        Spoil::AddHeader(header) if contains(&bytes, " HTTP/1.1\r\n") => {
            replaced(&bytes, " HTTP/1.1\r\n", &format!(" HTTP/1.1\r\n{header}\r\n"))
        }
        _ => bytes,
    }
}

/// On bytes, since tunnels carry no text.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let Some(at) = bytes.windows(from.len()).position(|window| window == from.as_bytes()) else {
        return bytes.to_vec();
    };
    let rest = replaced(&bytes[at + from.len()..], from, to);
    [&bytes[..at], to.as_bytes(), &rest].concat()
}
