//! How large a pool should be.

use crate::support::any_config;
use flames_pool::{
    ArrivalRate, Autoscale, ByArrivals, ByUse, Load, Millis, PoolConfig, Preset, Scale, Tier, Tiers,
    autoscale, spread,
};
use proptest::prelude::*;

fn by_arrivals(cool_down_s: u64) -> PoolConfig {
    let by_arrivals = ByArrivals { half_life_s: 10.0, lead_time_s: 4.0, deviations: 0.0, headroom: 1 };
    PoolConfig {
        tiers: Tiers { running: 2, paused: 0, prepared: 0 },
        minimum: 1,
        maximum: 50,
        autoscale: Autoscale { by_use: None, by_arrivals: Some(by_arrivals), cool_down_s },
        ..Preset::Minimal.config("mini")
    }
}

fn arriving(per_second: f64) -> Load {
    Load { live: 0, arrivals_per_second: per_second }
}

/// The targets that a load leads to, second by second.
fn targets(config: &PoolConfig, loads: impl IntoIterator<Item = Load>) -> Vec<u32> {
    let mut scale = Scale::at_base(config, Millis(0));
    let step = |(second, load): (u64, Load)| {
        scale = autoscale(Millis(second * 1000), config, &load, &scale);
        scale.target()
    };
    (0..).zip(loads).map(step).collect()
}

#[test]
fn without_scaling_the_target_is_the_base_whatever_the_load() {
    let config = Preset::Minimal.config("mini");
    let load = Load { live: 100, arrivals_per_second: 50.0 };
    assert_eq!(targets(&config, [load; 3]), [2, 2, 2]);
}

#[test]
fn more_arrivals_grow_the_pool_at_once_by_rate_times_lead_time_and_headroom() {
    assert_eq!(targets(&by_arrivals(60), [arriving(2.0)]), [2 * 4 + 1]);
}

#[test]
fn the_pool_shrinks_after_the_cool_down_and_not_before() {
    let config = by_arrivals(60);
    let loads = std::iter::once(arriving(2.0)).chain(std::iter::repeat_n(arriving(0.0), 70));
    let targets = targets(&config, loads);
    let shrunk_after = targets.iter().position(|target| *target < 9);
    assert_eq!((shrunk_after, targets.last()), (Some(61), Some(&1)));
}

#[test]
fn a_peak_within_the_cool_down_is_what_the_pool_shrinks_to() {
    let mut loads = vec![arriving(0.0); 70];
    (loads[0], loads[30]) = (arriving(5.0), arriving(2.0));
    let targets = targets(&by_arrivals(60), loads);
    assert_eq!((targets[0], targets[60], targets[61]), (21, 21, 9));
}

#[test]
fn more_use_grows_the_pool_step_by_step_until_the_use_is_below_the_threshold() {
    let by_use = ByUse { grow_above: 0.8, shrink_below: 0.5, grow_by: 2, shrink_by: 1, step_every_s: 10 };
    let autoscale = Autoscale { by_use: Some(by_use), by_arrivals: None, cool_down_s: 0 };
    let config = PoolConfig { autoscale, ..by_arrivals(0) };
    let targets = targets(&config, [Load { live: 20, arrivals_per_second: 0.0 }; 60]);
    assert_eq!([targets[9], targets[10], targets[20], targets[59]], [2, 4, 6, 6]);
}

#[test]
fn the_rate_of_regular_arrivals_is_estimated_within_a_tenth() {
    let mut rate = ArrivalRate::new(30.0);
    (0..1200).for_each(|count| rate.arrived(Millis(count * 250)));
    let estimate = rate.per_second(Millis(1200 * 250));
    assert!((3.6..4.4).contains(&estimate), "{estimate}");
}

#[test]
fn the_rate_is_half_after_a_half_life_without_arrivals() {
    let mut rate = ArrivalRate::new(30.0);
    rate.arrived(Millis(1000));
    let (now, later) = (rate.per_second(Millis(1000)), rate.per_second(Millis(31_000)));
    assert!((later * 2.0 - now).abs() < 1e-9, "{now} {later}");
}

#[test]
fn arrivals_a_minute_apart_do_not_make_the_pool_flap() {
    let config = Preset::Standard.config("mini");
    let mut rate = ArrivalRate::of(&config);
    let loads: Vec<_> = (0..1800)
        .map(|second| {
            let now = Millis(second * 1000);
            if second % 60 == 0 {
                rate.arrived(now);
            }
            arriving(rate.per_second(now))
        })
        .collect();
    let settled = &targets(&config, loads)[600..];
    assert!(settled.iter().all(|target| target == &settled[0]), "{settled:?}");
}

proptest! {
    #[test]
    fn the_target_is_always_within_minimum_and_maximum(
        config in any_config(),
        loads in proptest::collection::vec((0_u32..1000, 0.0..100.0_f64), 1..200),
    ) {
        let loads = loads.into_iter().map(|(live, arrivals_per_second)| Load { live, arrivals_per_second });
        for target in targets(&config, loads) {
            prop_assert!((config.minimum..=config.maximum).contains(&target));
        }
    }

    #[test]
    fn a_load_that_does_not_change_never_grows_the_pool_after_it_shrank(
        config in any_config(), before in 0_u32..500, live in 0_u32..500, rate in 0.0..50.0_f64,
    ) {
        let earlier = Load { live: before, arrivals_per_second: rate * 2.0 };
        let load = Load { live, arrivals_per_second: rate };
        let loads = std::iter::repeat_n(earlier, 300).chain(std::iter::repeat_n(load, 3000));
        let after = targets(&config, loads).split_off(300);
        let steps: Vec<_> = after.windows(2).map(|pair| pair[1].cmp(&pair[0])).filter(|step| step.is_ne()).collect();
        prop_assert!(steps.is_sorted_by(|one, other| one >= other), "{after:?}");
        prop_assert_eq!(after[after.len() - 1], after[after.len() - 200]);
    }

    #[test]
    fn a_higher_rate_never_asks_for_a_smaller_pool(config in any_config(), low in 0.0..50.0_f64, more in 0.0..50.0_f64) {
        let at = |rate| targets(&config, [arriving(rate)])[0];
        prop_assert!(at(low) <= at(low + more));
    }

    #[test]
    fn tiers_add_up_to_the_total_and_never_shrink_when_it_grows(
        running in 0_u32..20, paused in 0_u32..20, prepared in 0_u32..20, total in 0_u32..200,
    ) {
        let base = Tiers { running, paused, prepared };
        let (small, large) = (spread(base, total), spread(base, total + 1));
        prop_assert_eq!((small.total(), large.total()), (total, total + 1));
        prop_assert!(Tier::ALL.into_iter().all(|tier| small.of(tier) <= large.of(tier)));
        prop_assert_eq!(spread(base, base.total()), base);
    }

    #[test]
    fn the_rate_never_goes_below_nothing_and_arrivals_never_lower_it(
        gaps in proptest::collection::vec(0_u64..100_000, 1..100), half_life in 0.1..1000.0_f64,
    ) {
        let mut rate = ArrivalRate::new(half_life);
        let mut now = Millis(0);
        for gap in gaps {
            now = Millis(now.0 + gap);
            let before = rate.per_second(now);
            rate.arrived(now);
            prop_assert!(before >= 0.0 && rate.per_second(now) > before);
        }
    }
}
