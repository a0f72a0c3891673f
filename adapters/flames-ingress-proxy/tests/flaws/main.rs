//! The suite can fail on a data path: each flaw, made by sabotage of the sound proxy, is caught by its promise.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod relay;

use async_trait::async_trait;
use flames_ingress::conformance::{Fixture, ListenerLimits};
use flames_ingress::{
    Applied, Capabilities, IngressProvider, Limits, Result, Route, RouteId, RouteSet, Upstream, Url,
};
use flames_ingress_proxy::{Proxy, ProxyConfig};
use relay::{Relay, Spoil};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Where the sabotage happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    // In the set.
    SwapsUpstreams,
    DropsExactHosts,
    DropsPrefixes,
    KeepsRoutes,
    PassesThroughTheEmptySet,
    IgnoresBodyLimits,
    IgnoresTimeouts,
    // In the listener's configuration.
    WaitsForHeaders,
    TakesHugeHeaders,
    TakesAllConnections,
    // Between client and proxy.
    AnswersUnknownHosts,
    HidesTheUpstream,
    ChangesStatus,
    AcceptsBadFraming,
    HoldsAnswers,
    HoldsUploads,
    SpoilsTunnels,
    HidesEnds,
    CutsAtChanges,
    // Between proxy and upstream.
    RemembersFailures,
    PassesHopHeaders,
    ForgesTheClient,
    RewritesPaths,
}

const CAUGHT_BY: &[(Flaw, &str)] = &[
    (Flaw::SwapsUpstreams, "a_request_reaches_the_upstream_of_its_host"),
    (Flaw::DropsExactHosts, "an_exact_host_wins_over_a_wildcard"),
    (Flaw::DropsPrefixes, "the_longest_path_prefix_wins_and_ends_at_a_segment"),
    (Flaw::AnswersUnknownHosts, "an_unknown_host_is_answered_404"),
    (Flaw::KeepsRoutes, "a_removed_route_is_answered_404_at_once"),
    (Flaw::PassesThroughTheEmptySet, "a_switched_upstream_never_shows_neither_old_nor_new"),
    (Flaw::HidesTheUpstream, "a_dead_upstream_is_answered_502_and_named"),
    (Flaw::RemembersFailures, "an_upstream_that_comes_back_is_used_at_once"),
    (Flaw::PassesHopHeaders, "hop_by_hop_headers_stay_on_their_hop"),
    (Flaw::ForgesTheClient, "the_upstream_learns_the_client_and_forged_headers_do_not_pass"),
    (Flaw::RewritesPaths, "method_path_query_and_body_pass_unchanged"),
    (Flaw::ChangesStatus, "answers_without_a_body_keep_their_framing"),
    (Flaw::AcceptsBadFraming, "two_framings_of_one_request_are_refused_or_made_one"),
    (Flaw::HoldsAnswers, "server_sent_events_arrive_one_by_one"),
    (Flaw::HoldsUploads, "an_upload_arrives_while_it_is_sent"),
    (Flaw::SpoilsTunnels, "a_websocket_passes_both_ways"),
    (Flaw::HidesEnds, "a_tunnel_that_ends_on_one_side_ends_on_the_other"),
    (Flaw::HidesEnds, "a_client_that_leaves_ends_the_request_at_the_upstream"),
    (Flaw::CutsAtChanges, "open_streams_outlive_a_change_of_the_set"),
    (Flaw::WaitsForHeaders, "slow_headers_are_cut"),
    (Flaw::TakesHugeHeaders, "huge_headers_are_refused"),
    (Flaw::IgnoresBodyLimits, "a_huge_body_is_answered_413"),
    (Flaw::IgnoresBodyLimits, "a_huge_chunked_body_never_reaches_the_upstream_whole"),
    (Flaw::IgnoresTimeouts, "an_upstream_that_answers_late_is_answered_504"),
    (Flaw::IgnoresTimeouts, "a_silent_stream_is_cut_and_a_moving_one_is_not"),
    (Flaw::IgnoresTimeouts, "a_silent_tunnel_is_cut"),
    (Flaw::TakesAllConnections, "connections_past_the_limit_are_not_served"),
];

#[derive(Debug)]
struct Sabotaged {
    proxy: Proxy,
    flaw: Flaw,
    front: Relay,
    entrance: SocketAddr,
}

impl Sabotaged {
    async fn start(flaw: Flaw, listener: ListenerLimits) -> Self {
        let proxy = Proxy::start(config(flaw, listener)).await.unwrap();
        let front = front(flaw);
        let entrance = front.start(proxy.entrance().unwrap()).await;
        Self { proxy, flaw, front, entrance }
    }

    async fn spoiled(&self, desired: &RouteSet) -> RouteSet {
        let mut routes: Vec<Route> = desired.iter().cloned().collect();
        match self.flaw {
            Flaw::SwapsUpstreams if routes.len() == 2 => {
                let first = routes[0].upstream.clone();
                routes[0].upstream = std::mem::replace(&mut routes[1].upstream, first);
            }
            Flaw::DropsExactHosts => routes.retain(|route| route.host.wildcard_suffix().is_some()),
            Flaw::DropsPrefixes => routes.retain(|route| route.path_prefix.is_root()),
            Flaw::KeepsRoutes => {
                let old = self.proxy.routes().await.unwrap();
                routes.extend(old.iter().filter(|old| desired.get(&old.id).is_none()).cloned());
            }
            Flaw::IgnoresBodyLimits => {
                routes.iter_mut().for_each(|route| route.limits.max_body_bytes = u64::MAX)
            }
            Flaw::IgnoresTimeouts => routes.iter_mut().for_each(|route| route.limits = Limits::default()),
            _ => {}
        }
        if let Some(relay) = back(self.flaw) {
            for route in &mut routes {
                let Upstream::Tcp(address) = route.upstream else { unreachable!() };
                route.upstream = Upstream::Tcp(relay.start(address).await);
            }
        }
        RouteSet::new(routes).unwrap()
    }
}

fn config(flaw: Flaw, listener: ListenerLimits) -> ProxyConfig {
    let mut config = ProxyConfig {
        header_timeout: listener.header_timeout,
        max_header_bytes: listener.max_header_bytes,
        max_connections: listener.max_connections,
        ..ProxyConfig::new(([127, 0, 0, 1], 0).into())
    };
    match flaw {
        Flaw::WaitsForHeaders => config.header_timeout = Duration::from_secs(300),
        Flaw::TakesHugeHeaders => config.max_header_bytes = 16 << 20,
        Flaw::TakesAllConnections => config.max_connections = 1000,
        _ => {}
    }
    config
}

/// Between client and proxy.
fn front(flaw: Flaw) -> Relay {
    let mut relay = Relay::transparent();
    match flaw {
        Flaw::AnswersUnknownHosts => relay.back = Spoil::Replace("HTTP/1.1 404", "HTTP/1.1 200"),
        Flaw::HidesTheUpstream => relay.back = Spoil::Replace("\"upstream\"", "\"somewhat\""),
        Flaw::ChangesStatus => relay.back = Spoil::Replace("HTTP/1.1 304", "HTTP/1.1 204"),
        Flaw::AcceptsBadFraming => relay.back = Spoil::Replace("HTTP/1.1 400", "HTTP/1.1 200"),
        Flaw::HoldsAnswers => relay.back = Spoil::HoldUntil("data: tick\n\n\r\nc\r\ndata: tick"),
        Flaw::HoldsUploads => relay.towards = Spoil::HoldUntil("0\r\n\r\n"),
        Flaw::SpoilsTunnels => relay.back = Spoil::Replace("pong", "ping"),
        Flaw::HidesEnds => relay.hides_ends = true,
        _ => {}
    }
    relay
}

/// Between proxy and upstream.
fn back(flaw: Flaw) -> Option<Relay> {
    let mut relay = Relay::transparent();
    match flaw {
        Flaw::RemembersFailures => relay.remembers_failure = true,
        Flaw::PassesHopHeaders => relay.towards = Spoil::AddHeader("x-own-hop: secret"),
        Flaw::ForgesTheClient => relay.towards = Spoil::Replace("127.0.0.1\r\n", "127.0.0.6\r\n"),
        Flaw::RewritesPaths => relay.towards = Spoil::Replace("%20", "%21"),
        _ => return None,
    }
    Some(relay)
}

#[async_trait]
impl IngressProvider for Sabotaged {
    fn adapter(&self) -> &'static str {
        "sabotaged"
    }

    fn capabilities(&self) -> Capabilities {
        self.proxy.capabilities()
    }

    async fn apply(&self, desired: &RouteSet) -> Result<Applied> {
        if self.flaw == Flaw::PassesThroughTheEmptySet {
            self.proxy.apply(&RouteSet::default()).await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let applied = self.proxy.apply(&self.spoiled(desired).await).await?;
        if self.flaw == Flaw::CutsAtChanges {
            self.front.cut.send_modify(|changes| *changes += 1);
        }
        Ok(applied)
    }

    async fn routes(&self) -> Result<RouteSet> {
        self.proxy.routes().await
    }

    async fn url(&self, id: &RouteId) -> Result<Option<Url>> {
        let mut url = self.proxy.url(id).await?;
        if let Some(url) = &mut url {
            url.set_port(Some(self.entrance.port())).unwrap();
        }
        Ok(url)
    }

    fn entrance(&self) -> Result<SocketAddr> {
        Ok(self.entrance)
    }
}

type Promise = fn(Fixture) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! table {
    ([] $($promise:ident)+) => {
        const PROMISES: &[(&str, Promise)] =
            &[$((stringify!($promise), |fixture| Box::pin(flames_ingress::conformance::$promise(fixture)))),+];
    };
}
flames_ingress::__ingress_promises! { table, }

async fn keeps(flaw: Flaw, name: &str) -> bool {
    let Some((_, promise)) = PROMISES.iter().find(|(promise, _)| *promise == name) else {
        panic!("no promise `{name}`");
    };
    let listener = ListenerLimits {
        header_timeout: Duration::from_secs(1),
        max_header_bytes: 16 << 10,
        max_connections: 8,
    };
    let provider = Sabotaged::start(flaw, listener).await;
    tokio::spawn(promise(Fixture::new(Arc::new(provider), listener))).await.is_ok()
}

/// All at once: a broken promise often shows by a wait that ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flaw_is_caught_by_its_promise() {
    let mut tries = tokio::task::JoinSet::new();
    for (flaw, name) in CAUGHT_BY {
        tries.spawn(async move { (!keeps(*flaw, name).await).then_some((flaw, name)) });
    }
    let caught: Vec<_> = tries.join_all().await.into_iter().flatten().collect();
    let missed: Vec<_> = CAUGHT_BY.iter().filter(|(flaw, name)| !caught.contains(&(flaw, name))).collect();
    assert!(missed.is_empty(), "not caught: {missed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_flaw_every_promise_is_kept() {
    for (name, _) in PROMISES {
        assert!(keeps(Flaw::None, name).await, "{name}");
    }
}
