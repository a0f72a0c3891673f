//! Which target serves a host and a path. A table never changes: a new set makes a new one.

use crate::pool::Pool;
use flames_ingress::{Limits, PathPrefix, Route, RouteId, RouteSet, Upstream};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Routes ordered for lookup.
#[derive(Debug, Default)]
pub(crate) struct Table {
    exact: HashMap<String, Vec<Place>>,
    /// By what stands behind `*.`.
    wildcard: HashMap<String, Vec<Place>>,
    by_id: HashMap<RouteId, Arc<Target>>,
}

/// A path prefix of a host; longer ones stand first.
#[derive(Debug)]
struct Place {
    prefix: PathPrefix,
    target: Arc<Target>,
}

/// Where requests of a route go.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) id: RouteId,
    pub(crate) upstream: Upstream,
    pub(crate) limits: Limits,
    pub(crate) pool: Arc<Pool>,
    pub(crate) tunnels: Arc<AtomicUsize>,
}

impl Table {
    /// The table of `desired`. Kept connections and counts of routes that stay are taken over from `old`.
    pub(crate) fn succeeding(old: &Self, desired: &RouteSet) -> Self {
        let mut table = Self::default();
        for route in desired.iter() {
            let target = Arc::new(Target::succeeding(old.by_id.get(&route.id), route));
            let (map, name) = match route.host.wildcard_suffix() {
                Some(suffix) => (&mut table.wildcard, suffix),
                None => (&mut table.exact, route.host.as_str()),
            };
            let prefix = route.path_prefix.clone();
            map.entry(name.to_owned()).or_default().push(Place { prefix, target: Arc::clone(&target) });
            table.by_id.insert(route.id.clone(), target);
        }
        for places in table.exact.values_mut().chain(table.wildcard.values_mut()) {
            places.sort_by_key(|place| std::cmp::Reverse(place.prefix.as_str().len()));
        }
        table
    }

    /// The target of a request; `host` may be of any case and without port.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Arc<Target>> {
        let host = canonical(host);
        let exact = self.exact.get(host.as_ref()).and_then(|places| longest(places, path));
        exact.or_else(|| {
            let (label, suffix) = host.split_once('.')?;
            let places = self.wildcard.get(suffix).filter(|_| !label.is_empty())?;
            longest(places, path)
        })
    }

    pub(crate) fn tunnels(&self, id: &RouteId) -> usize {
        self.by_id.get(id).map_or(0, |target| target.tunnels.load(Ordering::Relaxed))
    }
}

impl Target {
    fn succeeding(old: Option<&Arc<Self>>, route: &Route) -> Self {
        let same_upstream = old.filter(|old| old.upstream == route.upstream);
        Self {
            id: route.id.clone(),
            upstream: route.upstream.clone(),
            limits: route.limits,
            pool: same_upstream.map(|old| Arc::clone(&old.pool)).unwrap_or_default(),
            tunnels: old.map(|old| Arc::clone(&old.tunnels)).unwrap_or_default(),
        }
    }
}

fn longest<'a>(places: &'a [Place], path: &str) -> Option<&'a Arc<Target>> {
    places.iter().find(|place| place.prefix.covers(path)).map(|place| &place.target)
}

/// Lower case, without the root's dot. Allocates for unusual spellings only.
fn canonical(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_ingress::Host;
    use proptest::prelude::*;

    /// The contract, word for word: an exact host before a wildcard, then the longest prefix.
    fn oracle<'a>(set: &'a RouteSet, host: &str, path: &str) -> Option<&'a Route> {
        let fitting = set.iter().filter(|route| route.host.covers(host) && route.path_prefix.covers(path));
        fitting.max_by_key(|route| (route.host.wildcard_suffix().is_none(), route.path_prefix.as_str().len()))
    }

    fn sets() -> impl Strategy<Value = RouteSet> {
        let hosts = prop::sample::select(vec!["a.x", "b.x", "*.x", "*.a.x", "x"]);
        let prefixes = prop::sample::select(vec!["/", "/p", "/p/q", "/pq"]);
        prop::collection::btree_set((hosts, prefixes), 0..12).prop_map(|places| {
            let routes = places.into_iter().enumerate().map(|(n, (host, prefix))| {
                let id = RouteId::parse(&format!("r{n}")).unwrap();
                let upstream = Upstream::Tcp(([127, 0, 0, 1], 1).into());
                Route::new(id, Host::parse(host).unwrap(), upstream).under(PathPrefix::parse(prefix).unwrap())
            });
            RouteSet::new(routes).unwrap()
        })
    }

    proptest! {
        #[test]
        fn lookup_finds_what_the_contract_says(
            set in sets(),
            host in prop::sample::select(vec!["a.x", "b.x", "c.x", "c.a.x", "x", "y", ".x", "d.c.a.x"]),
            path in prop::sample::select(vec!["/", "/p", "/p/", "/p/q", "/p/q/r", "/pq", "/pqr", "*", ""]),
        ) {
            let table = Table::succeeding(&Table::default(), &set);
            let found = table.find(host, path).map(|target| &target.id);
            prop_assert_eq!(found, oracle(&set, host, path).map(|route| &route.id));
        }
    }

    #[test]
    fn kept_connections_outlive_a_change_of_limits_and_not_one_of_the_upstream() {
        let set = |port: u16, bytes: u64| {
            let limits = Limits { max_body_bytes: bytes, ..Limits::default() };
            let (id, host) = (RouteId::parse("r").unwrap(), Host::parse("a.x").unwrap());
            RouteSet::new([
                Route::new(id, host, Upstream::Tcp(([127, 0, 0, 1], port).into())).limited_to(limits)
            ])
            .unwrap()
        };
        let pool = |table: &Table| Arc::clone(&table.find("A.X.", "/").unwrap().pool);
        let first = Table::succeeding(&Table::default(), &set(1, 1));
        let other_limits = Table::succeeding(&first, &set(1, 2));
        let other_upstream = Table::succeeding(&first, &set(2, 1));
        assert!(Arc::ptr_eq(&pool(&first), &pool(&other_limits)));
        assert!(!Arc::ptr_eq(&pool(&first), &pool(&other_upstream)));
    }
}
