//! Refill and maintenance, one decision at a time.

use crate::support::{BUILD, any_config, any_members, fixed, member, view};
use flames_pool::{
    CHECKS_AT_ONCE, Failures, Health, Load, MemberState, MemberView, Millis, Phase, PoolConfig, Reason, Tier,
    Tiers, plan,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

const HOUR: u64 = 3_600_000;

fn reasons(plan: &flames_pool::Plan) -> Vec<(&str, Reason)> {
    plan.retire.iter().map(|(id, reason)| (id.as_str(), *reason)).collect()
}

#[test]
fn an_empty_pool_is_filled_with_limited_concurrency_readiest_tier_first() {
    let config = PoolConfig {
        tiers: Tiers { running: 2, paused: 2, prepared: 0 },
        maximum: 4,
        refill_concurrency: 3,
        ..fixed(0)
    };
    let plan = plan(Millis(0), &config, &view(&config, Vec::new()));
    assert_eq!(plan.start, [(Tier::Running, 2), (Tier::Paused, 1)]);
}

#[test]
fn what_is_being_made_is_counted_and_not_made_again() {
    let config = PoolConfig { refill_concurrency: 3, ..fixed(3) };
    let coming = |slot| MemberView { state: MemberState::Prewarming, ..member(slot, Tier::Running, 0) };
    let plan = plan(Millis(0), &config, &view(&config, vec![coming(1), coming(2)]));
    assert_eq!(plan.start, [(Tier::Running, 1)]);
}

#[test]
fn a_full_pool_needs_nothing() {
    let config = PoolConfig { health_check_every_s: 0, ..fixed(2) };
    let members = vec![member(1, Tier::Running, 0), member(2, Tier::Running, 0)];
    let plan = plan(Millis(1000), &config, &view(&config, members));
    assert!(plan.start.is_empty() && plan.retire.is_empty() && plan.check.is_empty(), "{plan:?}");
}

#[test]
fn a_refill_leaves_the_machine_to_creates_that_are_busy() {
    let config = PoolConfig { refill_concurrency: 3, ..fixed(3) };
    let starts = |busy| {
        let view = flames_pool::PoolView { busy, ..view(&config, Vec::new()) };
        plan(Millis(0), &config, &view).start
    };
    assert_eq!(starts(2), [(Tier::Running, 1)]);
    assert!(starts(5).is_empty());
}

#[test]
fn nothing_is_started_that_the_node_has_no_room_for() {
    let config = PoolConfig { refill_concurrency: 3, ..fixed(3) };
    let view = flames_pool::PoolView { room: 1, ..view(&config, Vec::new()) };
    assert_eq!(plan(Millis(0), &config, &view).start, [(Tier::Running, 1)]);
}

#[test]
fn the_surplus_goes_oldest_first() {
    let config = fixed(1);
    let members =
        vec![member(1, Tier::Running, 30), member(2, Tier::Running, 10), member(3, Tier::Running, 20)];
    let plan = plan(Millis(1000), &config, &view(&config, members));
    assert_eq!(reasons(&plan), [("m2", Reason::Surplus), ("m3", Reason::Surplus)]);
}

#[test]
fn unhealthy_and_outdated_are_replaced_within_the_limit_the_unhealthy_first() {
    let config = PoolConfig { max_replacements: 2, refill_concurrency: 9, maximum: 9, ..fixed(4) };
    let outdated =
        |slot| MemberView { build: "b0".to_owned(), ..member(slot, Tier::Running, u64::from(slot)) };
    let unhealthy = MemberView { health: Health::Unhealthy, ..member(9, Tier::Running, 50) };
    let members = vec![outdated(1), outdated(2), unhealthy, member(4, Tier::Running, 0)];
    let plan = plan(Millis(1000), &config, &view(&config, members));
    assert_eq!(reasons(&plan), [("m9", Reason::Unhealthy), ("m1", Reason::OutdatedBuild)]);
    assert_eq!(plan.start, [(Tier::Running, 3)]);
}

#[test]
fn members_that_are_still_stopping_use_up_the_limit_of_replacements() {
    let config = PoolConfig { max_replacements: 1, maximum: 9, ..fixed(2) };
    let stopping = MemberView { state: MemberState::Stopping, ..member(1, Tier::Running, 0) };
    let unhealthy = MemberView { health: Health::Unhealthy, ..member(2, Tier::Running, 0) };
    let plan = plan(Millis(1000), &config, &view(&config, vec![stopping, unhealthy]));
    assert!(plan.retire.is_empty(), "{plan:?}");
}

#[test]
fn of_a_pool_that_grew_old_together_one_goes_at_a_time() {
    let config = fixed(3);
    let old: Vec<_> = (1..=3).map(|slot| member(slot, Tier::Running, u64::from(slot))).collect();
    let now = Millis(HOUR + 1000);
    let first = plan(now, &config, &view(&config, old.clone()));
    assert_eq!(reasons(&first), [("m1", Reason::TooOld)]);
    let one_missing = plan(now, &config, &view(&config, old[1..].to_vec()));
    assert!(one_missing.retire.is_empty(), "{one_missing:?}");
}

#[test]
fn what_is_twice_too_old_goes_even_while_others_are_missing() {
    let config = fixed(3);
    let plan = plan(Millis(2 * HOUR + 1000), &config, &view(&config, vec![member(1, Tier::Running, 0)]));
    assert_eq!(reasons(&plan), [("m1", Reason::TooOld)]);
}

#[test]
fn a_template_that_cannot_be_started_is_tried_less_and_less_often() {
    let config = fixed(4);
    let mut failures = Failures::default();
    let mut waits = Vec::new();
    let mut now = Millis(0);
    for _ in 0..12 {
        failures.failed(now);
        let mut view = view(&config, Vec::new());
        view.failures = failures;
        let tried = (0..)
            .find(|second| !plan(now.plus(Duration::from_secs(*second)), &config, &view).start.is_empty());
        waits.push(tried.unwrap());
        now = now.plus(Duration::from_secs(waits[waits.len() - 1]));
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
}

#[test]
fn after_a_failure_one_is_tried_alone_and_after_a_success_all_again() {
    let config = PoolConfig { refill_concurrency: 4, ..fixed(4) };
    let mut view = view(&config, Vec::new());
    view.failures.failed(Millis(0));
    assert_eq!(plan(Millis(5000), &config, &view).start, [(Tier::Running, 1)]);
    view.failures.succeeded();
    assert_eq!(plan(Millis(5000), &config, &view).start, [(Tier::Running, 4)]);
}

#[test]
fn checks_are_asked_for_when_due_the_longest_unchecked_first_and_not_all_at_once() {
    let count = u32::try_from(CHECKS_AT_ONCE).unwrap() + 4;
    let config = fixed(count);
    let members: Vec<_> =
        (0..count).map(|slot| member(slot, Tier::Running, u64::from(1000 - slot))).collect();
    let asked = plan(Millis(62_000), &config, &view(&config, members.clone())).check;
    assert_eq!((asked.len(), &asked[0]), (CHECKS_AT_ONCE, &members.last().unwrap().id));
    assert!(plan(Millis(30_000), &config, &view(&config, members)).check.is_empty());
}

#[test]
fn draining_retires_everything_that_nobody_has_and_starts_nothing() {
    let config = fixed(9);
    let in_state = |slot, state| MemberView { state, ..member(slot, Tier::Running, 0) };
    let members = vec![
        in_state(1, MemberState::Ready),
        in_state(2, MemberState::Prewarming),
        in_state(3, MemberState::Allocating),
        in_state(4, MemberState::Stopping),
    ];
    let view = flames_pool::PoolView { phase: Phase::Draining, ..view(&config, members) };
    let plan = plan(Millis(0), &config, &view);
    assert_eq!(reasons(&plan), [("m1", Reason::Drained), ("m2", Reason::Drained)]);
    assert!(plan.start.is_empty() && plan.check.is_empty());
}

#[test]
fn members_of_a_new_build_are_made_while_the_old_ones_go() {
    let config = PoolConfig { maximum: 4, refill_concurrency: 2, ..fixed(2) };
    let mut view = view(&config, vec![member(1, Tier::Running, 0), member(2, Tier::Running, 0)]);
    view.build = "b2".to_owned();
    let plan = plan(Millis(1000), &config, &view);
    assert_eq!(plan.start, [(Tier::Running, 2)]);
    assert_eq!(reasons(&plan), [("m1", Reason::OutdatedBuild)]);
    assert_ne!(view.build, BUILD);
}

proptest! {
    #[test]
    fn no_plan_breaks_a_limit(
        config in any_config(), members in any_members(40), now in 0_u64..20_000_000,
        live in 0_u32..50, rate in 0.0..20.0_f64, busy in 0_u32..4, room in 0_u32..30,
    ) {
        let mut view = view(&config, members);
        (view.load, view.busy, view.room) = (Load { live, arrivals_per_second: rate }, busy, room);
        let plan = plan(Millis(now), &config, &view);
        let in_state = |state| view.members.iter().filter(|one| one.state == state).count();
        let (coming, stopping) = (in_state(MemberState::Prewarming), in_state(MemberState::Stopping));
        let there = coming + stopping + in_state(MemberState::Ready);
        let started: usize = plan.start.iter().map(|(_, count)| *count as usize).sum();

        prop_assert!(started == 0 || there + started <= config.maximum as usize);
        prop_assert!(started == 0 || coming + started <= config.refill_concurrency as usize);
        prop_assert!(started <= room as usize);
        let replaced = plan.retire.iter().filter(|(_, reason)| *reason != Reason::Surplus).count();
        prop_assert!(replaced == 0 || stopping + replaced <= config.max_replacements as usize);
        prop_assert_eq!(plan.target.total(), plan.scale.target());
    }

    #[test]
    fn only_what_is_ready_is_retired_or_checked_once_and_never_both(
        config in any_config(), members in any_members(40), now in 0_u64..20_000_000,
    ) {
        let plan = plan(Millis(now), &config, &view(&config, members.clone()));
        let named: Vec<_> = plan.retire.iter().map(|(id, _)| id).chain(&plan.check).collect();
        let ready: BTreeSet<_> =
            members.iter().filter(|one| one.state == MemberState::Ready).map(|one| &one.id).collect();
        prop_assert!(named.iter().all(|id| ready.contains(id)));
        prop_assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len());
    }

    #[test]
    fn a_good_member_is_retired_only_if_its_tier_has_more_than_wanted(
        config in any_config(), members in any_members(40),
    ) {
        let config = PoolConfig { max_age_s: 0, ..config };
        let plan = plan(Millis(20_000_000), &config, &view(&config, members.clone()));
        let is_good = |one: &&MemberView| {
            one.state == MemberState::Ready && one.build == BUILD && one.health != Health::Unhealthy
        };
        for tier in Tier::ALL {
            let good: Vec<_> = members.iter().filter(is_good).filter(|one| one.tier == tier).collect();
            let gone = good.iter().filter(|one| plan.retire.iter().any(|(id, _)| *id == one.id)).count();
            prop_assert_eq!(gone, good.len().saturating_sub(plan.target.of(tier) as usize));
        }
    }
}
