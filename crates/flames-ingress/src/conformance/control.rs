//! Promises about the set itself.

use super::{Fixture, route};
use crate::{MAX_ROUTES, PathPrefix, Route, RouteId, RouteSet};
use std::net::SocketAddr;

const UPSTREAM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

fn set(routes: impl IntoIterator<Item = Route>) -> RouteSet {
    RouteSet::new(routes).expect("the case's routes are valid")
}

fn numbered(ids: std::ops::Range<usize>) -> RouteSet {
    set(ids.map(|n| route(&format!("r{n}"), &format!("h{n}.example.com"), UPSTREAM)))
}

fn id(text: &str) -> RouteId {
    RouteId::parse(text).expect("the case's id is valid")
}

/// What is in force is what was applied, with every field.
pub async fn apply_of_a_set_is_listed_by_routes(fixture: Fixture) {
    let api = PathPrefix::parse("/api/v1.0").expect("the case's prefix is valid");
    let desired = set([
        route("plain", "a.example.com", UPSTREAM),
        route("prefixed", "a.example.com", UPSTREAM).under(api),
        route("wild.card_1", "*.example.com", UPSTREAM).limited_to(crate::Limits::default()),
        route("six", "six.example.com", "[::1]:8080".parse().expect("the case's address is valid")),
    ]);
    assert!(fixture.provider.routes().await.expect("routes are listed").is_empty());
    fixture.provider.apply(&desired).await.expect("the set is applied");
    assert_eq!(fixture.provider.routes().await.expect("routes are listed"), desired);
}

/// The second time nothing is added, changed or removed.
pub async fn apply_of_the_same_set_twice_changes_nothing(fixture: Fixture) {
    let desired = numbered(0..20);
    assert!(!fixture.provider.apply(&desired).await.expect("the set is applied").is_unchanged());
    let again = fixture.provider.apply(&desired).await.expect("the set is applied again");
    assert!(again.is_unchanged(), "{again:?}");
    assert_eq!(fixture.provider.routes().await.expect("routes are listed"), desired);
}

/// The answer says what differs from before.
pub async fn apply_names_what_was_added_changed_and_removed(fixture: Fixture) {
    let old = [("kept", "k.example.com"), ("moved", "old.example.com"), ("gone", "g.example.com")];
    let new = [("kept", "k.example.com"), ("moved", "new.example.com"), ("fresh", "f.example.com")];
    let routes = |list: [(&str, &str); 3]| set(list.map(|(id, host)| route(id, host, UPSTREAM)));
    fixture.provider.apply(&routes(old)).await.expect("the set is applied");
    let applied = fixture.provider.apply(&routes(new)).await.expect("the set is applied");
    assert_eq!(
        (applied.added, applied.changed, applied.removed),
        (vec![id("fresh")], vec![id("moved")], vec![id("gone")])
    );
}

/// An empty set is a set like any other.
pub async fn apply_of_the_empty_set_removes_all_routes(fixture: Fixture) {
    fixture.provider.apply(&numbered(0..5)).await.expect("the set is applied");
    let applied = fixture.provider.apply(&RouteSet::default()).await.expect("the empty set is applied");
    assert_eq!(applied.removed.len(), 5);
    assert!(fixture.provider.routes().await.expect("routes are listed").is_empty());
}

/// Of sets applied at once one is in force at the end, never a mix. A provider may refuse one with `Conflict`.
pub async fn concurrent_applies_leave_exactly_one_of_the_sets(fixture: Fixture) {
    let sets: Vec<_> = (0..8).map(|n| numbered(n * 5..n * 5 + 5)).collect();
    let mut applies = tokio::task::JoinSet::new();
    for desired in sets.clone() {
        let provider = fixture.provider.clone();
        applies.spawn(async move { provider.apply(&desired).await });
    }
    let outcomes = applies.join_all().await;
    assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), crate::ErrorKind::Conflict, "{error}");
    }
    let actual = fixture.provider.routes().await.expect("routes are listed");
    assert!(sets.contains(&actual), "a mix of sets is in force: {actual:?}");
}

/// As many routes as a set may hold.
pub async fn ten_thousand_routes_are_applied_and_listed(fixture: Fixture) {
    let desired = numbered(0..MAX_ROUTES);
    let applied = fixture.provider.apply(&desired).await.expect("the set is applied");
    assert_eq!(applied.added.len(), MAX_ROUTES);
    assert_eq!(fixture.provider.routes().await.expect("routes are listed"), desired);
}

/// A client that goes there reaches the route.
pub async fn url_of_a_route_names_its_host_and_path(fixture: Fixture) {
    let prefix = PathPrefix::parse("/api").expect("the case's prefix is valid");
    fixture.apply([route("one", "a.example.com", UPSTREAM).under(prefix)]).await;
    let url =
        fixture.provider.url(&id("one")).await.expect("the provider answers").expect("the route has a URL");
    assert_eq!((url.host_str(), url.path()), (Some("a.example.com"), "/api"));
    assert!(["http", "https"].contains(&url.scheme()));
    if let Ok(entrance) = fixture.provider.entrance() {
        assert_eq!(url.port_or_known_default(), Some(entrance.port()));
    }
}

/// No route, no URL; a wildcard has no single one.
pub async fn url_of_an_unknown_or_wildcard_route_is_none(fixture: Fixture) {
    fixture.apply([route("wild", "*.example.com", UPSTREAM)]).await;
    for name in ["wild", "unknown"] {
        assert_eq!(fixture.provider.url(&id(name)).await.expect("the provider answers"), None);
    }
}
