//! What one guest may reach, carried out: its policy's rules in the namespace, the way out once there is one, and the
//! services that a policy about names needs.
//!
//! A change is one transaction of the namespace's own firewall, so it costs the same however many others there are,
//! and no packet sees half of it. Connections that stay allowed do not notice; of the others the next packet is the
//! last. The rules stay when this program ends; a restarted daemon that says the same policy again takes over what
//! was counted and admitted, and serves names anew.

mod exchange;
mod proxy;
mod resolver;

use super::dial::{Dialer, Kind};
use super::firewall::{self, PROXY_PORT, RESOLVER_PORT, Way};
use super::slot::{Slot, Unwanted, enter, on_own_thread};
use super::{HOST_IP, nft, observed};
use flames_egress::{Admitted, Carried, Count, EgressPolicy, Ruleset, counter};
use flames_vmm::{Error, ErrorKind, Result};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 128;

/// The egress of one guest. It takes nothing back when it is dropped: the rules are the namespace's.
#[derive(Debug)]
pub(crate) struct Egress {
    shared: Arc<Shared>,
}

/// What the services of one guest have in common.
#[derive(Debug)]
struct Shared {
    slot: Slot,
    dialer: Dialer,
    policy: watch::Sender<Arc<EgressPolicy>>,
    /// One change of the namespace's rules at a time; whether names are served.
    turn: Mutex<Services>,
    refused: Refused,
    /// The end of the run: services and their connections end with it.
    cut: CancellationToken,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Services {
    #[default]
    NotNeededYet,
    Running,
}

/// What the services refused, which no table counts.
#[derive(Debug, Default)]
struct Refused {
    questions: AtomicU64,
    names: AtomicU64,
}

impl Egress {
    /// The egress of a slot. For one that nobody had yet nothing is allowed; for one that an earlier daemon made, what
    /// was, until [`Egress::change`] says it anew.
    pub(crate) fn new(slot: Slot, dialer: Dialer, cut: CancellationToken) -> Self {
        let policy = watch::Sender::new(Arc::new(EgressPolicy::default()));
        let (turn, refused) = (Mutex::default(), Refused::default());
        Self { shared: Arc::new(Shared { slot, dialer, policy, turn, refused, cut }) }
    }

    /// What the guest may reach now.
    pub(crate) fn policy(&self) -> Arc<EgressPolicy> {
        self.shared.policy()
    }

    /// Lets the guest reach what a policy allows, from now on and in connections that are open. What was counted and
    /// used stays.
    ///
    /// # Errors
    /// `Unavailable` when the host forwards nothing, has no address left, or does not take the rules; then the policy
    /// before holds.
    pub(crate) async fn change(&self, policy: EgressPolicy) -> Result<()> {
        let shared = &self.shared;
        let mut services = shared.turn.lock().await;
        let way = if policy.is_sealed() { Way::Closed } else { Way::Open };
        if way == Way::Open {
            shared.slot.connect().await?;
        }
        if policy.resolves() && *services == Services::NotNeededYet {
            shared.serve().await?;
            *services = Services::Running;
        }
        if shared.slot.may_be_connected() {
            replace_rules(shared.slot.namespace(), policy.clone(), way).await?;
        }
        shared.policy.send_replace(Arc::new(policy));
        Ok(())
    }

    /// What passed so far, what did not, and what is let in by name. What the resolver and the proxy refused has no
    /// bytes, and begins anew with a restarted daemon.
    ///
    /// # Errors
    /// `Unavailable` when the namespace does not tell.
    pub(crate) async fn figures(&self) -> Result<Carried> {
        let _turn = self.shared.turn.lock().await; // the kernel does not tell of a table that changes meanwhile
        let namespace = self.shared.slot.namespace();
        let read = move || {
            enter_slot(&namespace)?;
            observed::figures()
        };
        let mut figures = on_own_thread(read).await?;
        let refused = &self.shared.refused;
        for (name, count) in [(counter::DNS, &refused.questions), (counter::NAME, &refused.names)] {
            let packets = count.load(Ordering::Relaxed);
            figures.counters.insert(name.to_owned(), Count { packets, bytes: 0 });
        }
        Ok(figures)
    }
}

impl Shared {
    fn policy(&self) -> Arc<EgressPolicy> {
        Arc::clone(&self.policy.borrow())
    }

    /// Starts the resolver and the proxy; they end with the run.
    async fn serve(self: &Arc<Self>) -> Result<()> {
        let failed =
            |error: io::Error| crate::paths::io_error("egress service", self.slot.name(), "start", error);
        let questions = self.bind_udp(RESOLVER_PORT).await.map_err(failed)?;
        let long_questions = self.listen(RESOLVER_PORT).await.map_err(failed)?;
        let connections = self.listen(PROXY_PORT).await.map_err(failed)?;
        tokio::spawn(resolver::serve_datagrams(Arc::clone(self), questions));
        tokio::spawn(resolver::serve_streams(Arc::clone(self), long_questions));
        tokio::spawn(proxy::serve(Arc::clone(self), connections));
        Ok(())
    }

    async fn listen(&self, port: u16) -> io::Result<TcpListener> {
        let socket = tcp_socket(self.socket(Kind::Stream).await?);
        socket.set_reuseaddr(true)?; // connections of an earlier daemon may still be dying
        socket.bind((HOST_IP, port).into())?;
        socket.listen(BACKLOG)
    }

    async fn bind_udp(&self, port: u16) -> io::Result<UdpSocket> {
        let socket = self.socket(Kind::Datagram).await?;
        rustix::net::bind(&socket, &SocketAddr::from((HOST_IP, port)))?;
        UdpSocket::from_std(socket.into())
    }

    /// A connection out of the namespace, on behalf of the guest.
    async fn connect_out(&self, to: SocketAddr) -> io::Result<TcpStream> {
        tcp_socket(self.socket(Kind::OutwardStream).await?).connect(to).await
    }

    async fn socket(&self, kind: Kind) -> io::Result<OwnedFd> {
        self.dialer.socket(self.slot.namespace(), kind).await
    }

    /// Lets addresses in, as long as the policy that they were asked under holds.
    async fn admit(&self, under: &Arc<EgressPolicy>, admitted: Vec<Admitted>) -> Result<()> {
        let _turn = self.turn.lock().await;
        if !Arc::ptr_eq(under, &self.policy()) {
            return Err(Error::new(ErrorKind::Conflict, "egress policy", self.slot.name())
                .operation("admit")
                .detail("changed meanwhile"));
        }
        let namespace = self.slot.namespace();
        on_own_thread(move || {
            enter_slot(&namespace)?;
            nft::apply(&Ruleset::admit(&admitted))
        })
        .await
    }
}

impl Unwanted for Carried {
    fn discard(self) {}
}

fn tcp_socket(socket: OwnedFd) -> TcpSocket {
    TcpSocket::from_std_stream(std::net::TcpStream::from(socket))
}

/// Replaces a namespace's rules by those of a policy, and takes over what was counted and admitted.
async fn replace_rules(namespace: Arc<File>, policy: EgressPolicy, way: Way) -> Result<()> {
    on_own_thread(move || {
        enter_slot(&namespace)?;
        nft::apply(&firewall::policy_rules(&policy, way, observed::carried()?))
    })
    .await
}

fn enter_slot(namespace: &File) -> Result<()> {
    enter(namespace.as_fd()).map_err(|error| crate::paths::io_error("network slot", "", "enter", error))
}
