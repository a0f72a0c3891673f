//! Answers the guest's DNS: only names that its policy lets it ask, and only what a server says to that very question.
//!
//! An address is let into the namespace before the guest hears of it, so that whoever connects at once finds the way
//! open. Questions go to the policy's servers, out of the namespace as the guest's own would; without such servers to
//! those of the host, from the host.

use super::Shared;
use crate::net::dial::Kind;
use flames_egress::dns::{Answer, Asked, Question};
use flames_egress::{DNS_PORT, EgressPolicy};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a server may take before the next one is asked.
const SERVER_DEADLINE: Duration = Duration::from_secs(3);
/// How long a guest may keep a TCP connection without a question.
const IDLE_DEADLINE: Duration = Duration::from_secs(10);
/// The most questions of one guest under way at once. What is over is not answered, as on any busy server.
const MAX_QUESTIONS: usize = 128;
/// The most TCP connections of one guest at once.
const MAX_STREAMS: usize = 16;
/// No datagram is larger.
const MAX_DATAGRAM: usize = 65_535;

/// How a question came, and so how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

/// Where questions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// A server of the policy's choice, asked from the guest's namespace.
    Chosen(SocketAddr),
    /// A server of the host's, asked from the host.
    OfHost(SocketAddr),
}

/// Serves one guest over UDP until its run ends.
pub(super) async fn serve_datagrams(shared: Arc<Shared>, socket: UdpSocket) {
    let room = Arc::new(Semaphore::new(MAX_QUESTIONS));
    let socket = Arc::new(socket);
    let mut buffer = vec![0; MAX_DATAGRAM];
    let cut = shared.cut.clone();
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = cut.cancelled() => return,
        };
        let Ok((length, guest)) = received else { continue }; // an ICMP error about an earlier reply
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (message, socket, shared) = (buffer[..length].to_vec(), Arc::clone(&socket), Arc::clone(&shared));
        tokio::spawn(async move {
            if let Some(reply) = shared.resolve(&message, Transport::Udp, permit).await {
                let _ = socket.send_to(&reply, guest).await; // who asks again is answered again
            }
        });
    }
}

/// The same over TCP.
pub(super) async fn serve_streams(shared: Arc<Shared>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(MAX_STREAMS));
    let cut = shared.cut.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cut.cancelled() => return,
        };
        let (Ok((stream, _)), Ok(permit)) = (accepted, Arc::clone(&room).try_acquire_owned()) else {
            tokio::task::yield_now().await;
            continue;
        };
        let (shared, cut) = (Arc::clone(&shared), cut.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = serve_stream(&shared, stream) => {}
                () = cut.cancelled() => {}
            }
            drop(permit);
        });
    }
}

async fn serve_stream(shared: &Arc<Shared>, mut stream: TcpStream) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(1)); // one after the other
    loop {
        let question = tokio::time::timeout(IDLE_DEADLINE, read_message(&mut stream)).await??;
        let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
        if let Some(reply) = shared.resolve(&question, Transport::Tcp, permit).await {
            write_message(&mut stream, &reply).await?;
        }
    }
}

impl Shared {
    /// What the guest gets for a message; `None` for nothing.
    async fn resolve(&self, message: &[u8], over: Transport, _room: OwnedSemaphorePermit) -> Option<Vec<u8>> {
        let policy = self.policy();
        let question = match Question::read(&policy, message) {
            Asked::Allowed(question) => question,
            Asked::Ignored => return None,
            Asked::Refused { reply, name } => {
                tracing::debug!(slot = self.slot.name(), name = ?name, "a name was not asked for");
                self.refused.questions.fetch_add(1, Ordering::Relaxed);
                return Some(reply);
            }
        };
        match self.ask_all(&policy, &question, over).await {
            Ok(reply) => Some(reply),
            Err(error) => {
                tracing::debug!(slot = self.slot.name(), name = %question.name(), %error, "no answer");
                Some(question.failed())
            }
        }
    }

    /// Asks one server after the other, and lets in what the first says.
    async fn ask_all(
        &self,
        policy: &Arc<EgressPolicy>,
        question: &Question,
        over: Transport,
    ) -> io::Result<Vec<u8>> {
        let mut last = io::Error::other("no DNS server is known");
        for server in servers(policy) {
            let asked = tokio::time::timeout(SERVER_DEADLINE, self.ask(server, question, over)).await;
            match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(Answer { reply, admitted, .. }) => {
                    if !admitted.is_empty() {
                        self.admit(policy, admitted).await.map_err(io::Error::other)?;
                    }
                    return Ok(reply);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// One question, under an id and from a port that nobody can guess.
    async fn ask(&self, server: Server, question: &Question, over: Transport) -> io::Result<Answer> {
        let id = u16::from_ne_bytes(crate::secret::random_bytes().map_err(io::Error::other)?);
        let message = question.forward(id).map_err(io::Error::other)?;
        match over {
            Transport::Udp => {
                let socket = self.datagrams_to(server).await?;
                socket.send(&message).await?;
                let mut buffer = vec![0; MAX_DATAGRAM];
                loop {
                    let length = socket.recv(&mut buffer).await?;
                    // What answers another question is a guess of somebody else's: the true answer may follow.
                    if let Ok(answer) = question.answer(id, &buffer[..length]) {
                        return Ok(answer);
                    }
                }
            }
            Transport::Tcp => {
                let mut stream = self.stream_to(server).await?;
                write_message(&mut stream, &message).await?;
                question.answer(id, &read_message(&mut stream).await?).map_err(io::Error::other)
            }
        }
    }

    async fn datagrams_to(&self, server: Server) -> io::Result<UdpSocket> {
        let (socket, address) = match server {
            Server::Chosen(address) => {
                (UdpSocket::from_std(self.socket(Kind::OutwardDatagram).await?.into())?, address)
            }
            Server::OfHost(address) => (UdpSocket::bind(any_address_like(address)).await?, address),
        };
        socket.connect(address).await?;
        Ok(socket)
    }

    async fn stream_to(&self, server: Server) -> io::Result<TcpStream> {
        match server {
            Server::Chosen(address) => self.connect_out(address).await,
            Server::OfHost(address) => TcpStream::connect(address).await,
        }
    }
}

/// The servers of a policy, in order. A namespace has no IPv6, so neither has a server that is asked from it.
fn servers(policy: &EgressPolicy) -> Vec<Server> {
    let chosen = policy.dns().iter().filter(|address| address.is_ipv4());
    let chosen: Vec<_> = chosen.map(|address| Server::Chosen((*address, DNS_PORT).into())).collect();
    if !policy.dns().is_empty() {
        return chosen;
    }
    // Read each time: a host that moves to another network has other servers.
    let told = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    name_servers(&told).map(|address| Server::OfHost((address, DNS_PORT).into())).collect()
}

/// The servers in a text like /etc/resolv.conf.
fn name_servers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    })
}

fn any_address_like(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// A message with its length before it.
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_servers_are_the_addresses_after_the_word() {
        let text = "# comment\nsearch a.example\nnameserver 192.0.2.53\nnameserver ::1\nnameserver no\noptions edns0\n";
        let servers: Vec<_> = name_servers(text).map(|address| address.to_string()).collect();
        assert_eq!(servers, ["192.0.2.53", "::1"]);
    }
}
