//! What a decision costs with a thousand members: `cargo bench -p flames-pool`.

#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use flames_pool::{
    Candidate, Cursor, Failures, Health, Load, MemberState, MemberView, Millis, Phase, PoolConfig, PoolView,
    Preset, Scale, Strategy, Tier, Tiers, choose, plan,
};
use std::hint::black_box;

const MEMBERS: u32 = 1000;
const NOW: Millis = Millis(1_000_000);

fn config() -> PoolConfig {
    let tiers = Tiers { running: MEMBERS / 2, paused: MEMBERS / 4, prepared: MEMBERS / 4 };
    PoolConfig { tiers, minimum: 0, maximum: MEMBERS + 200, ..Preset::Aggressive.config("mini") }
}

/// A few of each kind that a plan looks at: old, ill, outdated, being made.
fn member(slot: u32) -> MemberView {
    let started_at = Millis(u64::from(slot) * 100);
    MemberView {
        id: format!("member-{slot}"),
        slot,
        tier: [Tier::Running, Tier::Running, Tier::Paused, Tier::Prepared][slot as usize % 4],
        state: if slot.is_multiple_of(50) { MemberState::Prewarming } else { MemberState::Ready },
        build: if slot.is_multiple_of(97) { "old" } else { "new" }.to_owned(),
        health: if slot.is_multiple_of(89) { Health::Unhealthy } else { Health::Healthy },
        started_at,
        ready_at: Some(started_at),
        checked_at: None,
        boot_ms: 80.0 + f64::from(slot % 40),
    }
}

fn view() -> PoolView {
    PoolView {
        members: (0..MEMBERS).map(member).collect(),
        build: "new".to_owned(),
        phase: Phase::Open,
        load: Load { live: 500, arrivals_per_second: 20.0 },
        scale: Scale::at_base(&config(), Millis(0)),
        failures: Failures::default(),
        busy: 0,
        room: u32::MAX,
    }
}

fn plans(criterion: &mut Criterion) {
    let (config, view) = (config(), view());
    criterion.bench_function("plan/1000", |bench| bench.iter(|| plan(NOW, &config, black_box(&view))));
}

fn choices(criterion: &mut Criterion) {
    let view = view();
    let candidates: Vec<_> = view.members.iter().filter_map(|one| Candidate::of(one, &view.build)).collect();
    let mut group = criterion.benchmark_group("choose/1000");
    for strategy in Strategy::ALL {
        let mut cursor = Cursor::default();
        group.bench_function(BenchmarkId::from_parameter(strategy), |bench| {
            bench.iter(|| choose(strategy, black_box(&candidates), &mut cursor, black_box(u64::MAX / 3)));
        });
    }
    group.bench_function("candidates", |bench| {
        bench.iter(|| {
            black_box(&view).members.iter().filter_map(|one| Candidate::of(one, &view.build)).count()
        });
    });
    group.finish();
}

criterion_group!(benches, plans, choices);
criterion_main!(benches);
