//! When an alert fires and when it is resolved: one pure function.

use std::time::Duration;

/// Where an alert is. Times are those of the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is wrong.
    #[default]
    Quiet,
    /// Bad, but not for long enough.
    Pending {
        /// Since when without a break.
        since: Duration,
    },
    /// Bad for long enough, and not yet good for long enough.
    Firing {
        /// When it began to fire.
        since: Duration,
        /// When the condition last held.
        last_bad: Duration,
    },
    /// Good again.
    Resolved {
        /// When it had begun to fire.
        since: Duration,
        /// When it was resolved.
        at: Duration,
    },
}

/// How long a rule waits before it says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Before it fires.
    pub hold: Duration,
    /// Before it is resolved.
    pub keep_firing: Duration,
}

/// The phase after a sample at `now` for which the condition held (`bad`) or not.
pub fn step(phase: Phase, bad: bool, now: Duration, timing: Timing) -> Phase {
    match (phase, bad) {
        (Phase::Quiet | Phase::Resolved { .. }, true) => pending(now, now, timing),
        (Phase::Pending { since }, true) => pending(since, now, timing),
        (Phase::Pending { .. }, false) => Phase::Quiet,
        (Phase::Firing { since, .. }, true) => Phase::Firing { since, last_bad: now },
        (Phase::Firing { since, last_bad }, false) if passed(last_bad, now, timing.keep_firing) => {
            Phase::Resolved { since, at: now }
        }
        (unchanged, false) => unchanged,
    }
}

fn pending(since: Duration, now: Duration, timing: Timing) -> Phase {
    match passed(since, now, timing.hold) {
        true => Phase::Firing { since: now, last_bad: now },
        false => Phase::Pending { since },
    }
}

fn passed(since: Duration, now: Duration, span: Duration) -> bool {
    now.saturating_sub(since) >= span
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Samples a second or more apart, each bad or good.
    fn samples() -> impl Strategy<Value = Vec<(u64, bool)>> {
        prop::collection::vec((1u64..5, any::<bool>()), 0..80).prop_map(|steps| {
            let mut now = 0;
            let at = |(gap, bad)| {
                now += gap;
                (now, bad)
            };
            steps.into_iter().map(at).collect()
        })
    }

    fn timing(hold: u64, keep_firing: u64) -> Timing {
        Timing { hold: Duration::from_secs(hold), keep_firing: Duration::from_secs(keep_firing) }
    }

    fn walk(samples: &[(u64, bool)], timing: Timing) -> Vec<Phase> {
        let mut phase = Phase::Quiet;
        let mut next = |(now, bad): &(u64, bool)| {
            phase = step(phase, *bad, Duration::from_secs(*now), timing);
            phase
        };
        samples.iter().map(&mut next).collect()
    }

    fn is_firing(phase: &Phase) -> bool {
        matches!(phase, Phase::Firing { .. })
    }

    proptest! {
        #[test]
        fn it_begins_to_fire_only_after_it_was_bad_for_the_whole_hold(
            samples in samples(), hold in 0u64..12, keep in 0u64..12
        ) {
            let phases = walk(&samples, timing(hold, keep));
            for (place, phase) in phases.iter().enumerate() {
                let before = place.checked_sub(1).is_some_and(|before| is_firing(&phases[before]));
                if is_firing(phase) && !before {
                    let now = samples[place].0;
                    let bad_since = samples[..=place].iter().rev().take_while(|(_, bad)| *bad).map(|(at, _)| *at).last();
                    prop_assert!(bad_since.is_some_and(|since| now - since >= hold));
                }
            }
        }

        #[test]
        fn it_is_resolved_exactly_when_it_was_good_for_the_whole_span(
            samples in samples(), hold in 0u64..12, keep in 0u64..12
        ) {
            let phases = walk(&samples, timing(hold, keep));
            for place in 1..phases.len() {
                if is_firing(&phases[place - 1]) {
                    let last_bad = samples[..=place].iter().rev().find(|(_, bad)| *bad).map(|(at, _)| *at);
                    let bad = samples[place].1;
                    let over = last_bad.is_some_and(|at| samples[place].0 - at >= keep);
                    prop_assert_eq!(matches!(phases[place], Phase::Resolved { .. }), !bad && over);
                }
            }
        }

        #[test]
        fn what_is_bad_throughout_fires_once_and_what_is_good_throughout_never(
            gaps in prop::collection::vec(1u64..5, 1..60), hold in 0u64..12
        ) {
            let mut now = 0;
            let at: Vec<_> = gaps.iter().map(|gap| { now += gap; now }).collect();
            let bad: Vec<_> = at.iter().map(|at| (*at, true)).collect();
            let phases = walk(&bad, timing(hold, 3));
            let first = phases.iter().position(is_firing);
            prop_assert_eq!(first.is_some(), at[at.len() - 1] - at[0] >= hold);
            prop_assert!(first.is_none_or(|first| phases[first..].iter().all(is_firing)));
            let good: Vec<_> = at.iter().map(|at| (*at, false)).collect();
            prop_assert!(walk(&good, timing(hold, 3)).iter().all(|phase| *phase == Phase::Quiet));
        }
    }

    #[test]
    fn a_value_that_dances_around_its_threshold_makes_one_alert() {
        let samples: Vec<_> = (1..100).map(|second| (second, second % 3 == 0)).collect();
        let phases = walk(&samples, timing(0, 5));
        let turns = phases.windows(2).filter(|pair| is_firing(&pair[0]) != is_firing(&pair[1])).count();
        assert_eq!(turns, 1);
    }
}
