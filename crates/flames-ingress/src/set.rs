//! A set of routes that is valid as a whole, and what differs between two of them.

use crate::{Host, Limits, PathPrefix, Route, RouteId, Upstream};
use flames_provider::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Most routes in one set.
pub const MAX_ROUTES: usize = 10_000;

/// Routes with distinct ids and distinct pairs of host and path prefix, ordered by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Route>", into = "Vec<Route>")]
pub struct RouteSet(BTreeMap<RouteId, Route>);

/// What an [`crate::IngressProvider::apply`] changed, each list ordered by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Routes that were not there before.
    pub added: Vec<RouteId>,
    /// Routes that were there and are different now.
    pub changed: Vec<RouteId>,
    /// Routes that are gone.
    pub removed: Vec<RouteId>,
}

impl RouteSet {
    /// Checks routes and makes them a set.
    ///
    /// # Errors
    /// `InvalidInput` that names the route and the field: more than [`MAX_ROUTES`] routes, an id twice, a
    /// host and path prefix twice (both routes are named), an upstream with port 0, a limit of 0 or a
    /// timeout over [`Limits::MAX_TIMEOUT`].
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Result<Self> {
        let mut by_id = BTreeMap::new();
        for route in routes {
            check(&route)?;
            if let Some(earlier) = by_id.insert(route.id.clone(), route) {
                return Err(invalid(&earlier.id, "id: two routes have this id".to_owned()));
            }
            if by_id.len() > MAX_ROUTES {
                let detail = format!("a set holds at most {MAX_ROUTES} routes");
                return Err(Error::new(ErrorKind::InvalidInput, "route set", "").detail(detail));
            }
        }
        refuse_shared_places(&by_id)?;
        Ok(Self(by_id))
    }

    /// One route.
    pub fn get(&self, id: &RouteId) -> Option<&Route> {
        self.0.get(id)
    }

    /// All routes, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.values()
    }

    /// How many routes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What must change so that this set becomes `desired`.
    pub fn difference(&self, desired: &Self) -> Applied {
        let mut applied = Applied::default();
        for (id, route) in &desired.0 {
            match self.0.get(id) {
                None => applied.added.push(id.clone()),
                Some(old) if old != route => applied.changed.push(id.clone()),
                Some(_) => {}
            }
        }
        applied.removed = self.0.keys().filter(|id| !desired.0.contains_key(*id)).cloned().collect();
        applied
    }
}

impl Applied {
    /// Whether the set was in force already.
    pub fn is_unchanged(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

fn check(route: &Route) -> Result<()> {
    let Limits { max_body_bytes, header_timeout, idle_timeout } = route.limits;
    let Upstream::Tcp(address) = &route.upstream;
    if address.port() == 0 {
        return Err(invalid(&route.id, format!("upstream: `{address}` has port 0")));
    }
    if max_body_bytes == 0 {
        return Err(invalid(&route.id, "limits.max_body_bytes: must be at least 1".to_owned()));
    }
    check_timeout(&route.id, "header_timeout", header_timeout)?;
    check_timeout(&route.id, "idle_timeout", idle_timeout)
}

fn check_timeout(id: &RouteId, field: &str, timeout: Duration) -> Result<()> {
    if timeout < Duration::from_millis(1) || timeout > Limits::MAX_TIMEOUT {
        let longest = Limits::MAX_TIMEOUT.as_secs();
        return Err(invalid(id, format!("limits.{field}: must be between 1 ms and {longest} s")));
    }
    Ok(())
}

/// Two routes for one place would make the answer depend on their order.
fn refuse_shared_places(routes: &BTreeMap<RouteId, Route>) -> Result<()> {
    let mut places: HashMap<(&Host, &PathPrefix), &RouteId> = HashMap::with_capacity(routes.len());
    for route in routes.values() {
        if let Some(first) = places.insert((&route.host, &route.path_prefix), &route.id) {
            let (host, prefix) = (&route.host, &route.path_prefix);
            return Err(invalid(
                &route.id,
                format!("host: `{host}` with path prefix `{prefix}` belongs to route `{first}` already"),
            ));
        }
    }
    Ok(())
}

fn invalid(id: &RouteId, detail: String) -> Error {
    Error::new(ErrorKind::InvalidInput, "route", id.as_str()).detail(detail)
}

impl TryFrom<Vec<Route>> for RouteSet {
    type Error = Error;
    fn try_from(routes: Vec<Route>) -> Result<Self> {
        Self::new(routes)
    }
}

impl From<RouteSet> for Vec<Route> {
    fn from(set: RouteSet) -> Self {
        set.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(id: &str, host: &str, port: u16) -> Route {
        let upstream = Upstream::Tcp(([127, 0, 0, 1], port).into());
        Route::new(RouteId::parse(id).unwrap(), Host::parse(host).unwrap(), upstream)
    }

    fn refusal(routes: Vec<Route>) -> String {
        let error = RouteSet::new(routes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string()
    }

    #[test]
    fn a_host_twice_is_refused_and_both_routes_are_named() {
        let text = refusal(vec![route("one", "a.com", 1), route("two", "A.com", 2)]);
        assert!(text.contains("`one`") && text.contains("`two`") && text.contains("host: `a.com`"), "{text}");
    }

    #[test]
    fn one_host_with_two_prefixes_is_fine() {
        let api = route("two", "a.com", 2).under(PathPrefix::parse("/api").unwrap());
        assert_eq!(RouteSet::new([route("one", "a.com", 1), api]).unwrap().len(), 2);
    }

    #[test]
    fn an_id_twice_a_port_0_and_bad_limits_are_refused_by_name() {
        assert!(refusal(vec![route("x", "a.com", 1), route("x", "b.com", 1)]).contains("route `x`"));
        assert!(refusal(vec![route("x", "a.com", 0)]).contains("upstream"));
        let limits = [
            ("max_body_bytes", Limits { max_body_bytes: 0, ..Limits::default() }),
            ("header_timeout", Limits { header_timeout: Duration::ZERO, ..Limits::default() }),
            ("idle_timeout", Limits { idle_timeout: Duration::MAX, ..Limits::default() }),
        ];
        for (field, limits) in limits {
            assert!(refusal(vec![route("x", "a.com", 1).limited_to(limits)]).contains(field));
        }
    }

    #[test]
    fn ten_thousand_routes_are_a_set_and_one_more_is_not() {
        let many = |count: usize| (0..count).map(|n| route(&format!("r{n}"), &format!("h{n}.com"), 1));
        assert_eq!(RouteSet::new(many(MAX_ROUTES)).unwrap().len(), MAX_ROUTES);
        assert!(refusal(many(MAX_ROUTES + 1).collect()).contains("10000"));
    }

    fn sets() -> impl Strategy<Value = RouteSet> {
        prop::collection::btree_map(0_u8..20, 1_u16..4, 0..20).prop_map(|ports| {
            let routes =
                ports.into_iter().map(|(n, port)| route(&format!("r{n}"), &format!("h{n}.com"), port));
            RouteSet::new(routes).unwrap()
        })
    }

    proptest! {
        #[test]
        fn the_difference_is_empty_exactly_between_equal_sets(a in sets(), b in sets()) {
            prop_assert!(a.difference(&a).is_unchanged());
            prop_assert_eq!(a.difference(&b).is_unchanged(), a == b);
        }

        #[test]
        fn the_difference_backwards_swaps_added_and_removed(a in sets(), b in sets()) {
            let (there, back) = (a.difference(&b), b.difference(&a));
            prop_assert_eq!((there.added, there.changed, there.removed), (back.removed, back.changed, back.added));
        }

        #[test]
        fn serde_gives_the_same_set_back(a in sets()) {
            let text = serde_json::to_string(&a).unwrap();
            prop_assert_eq!(serde_json::from_str::<RouteSet>(&text).unwrap(), a);
        }
    }
}
