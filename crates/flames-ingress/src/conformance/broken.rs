//! A recorder that breaks one promise: the proof that the suite can fail. What a data path can get wrong is
//! shown with a sabotaged built-in proxy, in that adapter's tests.

use crate::{Applied, Capabilities, IngressProvider, MemoryIngress, Result, RouteId, RouteSet, Url};
use async_trait::async_trait;
use std::net::SocketAddr;

/// Records routes, with one flaw.
#[derive(Debug)]
pub struct BrokenIngress {
    inner: MemoryIngress,
    flaw: Flaw,
}

/// What is wrong with a [`BrokenIngress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    None,
    /// The limits of routes with a prefix are lost.
    ForgetsLimits,
    /// A set that is in force is reported as added again.
    ReportsEveryApplyAsChange,
    /// Removed routes are not reported.
    HidesRemovals,
    /// Routes that are not in the new set stay.
    KeepsOldRoutes,
    /// Routes are written one after another.
    AppliesRouteByRoute,
    /// Only the first thousand routes are kept.
    TruncatesAtAThousand,
    /// The URL is that of the host, whatever the prefix.
    ForgetsThePathInUrls,
    /// A wildcard is given as if it were a host.
    GivesWildcardUrls,
}

impl Flaw {
    /// Each flaw and the promise that catches it.
    pub const CAUGHT_BY: &[(Self, &str)] = &[
        (Self::ForgetsLimits, "apply_of_a_set_is_listed_by_routes"),
        (Self::ReportsEveryApplyAsChange, "apply_of_the_same_set_twice_changes_nothing"),
        (Self::HidesRemovals, "apply_names_what_was_added_changed_and_removed"),
        (Self::KeepsOldRoutes, "apply_of_the_empty_set_removes_all_routes"),
        (Self::AppliesRouteByRoute, "concurrent_applies_leave_exactly_one_of_the_sets"),
        (Self::TruncatesAtAThousand, "ten_thousand_routes_are_applied_and_listed"),
        (Self::ForgetsThePathInUrls, "url_of_a_route_names_its_host_and_path"),
        (Self::GivesWildcardUrls, "url_of_an_unknown_or_wildcard_route_is_none"),
    ];
}

impl BrokenIngress {
    /// A recorder with `flaw`.
    pub fn new(flaw: Flaw) -> Self {
        Self { inner: MemoryIngress::new(), flaw }
    }

    /// The set that is written in place of the desired one.
    async fn spoiled(&self, desired: &RouteSet) -> Result<RouteSet> {
        let kept = match self.flaw {
            Flaw::KeepsOldRoutes => self.inner.routes().await?,
            _ => RouteSet::default(),
        };
        let limit = if self.flaw == Flaw::TruncatesAtAThousand { 1000 } else { usize::MAX };
        let old = kept.iter().filter(|route| desired.get(&route.id).is_none());
        let all = desired.iter().chain(old).take(limit).cloned();
        let forget = self.flaw == Flaw::ForgetsLimits;
        RouteSet::new(all.map(|mut route| {
            if forget && !route.path_prefix.is_root() {
                route.limits = crate::Limits::default();
            }
            route
        }))
    }

    async fn apply_route_by_route(&self, desired: &RouteSet) -> Result<Applied> {
        let before = self.inner.routes().await?;
        for route in desired.iter() {
            tokio::task::yield_now().await;
            let now = self.inner.routes().await?;
            let grown = now.iter().filter(|old| old.id != route.id).chain([route]).cloned();
            self.inner.apply(&RouteSet::new(grown)?).await?;
        }
        Ok(before.difference(desired))
    }
}

#[async_trait]
impl IngressProvider for BrokenIngress {
    fn adapter(&self) -> &'static str {
        "broken"
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn apply(&self, desired: &RouteSet) -> Result<Applied> {
        if self.flaw == Flaw::AppliesRouteByRoute {
            return self.apply_route_by_route(desired).await;
        }
        let applied = self.inner.apply(&self.spoiled(desired).await?).await?;
        Ok(match self.flaw {
            Flaw::ReportsEveryApplyAsChange => RouteSet::default().difference(desired),
            Flaw::HidesRemovals => Applied { removed: Vec::new(), ..applied },
            _ => applied,
        })
    }

    async fn routes(&self) -> Result<RouteSet> {
        self.inner.routes().await
    }

    async fn url(&self, id: &RouteId) -> Result<Option<Url>> {
        let url = self.inner.url(id).await?;
        Ok(match (self.flaw, url) {
            (Flaw::ForgetsThePathInUrls, Some(mut url)) => {
                url.set_path("/");
                Some(url)
            }
            (Flaw::GivesWildcardUrls, None) => Url::parse("http://star.example.com/").ok(),
            (_, url) => url,
        })
    }

    fn entrance(&self) -> Result<SocketAddr> {
        self.inner.entrance()
    }
}
