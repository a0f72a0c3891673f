//! Ports of sandboxes that the world may reach.
//!
//! ```text
//! client -> ingress (host `<port>-<sandbox>.<domain>`) -> forwarder on loopback -> node -> guest's network
//! ```
//!
//! The record says which ports are exposed; forwarders and routes follow it. A forwarder exists because an
//! ingress in another process cannot open a socket inside a sandbox's network namespace.

use crate::SandboxId;
use crate::activity::Activity;
use crate::plane::ControlPlane;
use crate::sandbox::error::{InvalidRequest, LifecycleError};
use crate::sandbox::record::Sandbox;
use crate::sandbox::state::State;
use flames_ingress::{Host, Route, RouteId, RouteSet, Upstream, Url};
use flames_node::{Node, VmId};
use flames_provider::{Error, ErrorKind, Result};
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The port of the agent. Its control endpoint must not be reachable from outside.
const AGENT_PORT: u16 = 49983;
/// More ports of one sandbox than anybody needs.
const MAX_PORTS: usize = 32;

/// The forwarders in this process, and the wish to look again.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    forwarders: Mutex<HashMap<(VmId, u16), Forwarder>>,
    changed: Notify,
}

/// A listener on loopback; dropping it closes it and what came through it.
#[derive(Debug)]
struct Forwarder {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Ports {
    /// Wakes the reconciler.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }
}

impl ControlPlane {
    /// Lets the world reach a port of a running sandbox, and says where. Exposing it again changes nothing.
    ///
    /// # Errors
    /// `Invalid` for port 0, the agent's port or too many; `NotRunning`; what the ingress answers.
    pub async fn expose(&self, id: &SandboxId, port: u16) -> Result<Url, LifecycleError> {
        check_port(port)?;
        if !self.node.capacity().await.namespaces {
            return Err(without_namespaces(id).into());
        }
        self.records
            .update(id, |sandbox| {
                if sandbox.state != State::Running {
                    return Err(LifecycleError::NotRunning { id: id.clone(), state: sandbox.state });
                }
                sandbox.ports.insert(port);
                match sandbox.ports.len() {
                    0..=MAX_PORTS => Ok(()),
                    _ => {
                        Err(InvalidRequest::new("port", format!("at most {MAX_PORTS} ports a sandbox"))
                            .into())
                    }
                }
            })
            .await?;
        self.reconcile_routes().await?;
        let url = self.providers.ingress.url(&route_id(id, port)?).await?;
        url.ok_or_else(|| Error::new(ErrorKind::Unavailable, "route", format!("{port}-{id}")).into())
    }

    /// Takes a port back. One that is not exposed is fine.
    ///
    /// # Errors
    /// `NotFound` when nobody knows the sandbox; what the ingress answers.
    pub async fn unexpose(&self, id: &SandboxId, port: u16) -> Result<(), LifecycleError> {
        let take_back = |sandbox: &mut Sandbox| {
            sandbox.ports.remove(&port);
            Ok(())
        };
        self.records.update(id, take_back).await?;
        self.reconcile_routes().await
    }

    /// Brings forwarders and routes in line with the records, whenever somebody asks for it.
    pub(crate) async fn follow_ports(&self) {
        loop {
            if let Err(error) = self.reconcile_routes().await {
                tracing::warn!(%error, "routes are not what they should be yet");
            }
            self.ports.changed.notified().await;
        }
    }

    async fn reconcile_routes(&self) -> Result<(), LifecycleError> {
        // One at a time, so that an older look at the records never overwrites a newer one.
        let _turn = self.routes_turn.lock().await;
        let records = self.records.all().await?;
        let wanted: Vec<_> = records.iter().flat_map(|stored| exposed(&stored.sandbox)).collect();
        self.keep_forwarders(&wanted).await?;
        let routes = wanted.iter().map(|wish| self.route(wish)).collect::<Result<Vec<_>>>()?;
        self.providers.ingress.apply(&RouteSet::new(routes)?).await?;
        Ok(())
    }

    async fn keep_forwarders(&self, wanted: &[Wish]) -> Result<()> {
        let keys: BTreeSet<_> = wanted.iter().map(Wish::key).collect();
        let missing: Vec<_> = {
            let mut forwarders = self.ports.forwarders.lock().unwrap_or_else(PoisonError::into_inner);
            forwarders.retain(|key, _| keys.contains(key));
            wanted.iter().filter(|wish| !forwarders.contains_key(&wish.key())).collect()
        };
        for wish in missing {
            let forwarder = Forwarder::start(self.way(wish)).await?;
            self.ports
                .forwarders
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(wish.key(), forwarder);
        }
        Ok(())
    }

    fn way(&self, wish: &Wish) -> Way {
        Way { node: Arc::clone(&self.node), activity: Arc::clone(&self.activity), to: wish.clone() }
    }

    fn route(&self, wish: &Wish) -> Result<Route> {
        let forwarders = self.ports.forwarders.lock().unwrap_or_else(PoisonError::into_inner);
        let forwarder = forwarders.get(&wish.key());
        let address = forwarder.map(|forwarder| forwarder.address).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "forwarder", format!("{}:{}", wish.run, wish.port))
        })?;
        let host = Host::parse(&format!("{}-{}.{}", wish.port, wish.id, self.limits.domain))?;
        Ok(Route::new(route_id(&wish.id, wish.port)?, host, Upstream::Tcp(address)))
    }
}

/// A port that should be reachable.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    id: SandboxId,
    run: VmId,
    port: u16,
}

/// What a forwarder needs to lead a connection into a sandbox.
#[derive(Clone, Debug)]
struct Way {
    node: Arc<dyn Node>,
    activity: Arc<Activity>,
    to: Wish,
}

impl Wish {
    /// What its forwarder is kept under.
    fn key(&self) -> (VmId, u16) {
        (self.run.clone(), self.port)
    }
}

fn exposed(sandbox: &Sandbox) -> impl Iterator<Item = Wish> {
    let lives = matches!(sandbox.state, State::Running | State::Paused);
    let wish = |port: &u16| Wish { id: sandbox.id.clone(), run: sandbox.run.clone(), port: *port };
    sandbox.ports.iter().filter(move |_| lives).map(wish)
}

fn check_port(port: u16) -> Result<(), InvalidRequest> {
    match port {
        0 => Err(InvalidRequest::new("port", "must be 1 to 65535")),
        AGENT_PORT => {
            Err(InvalidRequest::new("port", format!("{AGENT_PORT} is the agent's and stays inside")))
        }
        _ => Ok(()),
    }
}

/// The VMM's user-mode network forwards the agent's port alone.
fn without_namespaces(id: &SandboxId) -> Error {
    Error::new(ErrorKind::Unsupported, "sandbox", id.as_str())
        .detail("a daemon without root cannot reach ports of its sandboxes: run it as root")
}

fn route_id(id: &SandboxId, port: u16) -> Result<RouteId> {
    RouteId::parse(&format!("{port}-{id}"))
}

impl Forwarder {
    async fn start(way: Way) -> Result<Self> {
        let failed = |error| Error::new(ErrorKind::Unavailable, "listener", "127.0.0.1").source(error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, way, stop.clone())));
        Ok(Self { address, _stop: stop.drop_guard() })
    }
}

async fn accept(listener: TcpListener, way: Way, stop: CancellationToken) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(stop.clone().run_until_cancelled_owned(pass(client, way.clone())));
            }
            Err(error) => {
                tracing::warn!(run = %way.to.run, port = way.to.port, %error, "a forwarder cannot accept");
                // The usual cause is a lack of descriptors, which has no event for its end.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Copies both ways until both sides have ended. A guest without a listener closes the client's connection,
/// which the ingress answers with 502. An open connection is a use of the sandbox.
async fn pass(mut client: TcpStream, way: Way) {
    let Way { node, activity, to: Wish { id, run, port } } = way;
    let _work = activity.begin(&id);
    match node.connect(&run, port).await {
        Ok(mut guest) => drop(tokio::io::copy_bidirectional(&mut client, &mut guest).await),
        Err(error) => tracing::debug!(%run, port, %error, "nothing listens in the guest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_port_stays_inside() {
        assert!(check_port(AGENT_PORT).is_err() && check_port(0).is_err());
        assert!(check_port(8080).is_ok());
    }
}
