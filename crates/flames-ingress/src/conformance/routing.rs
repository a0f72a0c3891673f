//! Promises about which upstream serves a request.

use super::client::{Answer, get, send, try_send};
use super::upstream::{TestUpstream, dead_address};
use super::{Fixture, route, soon};
use crate::PathPrefix;
use http::StatusCode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Two hosts, two upstreams; port, case and a trailing dot of the host do not matter.
pub async fn a_request_reaches_the_upstream_of_its_host(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let (a, b) = (TestUpstream::start("a").await, TestUpstream::start("b").await);
    fixture.apply([route("a", "a.example.com", a.address), route("b", "b.example.com", b.address)]).await;
    assert_eq!(send(entrance, get("a.example.com", "/")).await.tag(), "a");
    assert_eq!(send(entrance, get("b.example.com", "/")).await.tag(), "b");
    assert_eq!(send(entrance, get("B.Example.com:8080", "/")).await.tag(), "b");
}

/// A wildcard serves what no exact host claims, one label deep.
pub async fn an_exact_host_wins_over_a_wildcard(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let (exact, wild) = (TestUpstream::start("exact").await, TestUpstream::start("wild").await);
    let routes = [route("w", "*.example.com", wild.address), route("x", "a.example.com", exact.address)];
    fixture.apply(routes).await;
    assert_eq!(send(entrance, get("a.example.com", "/")).await.tag(), "exact");
    assert_eq!(send(entrance, get("b.example.com", "/")).await.tag(), "wild");
    assert_eq!(send(entrance, get("c.b.example.com", "/")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(send(entrance, get("example.com", "/")).await.status, StatusCode::NOT_FOUND);
}

/// The more specific prefix wins, whatever the order of ids, and covers whole segments.
pub async fn the_longest_path_prefix_wins_and_ends_at_a_segment(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let mut upstreams = Vec::new();
    let mut routes = Vec::new();
    for (tag, prefix) in [("root", "/"), ("v1", "/api/v1"), ("api", "/api")] {
        let upstream = TestUpstream::start(tag).await;
        let prefix = PathPrefix::parse(prefix).expect("the case's prefix is valid");
        routes.push(route(tag, "a.example.com", upstream.address).under(prefix));
        upstreams.push(upstream);
    }
    fixture.apply(routes).await;
    for (path, tag) in [
        ("/", "root"),
        ("/api", "api"),
        ("/api/x", "api"),
        ("/api/v1?q", "v1"),
        ("/api/v10", "api"),
        ("/apix", "root"),
    ] {
        assert_eq!(send(entrance, get("a.example.com", path)).await.tag(), tag, "{path}");
    }
}

/// With a JSON body like every other refusal.
pub async fn an_unknown_host_is_answered_404(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    for host in ["b.example.com", "127.0.0.1", "xa.example.com"] {
        let answer = send(entrance, get(host, "/")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(answer.json()["code"], 404);
    }
    assert_eq!(a.requests(), 0);
}

/// Once `apply` has returned, no new request reaches the old upstream.
pub async fn a_removed_route_is_answered_404_at_once(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let a = TestUpstream::start("a").await;
    fixture.apply([route("a", "a.example.com", a.address)]).await;
    assert_eq!(send(entrance, get("a.example.com", "/")).await.tag(), "a");
    fixture.apply([]).await;
    assert_eq!(send(entrance, get("a.example.com", "/")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(a.requests(), 1);
}

/// Under load, with the route changed and with it replaced by one of another id: every answer is the old
/// upstream's or the new one's, and after `apply` the new one's.
pub async fn a_switched_upstream_never_shows_neither_old_nor_new(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let (a, b) = (TestUpstream::start("a").await, TestUpstream::start("b").await);
    let variants = [("one", a.address), ("one", b.address), ("two", a.address), ("three", b.address)];
    let [first, ..] = variants;
    fixture.apply([route(first.0, "a.example.com", first.1)]).await;
    let done = Arc::new(AtomicBool::new(false));
    let may_reset = !fixture.provider.capabilities().connections_outlive_changes;
    let load: Vec<_> = (0..4).map(|_| tokio::spawn(hammer(entrance, may_reset, Arc::clone(&done)))).collect();
    for (id, upstream) in variants.iter().cycle().take(24) {
        fixture.apply([route(id, "a.example.com", *upstream)]).await;
        let expected = if *upstream == a.address { "a" } else { "b" };
        assert_eq!(answered(entrance, may_reset).await.tag(), expected);
    }
    done.store(true, Ordering::SeqCst);
    for task in load {
        let answers = soon("the load", task).await.expect("every answer came from an upstream");
        assert!(answers > 0);
    }
}

async fn hammer(entrance: SocketAddr, may_reset: bool, done: Arc<AtomicBool>) -> usize {
    let mut answers = 0;
    while !done.load(Ordering::SeqCst) {
        let tag = answered(entrance, may_reset).await.tag();
        assert!(["a", "b"].contains(&tag.as_str()));
        answers += 1;
    }
    answers
}

/// Connects again where the provider may have reset the connection unserved.
async fn answered(entrance: SocketAddr, may_reset: bool) -> Answer {
    soon("an answer in the end", async {
        loop {
            match try_send(entrance, get("a.example.com", "/")).await {
                Some(answer) => return answer,
                None => assert!(may_reset, "a connection was reset"),
            }
        }
    })
    .await
}

/// The answer is JSON that names the route and the upstream's address.
pub async fn a_dead_upstream_is_answered_502_and_named(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let dead = dead_address().await;
    fixture.apply([route("broken-one", "a.example.com", dead)]).await;
    let answer = send(entrance, get("a.example.com", "/")).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.headers["content-type"], "application/json");
    let body = answer.json();
    assert_eq!((&body["code"], &body["route"]), (&502.into(), &"broken-one".into()));
    assert_eq!(body["upstream"], dead.to_string());
}

/// A failure is not remembered.
pub async fn an_upstream_that_comes_back_is_used_at_once(fixture: Fixture) {
    let Some(entrance) = fixture.entrance() else { return };
    let dead = dead_address().await;
    fixture.apply([route("a", "a.example.com", dead)]).await;
    for _ in 0..3 {
        assert_eq!(send(entrance, get("a.example.com", "/")).await.status, StatusCode::BAD_GATEWAY);
    }
    let _back = TestUpstream::start_at("back", dead).await;
    assert_eq!(send(entrance, get("a.example.com", "/")).await.tag(), "back");
}
