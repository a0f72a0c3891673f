//! How large a pool should be at this moment: by use, by arrivals, and without flapping.

use crate::{Autoscale, ByArrivals, ByUse, Millis, PoolConfig, Tier, Tiers};
use std::time::Duration;

/// What the pool is asked for at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Sandboxes that were handed out or made for this pool's template and size, and have not ended.
    pub live: u32,
    /// Estimate of creates per second: [`ArrivalRate::per_second`].
    pub arrivals_per_second: f64,
}

/// What scaling remembers from one decision to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    target: u32,
    /// The size that use alone asks for, and when it made its last step.
    by_use: u32,
    stepped_at: Millis,
    /// Since when the target is larger than what is wanted, and the most that was wanted since.
    too_large: Option<(Millis, u32)>,
}

impl Scale {
    /// A pool at its base size.
    pub fn at_base(config: &PoolConfig, now: Millis) -> Self {
        let base = clamped(config, config.tiers.total());
        Self { target: base, by_use: base, stepped_at: now, too_large: None }
    }

    /// Members wanted, all tiers together.
    pub fn target(&self) -> u32 {
        self.target
    }
}

/// The next target: at once to more, to fewer only after the pool was too large for the whole cool-down, and then to
/// the most that was wanted in that time. Always within minimum and maximum.
///
/// Under a load that does not change the target may first grow and then shrink, but never grows after it shrank.
pub fn autoscale(now: Millis, config: &PoolConfig, load: &Load, last: &Scale) -> Scale {
    let stepped = step_by_use(now, config, load, last);
    let wanted = wanted(config, load, &stepped);
    settle(now, &config.autoscale, wanted, Scale { target: clamped(config, stepped.target), ..stepped })
}

/// How a total is spread over the tiers: in the proportion of the base sizes, and exactly as they are at the base.
/// A larger total has at least as many of each tier. Without base sizes all of it is running members.
pub fn spread(base: Tiers, total: u32) -> Tiers {
    if base.total() == 0 {
        return Tiers { running: total, ..Tiers::default() };
    }
    // Webster's method, seat by seat: the only kind of rounding that never takes a member away from a tier when
    // the total grows.
    let mut spread = Tiers::default();
    for _ in 0..total {
        let share = |tier: Tier| f64::from(base.of(tier)) / (f64::from(spread.of(tier)) + 0.5);
        let next = Tier::ALL.into_iter().rev().max_by(|a, b| share(*a).total_cmp(&share(*b)));
        *spread.of_mut(next.unwrap_or(Tier::Running)) += 1;
    }
    spread
}

fn step_by_use(now: Millis, config: &PoolConfig, load: &Load, last: &Scale) -> Scale {
    let Some(by_use) = &config.autoscale.by_use else {
        return *last;
    };
    let size = clamped(config, last.by_use);
    if now.since(last.stepped_at) < Duration::from_secs(by_use.step_every_s) {
        return Scale { by_use: size, ..*last };
    }
    let next = clamped(config, by_use.step(load.live, size));
    let stepped_at = if next == size { last.stepped_at } else { now };
    Scale { by_use: next, stepped_at, ..*last }
}

impl ByUse {
    /// One step from `size`, if the use asks for one. It does not shrink to where it would have to grow again.
    fn step(&self, live: u32, size: u32) -> u32 {
        if share_in_use(live, size) >= self.grow_above {
            return size.saturating_add(self.grow_by);
        }
        let smaller = size.saturating_sub(self.shrink_by);
        let may_shrink = share_in_use(live, size) <= self.shrink_below;
        if may_shrink && share_in_use(live, smaller) < self.grow_above { smaller } else { size }
    }
}

fn share_in_use(live: u32, size: u32) -> f64 {
    if live == 0 { 0.0 } else { f64::from(live) / (f64::from(live) + f64::from(size)) }
}

impl ByArrivals {
    /// Members that should be ready for what is expected to arrive while new ones are being made.
    fn forecast(&self, arrivals_per_second: f64) -> u32 {
        let expected = (arrivals_per_second * self.lead_time_s).max(0.0);
        let members = (expected + self.deviations * expected.sqrt()).ceil() + f64::from(self.headroom);
        saturating_u32(members)
    }
}

fn wanted(config: &PoolConfig, load: &Load, scale: &Scale) -> u32 {
    let by_use = config.autoscale.by_use.as_ref().map(|_| scale.by_use);
    let by_arrivals = config.autoscale.by_arrivals.as_ref();
    let forecast = by_arrivals.map(|by_arrivals| by_arrivals.forecast(load.arrivals_per_second));
    clamped(config, by_use.max(forecast).unwrap_or_else(|| config.tiers.total()))
}

fn settle(now: Millis, autoscale: &Autoscale, wanted: u32, last: Scale) -> Scale {
    if wanted >= last.target {
        return Scale { target: wanted, too_large: None, ..last };
    }
    let (since, most) = last.too_large.unwrap_or((now, wanted));
    let most = most.max(wanted);
    if now.since(since) < Duration::from_secs(autoscale.cool_down_s) {
        return Scale { too_large: Some((since, most)), ..last };
    }
    let too_large = (wanted < most).then_some((now, wanted));
    Scale { target: most, too_large, ..last }
}

fn clamped(config: &PoolConfig, members: u32) -> u32 {
    members.max(config.minimum).min(config.maximum)
}

fn saturating_u32(value: f64) -> u32 {
    // `as` saturates, and makes 0 of what is no number.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let value = value as u32;
    value
}

/// An exponentially weighted rate of events: each counts half after one half-life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArrivalRate {
    half_life_s: f64,
    per_second: f64,
    at: Millis,
}

impl ArrivalRate {
    /// Nothing has arrived yet. `half_life_s` is in seconds and above 0; see [`ByArrivals::half_life_s`].
    pub fn new(half_life_s: f64) -> Self {
        Self { half_life_s: half_life_s.max(0.001), per_second: 0.0, at: Millis(0) }
    }

    /// As the pool's configuration asks; 30 s where it does not scale by arrivals.
    pub fn of(config: &PoolConfig) -> Self {
        Self::new(config.autoscale.by_arrivals.as_ref().map_or(30.0, |by_arrivals| by_arrivals.half_life_s))
    }

    /// One event, now.
    pub fn arrived(&mut self, now: Millis) {
        self.per_second = self.per_second(now) + std::f64::consts::LN_2 / self.half_life_s;
        self.at = now.max(self.at);
    }

    /// The estimate, in events per second.
    pub fn per_second(&self, now: Millis) -> f64 {
        self.per_second * (-now.since(self.at).as_secs_f64() / self.half_life_s).exp2()
    }
}
