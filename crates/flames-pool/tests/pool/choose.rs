//! Which member is handed out.

use crate::support::{BUILD, any_tier, member};
use flames_pool::{
    Candidate, Cursor, Health, MemberState, MemberView, Millis, Strategy as Allocation, Tier, choose,
};
use proptest::prelude::*;

fn running(slot: u32, last_used: u64, boot_ms: f64) -> Candidate {
    Candidate { slot, tier: Tier::Running, last_used: Millis(last_used), boot_ms }
}

fn slot_of(strategy: Allocation, candidates: &[Candidate]) -> u32 {
    candidates[choose(strategy, candidates, &mut Cursor::default(), 0).unwrap()].slot
}

/// How often each of `slots` slots is handed out when every member comes back before the next create.
fn hand_outs(strategy: Allocation, boot_ms: &[f64], times: u64) -> Vec<u32> {
    let candidates: Vec<_> = (0..).zip(boot_ms).map(|(slot, ms)| running(slot, 0, *ms)).collect();
    let mut counts = vec![0; candidates.len()];
    let mut cursor = Cursor::default();
    // Weyl's sequence: evenly distributed, and the same in every run.
    let mut random = 0_u64;
    for _ in 0..times {
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        counts[choose(strategy, &candidates, &mut cursor, random).unwrap()] += 1;
    }
    counts
}

#[test]
fn first_available_takes_the_lowest_slot() {
    assert_eq!(slot_of(Allocation::FirstAvailable, &[running(7, 0, 1.0), running(2, 9, 9.0)]), 2);
}

#[test]
fn best_performance_takes_the_one_made_fastest() {
    let candidates = [running(1, 0, 90.0), running(2, 0, 60.0), running(3, 0, f64::NAN)];
    assert_eq!(slot_of(Allocation::BestPerformance, &candidates), 2);
}

#[test]
fn least_recently_used_hands_out_in_the_order_of_last_use() {
    let mut candidates = vec![running(1, 30, 1.0), running(2, 10, 1.0), running(3, 20, 1.0)];
    let mut order = Vec::new();
    while let Some(index) = choose(Allocation::LeastRecentlyUsed, &candidates, &mut Cursor::default(), 0) {
        order.push(candidates.remove(index).slot);
    }
    assert_eq!(order, [2, 3, 1]);
}

#[test]
fn round_robin_is_perfectly_even() {
    assert_eq!(hand_outs(Allocation::RoundRobin, &[1.0; 7], 700), [100; 7]);
}

#[test]
fn round_robin_goes_on_behind_a_slot_that_is_gone() {
    let mut cursor = Cursor { last_slot: Some(4) };
    let candidates = [running(1, 0, 1.0), running(3, 0, 1.0), running(8, 0, 1.0)];
    let index = choose(Allocation::RoundRobin, &candidates, &mut cursor, 0);
    assert_eq!((index, cursor.last_slot), (Some(2), Some(8)));
    assert_eq!(choose(Allocation::RoundRobin, &candidates, &mut cursor, 0), Some(0));
}

#[test]
fn weighted_random_is_even_among_equals() {
    let counts = hand_outs(Allocation::WeightedRandom, &[80.0; 10], 10_000);
    assert!(counts.iter().all(|count| (900..=1100).contains(count)), "{counts:?}");
}

#[test]
fn weighted_random_prefers_in_proportion_to_speed() {
    let counts = hand_outs(Allocation::WeightedRandom, &[50.0, 100.0], 30_000);
    assert!((19_000..=21_000).contains(&counts[0]), "{counts:?}");
}

#[test]
fn first_available_uses_one_slot_and_no_other() {
    assert_eq!(hand_outs(Allocation::FirstAvailable, &[1.0; 3], 50), [50, 0, 0]);
}

#[test]
fn only_what_is_ready_well_and_of_the_present_build_is_a_candidate() {
    let good = member(1, Tier::Running, 0);
    let bad = [
        MemberView { state: MemberState::Prewarming, ..good.clone() },
        MemberView { state: MemberState::Allocating, ..good.clone() },
        MemberView { state: MemberState::Stopping, ..good.clone() },
        MemberView { health: Health::Unhealthy, ..good.clone() },
        MemberView { build: "b0".to_owned(), ..good.clone() },
    ];
    assert!(bad.iter().all(|one| Candidate::of(one, BUILD).is_none()));
    assert_eq!(Candidate::of(&good, BUILD).unwrap().last_used, Millis(100));
}

fn any_strategy() -> impl Strategy<Value = Allocation> {
    proptest::sample::select(&Allocation::ALL[..])
}

fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (0_u32..50, any_tier(), 0_u64..1000, proptest::num::f64::ANY);
    let to_candidate =
        |(slot, tier, used, boot_ms)| Candidate { slot, tier, last_used: Millis(used), boot_ms };
    proptest::collection::vec(one.prop_map(to_candidate), 0..30)
}

proptest! {
    #[test]
    fn every_strategy_gives_a_legal_index_of_the_readiest_tier(
        strategy in any_strategy(), candidates in any_candidates(),
        last_slot in proptest::option::of(0_u32..60), random: u64,
    ) {
        let mut cursor = Cursor { last_slot };
        match choose(strategy, &candidates, &mut cursor, random) {
            None => prop_assert!(candidates.is_empty()),
            Some(index) => {
                let readiest = candidates.iter().map(|one| one.tier).min();
                prop_assert_eq!(Some(candidates[index].tier), readiest);
                prop_assert_eq!(cursor.last_slot, Some(candidates[index].slot));
            }
        }
    }

    #[test]
    fn round_robin_hands_out_every_slot_once_before_any_twice(
        slots in proptest::collection::btree_set(0_u32..100, 1..20), start in 0_u32..100,
    ) {
        let candidates: Vec<_> = slots.iter().map(|slot| running(*slot, 0, 1.0)).collect();
        let mut cursor = Cursor { last_slot: Some(start) };
        let mut next = || {
            let index = choose(Allocation::RoundRobin, &candidates, &mut cursor, 0).unwrap();
            candidates[index].slot
        };
        let round: std::collections::BTreeSet<_> = (0..slots.len()).map(|_| next()).collect();
        prop_assert_eq!(round, slots);
    }
}
