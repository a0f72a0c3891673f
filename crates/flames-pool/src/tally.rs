//! What happened in a pool, counted: from it comes the [`PoolStatus`].

use crate::{
    Candidate, Failures, LastFailure, MemberView, Millis, Plan, PoolConfig, PoolStatus, PoolView, Quantiles,
    Reason,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Creates, hand-outs and ages that quantiles and the hit rate are taken of.
const WINDOW: usize = 500;

/// Counts the events of one pool. Tell it each as it happens.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    hits: u64,
    misses: u64,
    recent: VecDeque<bool>,
    waits_ms: VecDeque<f64>,
    ages_ms: VecDeque<f64>,
    refills: u64,
    retired: BTreeMap<Reason, u64>,
    failures: u64,
    last_error: Option<(Millis, String)>,
}

impl Tally {
    /// A create got a member of this age, after this wait.
    pub fn hit(&mut self, wait: Duration, age: Duration) {
        self.hits += 1;
        push(&mut self.recent, true);
        push(&mut self.waits_ms, millis(wait));
        push(&mut self.ages_ms, millis(age));
    }

    /// A create found no member.
    pub fn missed(&mut self) {
        self.misses += 1;
        push(&mut self.recent, false);
    }

    /// A member became ready.
    pub fn refilled(&mut self) {
        self.refills += 1;
    }

    /// A member was ended.
    pub fn retired(&mut self, reason: Reason) {
        *self.retired.entry(reason).or_default() += 1;
    }

    /// A member could not be made.
    pub fn failed(&mut self, now: Millis, error: String) {
        self.failures += 1;
        self.last_error = Some((now, error));
    }

    /// Share of hits among the recent creates, 0 to 1; `None` before the first.
    pub fn hit_rate(&self) -> Option<f64> {
        let hits = self.recent.iter().filter(|hit| **hit).count();
        (!self.recent.is_empty()).then(|| hits as f64 / self.recent.len() as f64)
    }

    /// The pool as people and programs see it; `plan` is the newest one.
    pub fn status(&self, now: Millis, config: &PoolConfig, view: &PoolView, plan: &Plan) -> PoolStatus {
        let may_go = |one: &&MemberView| Candidate::of(one, &view.build).is_some();
        let ready: Vec<_> = view.members.iter().filter(may_go).collect();
        let ages = ready.iter().map(|one| millis(now.since(one.started_at))).collect();
        PoolStatus {
            config: config.clone(),
            target: plan.target,
            by_tier: counts(view.members.iter().map(|one| one.tier)),
            by_state: counts(view.members.iter().map(|one| one.state)),
            ready: u32::try_from(ready.len()).unwrap_or(u32::MAX),
            live: view.load.live,
            hits: self.hits,
            misses: self.misses,
            hit_rate: self.hit_rate(),
            wait_ms: quantiles(&self.waits_ms),
            age_at_handout_ms: quantiles(&self.ages_ms),
            ages_ms: Quantiles::of(ages),
            refills: self.refills,
            retired: self.retired.clone(),
            failures: self.failures,
            last_failure: self.last_failure(now, &view.failures),
            arrivals_per_second: view.load.arrivals_per_second,
        }
    }

    fn last_failure(&self, now: Millis, failures: &Failures) -> Option<LastFailure> {
        let (at, error) = self.last_error.as_ref()?;
        let next_try = failures.next_try_at().unwrap_or(now);
        Some(LastFailure {
            error: error.clone(),
            ago_ms: Millis::from(now.since(*at)).0,
            in_a_row: failures.in_a_row(),
            next_try_in_ms: Millis::from(next_try.since(now)).0,
        })
    }
}

fn push<T>(window: &mut VecDeque<T>, value: T) {
    if window.len() == WINDOW {
        window.pop_front();
    }
    window.push_back(value);
}

fn quantiles(window: &VecDeque<f64>) -> Quantiles {
    Quantiles::of(window.iter().copied().collect())
}

fn counts<T: Ord>(all: impl Iterator<Item = T>) -> BTreeMap<T, u32> {
    let mut counts = BTreeMap::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    counts
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
