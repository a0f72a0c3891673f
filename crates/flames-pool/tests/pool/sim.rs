//! The pool in simulated time: relations that any honest simulation of it must show.

use flames_pool::sim::{Durations, Report, Scenario, Trace, run};
use flames_pool::{Autoscale, ByArrivals, PoolConfig, Preset, Strategy, Tiers};
use std::time::Duration;

/// Half an hour of one create a second.
fn scenario(config: PoolConfig, trace: Trace) -> Scenario {
    let length = Duration::from_secs(1800);
    Scenario { config, trace, per_second: 1.0, length, durations: Durations::default(), seed: 7 }
}

/// Members are booted, which takes long enough for the size of the pool to matter.
fn slow(config: PoolConfig, trace: Trace, seed: u64) -> Scenario {
    let durations = Durations { snapshot: false, ..Durations::default() };
    Scenario { durations, seed, ..scenario(config, trace) }
}

fn fixed(running: u32) -> PoolConfig {
    let tiers = Tiers { running, paused: 0, prepared: 0 };
    PoolConfig {
        tiers,
        minimum: 0,
        maximum: running,
        refill_concurrency: 8,
        ..Preset::Minimal.config("mini")
    }
}

fn scaled() -> PoolConfig {
    let by_arrivals = ByArrivals { half_life_s: 60.0, lead_time_s: 2.0, deviations: 1.5, headroom: 0 };
    let autoscale = Autoscale { by_use: None, by_arrivals: Some(by_arrivals), cool_down_s: 60 };
    PoolConfig { minimum: 1, maximum: 60, autoscale, ..fixed(4) }
}

/// A pool that follows the rate, and a fixed one that costs at least as much, over several runs: their mean hit rates.
fn scaled_and_fixed(trace: Trace) -> (f64, f64) {
    let seeds = 1..=8_u64;
    let mean = |config: &PoolConfig| {
        let reports: Vec<Report> =
            seeds.clone().map(|seed| run(&slow(config.clone(), trace, seed))).collect();
        let mean = |of: fn(&Report) -> f64| reports.iter().map(of).sum::<f64>() / reports.len() as f64;
        (mean(|report| report.hit_rate), mean(|report| report.mean_idle))
    };
    let (scaled_hits, scaled_idle) = mean(&scaled());
    let same_cost = (1..60).map(|size| mean(&fixed(size))).find(|(_, idle)| *idle >= scaled_idle).unwrap();
    println!(
        "{trace}: scaled {scaled_hits:.4} at {scaled_idle:.2} idle, fixed {:.4} at {:.2}",
        same_cost.0, same_cost.1
    );
    (scaled_hits, same_cost.0)
}

#[test]
fn the_same_scenario_gives_the_same_report_and_another_seed_another_one() {
    let one = scenario(Preset::Standard.config("mini"), Trace::Bursts);
    assert_eq!(run(&one), run(&one));
    assert_ne!(run(&one), run(&Scenario { seed: 8, ..one }));
}

#[test]
fn every_trace_is_in_order_within_its_length_and_has_its_mean_rate() {
    let length = Duration::from_secs(20_000);
    for trace in Trace::ALL {
        let arrivals = trace.arrivals(2.0, length, 3);
        assert!(arrivals.is_sorted() && arrivals.iter().all(|at| at.0 < 20_000_000), "{trace}");
        assert!((36_000..44_000).contains(&arrivals.len()), "{trace}: {}", arrivals.len());
    }
}

#[test]
fn a_daily_trace_is_busiest_in_the_middle_and_bursts_are_crowded() {
    let length = Duration::from_secs(6000);
    let in_second = |arrivals: &[flames_pool::Millis], from: u64, to: u64| {
        arrivals.iter().filter(|at| (from * 1000..to * 1000).contains(&at.0)).count()
    };
    let daily = Trace::Daily.arrivals(1.0, length, 3);
    assert!(in_second(&daily, 2500, 3500) > 5 * in_second(&daily, 0, 1000));
    let most = |trace: Trace| {
        let arrivals = trace.arrivals(1.0, length, 3);
        (0..6000).map(|second| in_second(&arrivals, second, second + 1)).max().unwrap()
    };
    assert!(most(Trace::Bursts) > 5 * most(Trace::Poisson));
}

#[test]
fn without_creates_a_pool_fills_and_stands_still() {
    let scenario = Scenario { per_second: 0.0, ..scenario(fixed(5), Trace::Poisson) };
    let report = run(&scenario);
    assert_eq!((report.creates, report.started, report.hit_rate), (0, 5, 0.0));
    assert!((4.9..=5.0).contains(&report.mean_idle), "{report:?}");
}

#[test]
fn every_member_that_was_made_is_handed_out_or_wasted_or_still_there() {
    for trace in Trace::ALL {
        let report = run(&scenario(Preset::Aggressive.config("mini"), trace));
        let wasted: u64 = report.wasted.values().sum();
        let left = report.started - report.hits - wasted;
        assert!(left <= 64, "{trace}: {report:?}");
        assert!(report.mean_idle <= 64.0 && report.hits <= report.creates);
    }
}

#[test]
fn a_larger_pool_hits_more_often_and_costs_more() {
    let reports = [1, 4, 16].map(|size| run(&slow(fixed(size), Trace::Poisson, 7)));
    assert!(reports.is_sorted_by(|small, large| small.hit_rate < large.hit_rate), "{reports:?}");
    assert!(reports.is_sorted_by(|small, large| small.mean_idle < large.mean_idle), "{reports:?}");
}

#[test]
fn a_miss_costs_a_restore_or_without_snapshot_a_boot() {
    let p99 = |scenario: Scenario| run(&scenario).wait_ms.max;
    let restored = p99(scenario(fixed(1), Trace::Bursts));
    let booted = p99(slow(fixed(1), Trace::Bursts, 7));
    assert!((100.0..400.0).contains(&restored), "{restored}");
    assert!((1400.0..4000.0).contains(&booted), "{booted}");
}

#[test]
fn following_the_rate_beats_a_fixed_pool_of_the_same_cost_over_a_day() {
    let (scaled, fixed) = scaled_and_fixed(Trace::Daily);
    assert!(scaled > fixed, "{scaled} {fixed}");
}

#[test]
fn following_the_rate_is_no_worse_than_a_fixed_pool_of_the_same_cost_under_a_load_that_does_not_change() {
    let (scaled, fixed) = scaled_and_fixed(Trace::Constant);
    assert!(scaled >= fixed - 0.01, "{scaled} {fixed}");
}

/// Not what one would wish, and true: a burst that nothing announces is over before the rate has told of it, and then
/// the pool waits in full size for a burst that does not come.
#[test]
fn following_the_rate_does_not_foresee_bursts() {
    let (scaled, fixed) = scaled_and_fixed(Trace::Bursts);
    assert!((scaled - fixed).abs() < 0.2, "{scaled} {fixed}");
}

#[test]
fn spreading_strategies_are_more_even_and_keep_the_pool_younger_than_the_first_available() {
    let report = |strategy| {
        let config = PoolConfig { strategy, max_age_s: 0, ..fixed(12) };
        run(&scenario(config, Trace::Poisson))
    };
    let first = report(Strategy::FirstAvailable);
    for strategy in [Strategy::LeastRecentlyUsed, Strategy::RoundRobin, Strategy::WeightedRandom] {
        let spread = report(strategy);
        assert!(spread.evenness > 2.0 * first.evenness, "{strategy}: {spread:?} {first:?}");
    }
    assert!(report(Strategy::RoundRobin).evenness > 0.95);
}

#[test]
fn best_performance_waits_less_than_round_robin_where_some_slots_are_slow() {
    let wait = |strategy| run(&scenario(PoolConfig { strategy, ..fixed(12) }, Trace::Poisson)).wait_ms.p99;
    assert!(wait(Strategy::BestPerformance) < wait(Strategy::RoundRobin));
}

#[test]
fn an_even_hand_out_wastes_fewer_members_on_age() {
    let aged = |strategy| {
        let config = PoolConfig { strategy, max_age_s: 60, ..fixed(12) };
        let report = run(&scenario(config, Trace::Poisson));
        report.wasted.get(&flames_pool::Reason::TooOld).copied().unwrap_or(0)
    };
    let (first, round_robin) = (aged(Strategy::FirstAvailable), aged(Strategy::RoundRobin));
    assert!(first > 10 * (round_robin + 1), "{first} {round_robin}");
}
