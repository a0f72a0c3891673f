//! Members and views to ask questions about.

use flames_pool::{
    Failures, Health, Load, MemberState, MemberView, Millis, Phase, PoolConfig, PoolView, Preset, Scale, Tier,
};
use proptest::prelude::*;

pub(crate) const BUILD: &str = "b1";

/// A ready, healthy member of the present build.
pub(crate) fn member(slot: u32, tier: Tier, started_at: u64) -> MemberView {
    MemberView {
        id: format!("m{slot}"),
        slot,
        tier,
        state: MemberState::Ready,
        build: BUILD.to_owned(),
        health: Health::Healthy,
        started_at: Millis(started_at),
        ready_at: Some(Millis(started_at + 100)),
        checked_at: None,
        boot_ms: 100.0,
    }
}

/// An open pool at its base size that nobody asks anything of.
pub(crate) fn view(config: &PoolConfig, members: Vec<MemberView>) -> PoolView {
    PoolView {
        members,
        build: BUILD.to_owned(),
        phase: Phase::Open,
        load: Load::default(),
        scale: Scale::at_base(config, Millis(0)),
        failures: Failures::default(),
        busy: 0,
        room: u32::MAX,
    }
}

/// `count` running members and no scaling.
pub(crate) fn fixed(count: u32) -> PoolConfig {
    let mut config = Preset::Minimal.config("mini");
    config.tiers = flames_pool::Tiers { running: count, paused: 0, prepared: 0 };
    config.maximum = count;
    config
}

pub(crate) fn any_tier() -> impl Strategy<Value = Tier> {
    prop_oneof![Just(Tier::Running), Just(Tier::Paused), Just(Tier::Prepared)]
}

/// Members in any condition.
pub(crate) fn any_members(most: usize) -> impl Strategy<Value = Vec<MemberView>> {
    let state = prop_oneof![
        2 => Just(MemberState::Prewarming),
        8 => Just(MemberState::Ready),
        1 => Just(MemberState::Allocating),
        1 => Just(MemberState::Stopping)
    ];
    let health = prop_oneof![Just(Health::Unchecked), Just(Health::Healthy), Just(Health::Unhealthy)];
    let one = (any_tier(), state, health, any::<bool>(), 0_u64..10_000_000);
    proptest::collection::vec(one, 0..most).prop_map(|all| {
        let numbered = (0..).zip(all);
        let to_member = |(slot, (tier, state, health, is_old_build, started_at))| MemberView {
            state,
            health,
            build: if is_old_build { "b0".to_owned() } else { BUILD.to_owned() },
            ..member(slot, tier, started_at)
        };
        numbered.map(to_member).collect()
    })
}

/// A configuration that passes its check.
pub(crate) fn any_config() -> impl Strategy<Value = PoolConfig> {
    let preset = prop_oneof![
        Just(Preset::Minimal),
        Just(Preset::Standard),
        Just(Preset::Aggressive),
        Just(Preset::UltraFast)
    ];
    (preset, 0_u32..8, 0_u32..8, 0_u32..8, 0_u32..20, 0_u32..20, 1_u32..6, 1_u32..6).prop_map(
        |(preset, running, paused, prepared, minimum, more, refill_concurrency, max_replacements)| {
            let tiers = flames_pool::Tiers { running, paused, prepared };
            let maximum = minimum.max(tiers.total()) + more;
            let config = preset.config("mini");
            let config =
                PoolConfig { tiers, minimum, maximum, refill_concurrency, max_replacements, ..config };
            config.validate().unwrap();
            config
        },
    )
}
