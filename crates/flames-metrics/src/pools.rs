//! Pools at a scrape, as their status says: the pool counts, nobody counts a second time.

use crate::names::{MOST, OTHER};
use crate::sample::PoolCounts;
use flames_pool::{MemberState, PoolStatus, Quantiles, Reason, Tier};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// The pools as last told, one per template.
#[derive(Debug, Default)]
pub(crate) struct Pools(Mutex<Vec<PoolStatus>>);

impl Pools {
    pub(crate) fn set(&self, pools: Vec<PoolStatus>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pools;
    }

    /// How the pool of a template chooses, if there is one.
    pub(crate) fn strategy_of(&self, template: &str) -> Option<&'static str> {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.iter().find(|pool| pool.config.template == template)?;
        Some(pool.config.strategy.name())
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, PoolCounts> {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pools.iter().map(|pool| (pool.config.template.clone(), pool.into())).collect()
    }
}

impl Collector for Pools {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Whoever configures more pools than that sees the first of them.
        let pools: Vec<_> =
            pools.into_iter().filter(|pool| pool.config.template != OTHER).take(MOST).collect();
        Writer { encoder, pools }.write()
    }
}

struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
    pools: Vec<PoolStatus>,
}

/// A second label with its value, and the number.
type Point = (Option<(&'static str, &'static str)>, f64);

impl Writer<'_> {
    fn write(mut self) -> fmt::Result {
        self.members()?;
        self.gauge("flames_pool_ready_members", "Members that could be handed out now", None, |pool| {
            vec![(None, pool.ready.into())]
        })?;
        self.gauge(
            "flames_pool_live_sandboxes",
            "Sandboxes of the pool's template and size that run",
            None,
            |pool| vec![(None, pool.live.into())],
        )?;
        self.counters()?;
        self.times()?;
        self.gauge("flames_pool_arrivals_per_second", "Estimate of the rate of creates", None, |pool| {
            vec![(None, pool.arrivals_per_second)]
        })
    }

    fn members(&mut self) -> fmt::Result {
        self.gauge("flames_pool_members", "Members by tier", None, |pool| {
            let count = |tier| pool.by_tier.get(tier).copied().unwrap_or_default();
            TIERS.iter().map(|tier| (Some(("tier", tier.name())), count(tier).into())).collect()
        })?;
        self.gauge("flames_pool_state_members", "Members by state", None, |pool| {
            let count = |state| pool.by_state.get(state).copied().unwrap_or_default();
            MemberState::ALL
                .iter()
                .map(|state| (Some(("state", state.name())), count(state).into()))
                .collect()
        })?;
        self.gauge("flames_pool_target_members", "Members that are wanted, by tier", None, |pool| {
            let target = &pool.target;
            let wanted = [target.running, target.paused, target.prepared];
            TIERS
                .iter()
                .zip(wanted)
                .map(|(tier, wanted)| (Some(("tier", tier.name())), wanted.into()))
                .collect()
        })
    }

    fn counters(&mut self) -> fmt::Result {
        let by_strategy = |pool: &PoolStatus| Some(("strategy", pool.config.strategy.name()));
        let help = "Creates that got a member, by the strategy that chose it";
        self.counter("flames_pool_hits", help, |pool| vec![(by_strategy(pool), pool.hits)])?;
        let help = "Creates that found no member";
        self.counter("flames_pool_misses", help, |pool| vec![(by_strategy(pool), pool.misses)])?;
        self.counter("flames_pool_refills", "Members that were made", |pool| vec![(None, pool.refills)])?;
        self.counter("flames_pool_failures", "Members whose making failed", |pool| {
            vec![(None, pool.failures)]
        })?;
        self.counter("flames_pool_retired_members", "Members that were retired, by reason", |pool| {
            let count = |reason| pool.retired.get(reason).copied().unwrap_or_default();
            Reason::ALL.iter().map(|reason| (Some(("reason", reason.name())), count(reason))).collect()
        })
    }

    fn times(&mut self) -> fmt::Result {
        let help = "How long recent creates waited for their member";
        self.gauge("flames_pool_wait", help, Some(&Unit::Seconds), |pool| points(&pool.wait_ms))?;
        let help = "How old members were when they were handed out lately";
        self.gauge("flames_pool_handout_age", help, Some(&Unit::Seconds), |pool| {
            points(&pool.age_at_handout_ms)
        })?;
        let help = "How old the members are that are ready now";
        self.gauge("flames_pool_member_age", help, Some(&Unit::Seconds), |pool| points(&pool.ages_ms))
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        points: impl Fn(&PoolStatus) -> Vec<Point>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for pool in &self.pools {
            for (label, value) in points(pool) {
                let labels = labels(pool, label);
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        points: impl Fn(&PoolStatus) -> Vec<(Option<(&'static str, &'static str)>, u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for pool in &self.pools {
            for (label, value) in points(pool) {
                let labels = labels(pool, label);
                ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Every tier, the readiest first.
pub const TIERS: [Tier; 3] = [Tier::Running, Tier::Paused, Tier::Prepared];

fn labels<'a>(
    pool: &'a PoolStatus,
    label: Option<(&'static str, &'static str)>,
) -> Vec<(&'static str, &'a str)> {
    [("template", pool.config.template.as_str())].into_iter().chain(label).collect()
}

/// Not the label `quantile`: that one is a summary's.
fn points(times: &Quantiles) -> Vec<Point> {
    let at = [("p50", times.p50), ("p90", times.p90), ("p99", times.p99), ("max", times.max)];
    at.map(|(at, ms)| (Some(("at", at)), ms / 1000.0)).to_vec()
}
