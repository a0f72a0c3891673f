//! The suite: one public async function per promise of [`crate::IngressProvider`].
//!
//! [`ingress_conformance!`](crate::ingress_conformance) expands to one named test per promise. Its argument is
//! an `async fn() -> Option<Fixture>` that gives a fresh provider without routes, or `None` after it has
//! reported why the provider is not there ([`flames_provider::conformance::skip`]).
//!
//! The cases of the data path send real HTTP through the provider's entrance to an upstream that the case
//! starts. A provider without a data path must say so: for it these cases check that the entrance is
//! `Unsupported`.

#![allow(clippy::expect_used, reason = "a suite fails by panicking")]

mod broken;
mod client;
mod control;
mod forwarding;
mod limits;
mod routing;
mod streaming;
mod upstream;

pub use broken::{BrokenIngress, Flaw};
pub use control::*;
pub use forwarding::*;
pub use limits::*;
pub use routing::*;
pub use streaming::*;

use crate::{ErrorKind, Host, IngressProvider, Limits, Route, RouteId, RouteSet, Upstream};
use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A fresh provider, and what a case must know of its listener.
#[derive(Debug)]
pub struct Fixture {
    provider: Arc<dyn IngressProvider>,
    listener: ListenerLimits,
    guards: Vec<Box<dyn Any + Send + Sync>>,
}

/// How the factory configured the listener.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// How long a client may take to send its headers. A second or so, or the suite becomes slow.
    pub header_timeout: Duration,
    /// How large they may be.
    pub max_header_bytes: usize,
    /// How many connections there may be; used if the provider has that capability.
    pub max_connections: usize,
}

impl Fixture {
    /// A fixture of a provider without routes.
    pub fn new(provider: Arc<dyn IngressProvider>, listener: ListenerLimits) -> Self {
        Self { provider, listener, guards: Vec::new() }
    }

    /// A fixture of a provider that moves no request.
    pub fn without_data_path(provider: Arc<dyn IngressProvider>) -> Self {
        let listener = ListenerLimits {
            header_timeout: Duration::from_secs(1),
            max_header_bytes: 16 << 10,
            max_connections: 8,
        };
        Self::new(provider, listener)
    }

    /// Keeps `guard` (a server, a folder) until the case is over.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guards.push(Box::new(guard));
        self
    }

    /// The same fixture with its provider wrapped.
    #[must_use]
    pub fn wrapped(
        mut self,
        wrap: impl FnOnce(Arc<dyn IngressProvider>) -> Arc<dyn IngressProvider>,
    ) -> Self {
        self.provider = wrap(self.provider);
        self
    }

    /// The address requests go to; `None`, after a check of what such a provider owes, without a data path.
    fn entrance(&self) -> Option<SocketAddr> {
        if self.provider.capabilities().data_path {
            return Some(self.provider.entrance().expect("a provider with a data path has an entrance"));
        }
        let error = self.provider.entrance().expect_err("a provider without a data path has no entrance");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        eprintln!("UNSUPPORTED: {} has no data path", self.provider.adapter());
        None
    }

    async fn apply(&self, routes: impl IntoIterator<Item = Route>) {
        let set = RouteSet::new(routes).expect("the case's routes are valid");
        self.provider.apply(&set).await.expect("the set is applied");
    }
}

/// A route with limits that no honest request of the suite comes near.
fn route(id: &str, host: &str, upstream: SocketAddr) -> Route {
    let limits = Limits {
        max_body_bytes: 64 << 20,
        header_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(60),
    };
    let id = RouteId::parse(id).expect("the case's id is valid");
    let host = Host::parse(host).expect("the case's host is valid");
    Route::new(id, host, Upstream::Tcp(upstream)).limited_to(limits)
}

/// Waits for what should take milliseconds, so that a broken promise fails instead of hanging.
async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(15), work).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within 15 s"),
    }
}

/// Hands the names of all promises to the macro `$callback`, behind `$arguments`. For tests of the suite.
#[doc(hidden)]
#[macro_export]
macro_rules! __ingress_promises {
    ($callback:ident, $($arguments:tt)*) => {
        $callback! { [$($arguments)*]
            apply_of_a_set_is_listed_by_routes
            apply_of_the_same_set_twice_changes_nothing
            apply_names_what_was_added_changed_and_removed
            apply_of_the_empty_set_removes_all_routes
            concurrent_applies_leave_exactly_one_of_the_sets
            ten_thousand_routes_are_applied_and_listed
            url_of_a_route_names_its_host_and_path
            url_of_an_unknown_or_wildcard_route_is_none
            a_request_reaches_the_upstream_of_its_host
            an_exact_host_wins_over_a_wildcard
            the_longest_path_prefix_wins_and_ends_at_a_segment
            an_unknown_host_is_answered_404
            a_removed_route_is_answered_404_at_once
            a_switched_upstream_never_shows_neither_old_nor_new
            a_dead_upstream_is_answered_502_and_named
            an_upstream_that_comes_back_is_used_at_once
            hop_by_hop_headers_stay_on_their_hop
            the_upstream_learns_the_client_and_forged_headers_do_not_pass
            method_path_query_and_body_pass_unchanged
            answers_without_a_body_keep_their_framing
            two_framings_of_one_request_are_refused_or_made_one
            server_sent_events_arrive_one_by_one
            an_upload_arrives_while_it_is_sent
            a_websocket_passes_both_ways
            a_tunnel_that_ends_on_one_side_ends_on_the_other
            a_client_that_leaves_ends_the_request_at_the_upstream
            open_streams_outlive_a_change_of_the_set
            slow_headers_are_cut
            huge_headers_are_refused
            a_huge_body_is_answered_413
            a_huge_chunked_body_never_reaches_the_upstream_whole
            an_upstream_that_answers_late_is_answered_504
            a_silent_stream_is_cut_and_a_moving_one_is_not
            a_silent_tunnel_is_cut
            connections_past_the_limit_are_not_served
        }
    };
}

/// Expands to one test per promise. See [`crate::conformance`].
#[macro_export]
macro_rules! ingress_conformance {
    ($factory:path) => {
        use $crate::__ingress_test_per_promise;
        $crate::__ingress_promises! { __ingress_test_per_promise, $factory }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __ingress_test_per_promise {
    ([$factory:path] $($promise:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            if let Some(fixture) = $factory().await {
                $crate::conformance::$promise(fixture).await;
            }
        }
    )+};
}
