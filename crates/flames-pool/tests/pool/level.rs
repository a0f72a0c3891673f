//! Which way a create goes.

use flames_pool::{Available, BootLevel, BootPath, History, choose_path};
use proptest::prelude::*;
use std::time::Duration;

const EVERYTHING: Available = Available { warm: 3, snapshot: true, slot_and_disk: true };

fn history(of: &[(BootPath, u64)]) -> History {
    let mut history = History::default();
    for (path, millis) in of {
        (0..History::ENOUGH).for_each(|_| history.record(*path, Duration::from_millis(*millis)));
    }
    history
}

fn path(level: BootLevel, available: Available, history: &History) -> BootPath {
    choose_path(level, &available, history).path
}

#[test]
fn a_level_has_one_name_in_text_and_in_json() {
    for level in BootLevel::ALL {
        assert_eq!(level.name().parse(), Ok(level));
        assert_eq!(serde_json::to_string(&level).unwrap(), format!("{:?}", level.name()));
        assert_eq!(level.to_string(), level.name());
    }
}

#[test]
fn an_unknown_level_is_refused_with_the_names_of_all() {
    let refusal = "warp".parse::<BootLevel>().unwrap_err().to_string();
    assert!(BootLevel::ALL.iter().all(|level| refusal.contains(level.name())), "{refusal}");
}

#[test]
fn standard_fast_and_ultra_fast_always_boot() {
    for level in [BootLevel::Standard, BootLevel::Fast, BootLevel::UltraFast] {
        assert_eq!(path(level, EVERYTHING, &History::default()), BootPath::Cold);
    }
}

#[test]
fn instant_takes_warm_then_restored_then_cold() {
    let none = History::default();
    assert_eq!(path(BootLevel::Instant, EVERYTHING, &none), BootPath::Warm);
    assert_eq!(path(BootLevel::Instant, Available { warm: 0, ..EVERYTHING }, &none), BootPath::Restored);
    assert_eq!(path(BootLevel::Instant, Available::default(), &none), BootPath::Cold);
}

#[test]
fn sub2_second_takes_the_cheapest_path_that_is_proved_within_the_deadline() {
    let quick = history(&[(BootPath::Cold, 1500), (BootPath::Restored, 90), (BootPath::Warm, 2)]);
    assert_eq!(path(BootLevel::Sub2Second, EVERYTHING, &quick), BootPath::Cold);
    let slow_boot = history(&[(BootPath::Cold, 2500), (BootPath::Restored, 90), (BootPath::Warm, 2)]);
    assert_eq!(path(BootLevel::Sub2Second, EVERYTHING, &slow_boot), BootPath::Restored);
}

#[test]
fn sub2_second_trusts_no_path_with_too_little_history() {
    let mut history = History::default();
    (1..History::ENOUGH).for_each(|_| history.record(BootPath::Cold, Duration::from_millis(10)));
    let choice = choose_path(BootLevel::Sub2Second, &EVERYTHING, &history);
    assert_eq!(choice.path, BootPath::Warm);
    assert!(choice.why.contains("too little history"), "{}", choice.why);
    history.record(BootPath::Cold, Duration::from_millis(10));
    assert_eq!(path(BootLevel::Sub2Second, EVERYTHING, &history), BootPath::Cold);
}

#[test]
fn sub2_second_says_so_when_nothing_meets_the_deadline_and_takes_the_closest() {
    let slow = history(&[(BootPath::Cold, 2500), (BootPath::Restored, 2100), (BootPath::Warm, 3000)]);
    let choice = choose_path(BootLevel::Sub2Second, &EVERYTHING, &slow);
    assert_eq!(choice.path, BootPath::Restored);
    assert!(choice.why.contains("no path meets 2000 ms"), "{}", choice.why);
}

#[test]
fn a_path_that_became_slow_loses_its_good_name_as_the_window_moves_on() {
    let mut history = history(&[(BootPath::Cold, 1000)]);
    (0..200).for_each(|_| history.record(BootPath::Cold, Duration::from_millis(2500)));
    assert_eq!(history.len(BootPath::Cold), 200);
    assert_eq!(history.quantile(BootPath::Cold, 0.0), Some(Duration::from_millis(2500)));
    assert_eq!(path(BootLevel::Sub2Second, EVERYTHING, &history), BootPath::Warm);
}

fn any_path() -> impl Strategy<Value = BootPath> {
    prop_oneof![Just(BootPath::Warm), Just(BootPath::Restored), Just(BootPath::Cold)]
}

proptest! {
    #[test]
    fn a_create_never_goes_a_way_that_does_not_exist_or_that_its_level_forbids(
        level in prop_oneof![
            Just(BootLevel::Standard), Just(BootLevel::Fast), Just(BootLevel::UltraFast),
            Just(BootLevel::Sub2Second), Just(BootLevel::Instant)
        ],
        warm in 0_u32..3, snapshot: bool, slot_and_disk: bool,
        durations in proptest::collection::vec((any_path(), 0_u64..4000), 0..200),
    ) {
        let mut history = History::new(50);
        durations.iter().for_each(|(path, took)| history.record(*path, Duration::from_millis(*took)));
        let choice = choose_path(level, &Available { warm, snapshot, slot_and_disk }, &history);
        prop_assert!(level.paths().contains(&choice.path));
        prop_assert!(choice.path != BootPath::Warm || warm > 0);
        prop_assert!(choice.path != BootPath::Restored || snapshot);
        prop_assert!(!choice.why.is_empty());
    }

    #[test]
    fn quantiles_grow_with_their_share_and_lie_within_what_was_recorded(
        durations in proptest::collection::vec(0_u64..4000, 1..300), low in 0.0..1.0_f64, high in 0.0..1.0_f64,
    ) {
        let mut history = History::new(100);
        durations.iter().for_each(|took| history.record(BootPath::Warm, Duration::from_millis(*took)));
        let kept = &durations[durations.len().saturating_sub(100)..];
        let at = |share| history.quantile(BootPath::Warm, share).unwrap();
        prop_assert!(at(low.min(high)) <= at(low.max(high)));
        prop_assert_eq!(at(0.0), Duration::from_millis(*kept.iter().min().unwrap()));
        prop_assert_eq!(at(1.0), Duration::from_millis(*kept.iter().max().unwrap()));
    }
}
