//! All alerts of a daemon: which rules are broken now, and what turned with the newest sample.

use super::measure::{Reading, measure};
use super::phase::{Phase, Timing, step};
use super::rule::{Rule, Severity};
use crate::sample::Sample;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The rules, the samples they look back at, and the phase of each alert. No clock: time is in the samples.
#[derive(Clone, Debug)]
pub struct Board {
    rules: Vec<Rule>,
    samples: VecDeque<Sample>,
    entries: BTreeMap<(usize, String), Entry>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    phase: Phase,
    value: f64,
}

/// An alert that is not quiet.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// The rule's name.
    pub rule: String,
    /// The pool or the kind of resource; empty when the rule has one alert only.
    pub subject: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it means.
    pub summary: String,
    /// Where it is.
    pub state: AlertState,
    /// The newest value, in the signal's unit.
    pub value: f64,
    /// The rule's bound.
    pub threshold: f64,
    /// Since when it is pending or firing, or when it had begun to fire; as in the samples.
    pub since: Duration,
    /// When it was resolved, if it was.
    pub resolved_at: Option<Duration>,
}

/// Where an alert is that is not quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertState {
    /// Bad long enough.
    Firing,
    /// Bad, but not for long enough.
    Pending,
    /// Good again, since less than an hour.
    Resolved,
}

/// An alert that began to fire (`Firing`) or was resolved (`Resolved`) with the newest sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn(pub Alert);

/// How long a resolved alert is shown.
const SHOWN: Duration = Duration::from_secs(3600);

impl Board {
    /// A quiet board with these rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, samples: VecDeque::new(), entries: BTreeMap::new() }
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Takes a sample that is later than all before, and gives what turned with it.
    pub fn observe(&mut self, sample: Sample) -> Vec<Turn> {
        let now = sample.at;
        self.samples.push_back(sample);
        self.forget_samples(now);
        let mut turns = Vec::new();
        for place in 0..self.rules.len() {
            self.apply(place, now, &mut turns);
        }
        self.entries.retain(|_, entry| match entry.phase {
            Phase::Quiet => false,
            Phase::Resolved { at, .. } => now.saturating_sub(at) < SHOWN,
            _ => true,
        });
        turns
    }

    /// The alerts that are not quiet: firing ones first, then pending ones, then those resolved lately.
    pub fn alerts(&self) -> Vec<Alert> {
        let shown =
            |((place, subject), entry): (&(usize, String), &Entry)| self.alert(*place, subject, entry);
        let mut alerts: Vec<_> = self.entries.iter().filter_map(shown).collect();
        alerts.sort_by(|a, b| (a.state, &a.rule, &a.subject).cmp(&(b.state, &b.rule, &b.subject)));
        alerts
    }

    /// How many fire.
    pub fn firing(&self) -> usize {
        self.entries.values().filter(|entry| matches!(entry.phase, Phase::Firing { .. })).count()
    }

    fn apply(&mut self, place: usize, now: Duration, turns: &mut Vec<Turn>) {
        let rule = &self.rules[place];
        let timing = Timing { hold: rule.hold, keep_firing: rule.keep_firing };
        for (subject, reading) in self.readings(place, now) {
            let bad = reading.as_ref().is_some_and(|reading| {
                reading.count >= rule.min_count && rule.bound.is_broken_by(reading.value)
            });
            let entry = self.entries.entry((place, subject.clone())).or_default();
            let before = entry.phase;
            entry.phase = step(before, bad, now, timing);
            entry.value = reading.map_or(entry.value, |reading| reading.value);
            if has_turned(before, entry.phase) {
                let entry = entry.clone();
                turns.extend(self.alert(place, &subject, &entry).map(Turn));
            }
        }
    }

    /// What the rule's signal says of each subject that it says something of, or that has an alert.
    fn readings(&self, place: usize, now: Duration) -> BTreeMap<String, Option<Reading>> {
        let rule = &self.rules[place];
        let known = self.entries.keys().filter(|(of, _)| *of == place);
        let mut readings: BTreeMap<_, _> = known.map(|(_, subject)| (subject.clone(), None)).collect();
        if let (Some(earlier), Some(newest)) = (self.baseline(now, rule.window), self.samples.back()) {
            let said = measure(rule.signal, earlier, newest).into_iter();
            readings.extend(said.map(|reading| (reading.subject.clone(), Some(reading))));
        }
        readings
    }

    /// The newest sample that is as old as the window, else the oldest.
    fn baseline(&self, now: Duration, window: Duration) -> Option<&Sample> {
        let old = |sample: &&Sample| now.saturating_sub(sample.at) >= window;
        self.samples.iter().rev().find(old).or(self.samples.front())
    }

    /// Keeps one sample beyond the longest window.
    fn forget_samples(&mut self, now: Duration) {
        let longest = self.rules.iter().map(|rule| rule.window).max().unwrap_or_default();
        while self.samples.get(1).is_some_and(|second| now.saturating_sub(second.at) >= longest) {
            self.samples.pop_front();
        }
    }

    fn alert(&self, place: usize, subject: &str, entry: &Entry) -> Option<Alert> {
        let rule = self.rules.get(place)?;
        let (state, since, resolved_at) = match entry.phase {
            Phase::Quiet => return None,
            Phase::Pending { since } => (AlertState::Pending, since, None),
            Phase::Firing { since, .. } => (AlertState::Firing, since, None),
            Phase::Resolved { since, at } => (AlertState::Resolved, since, Some(at)),
        };
        Some(Alert {
            rule: rule.name.clone(),
            subject: subject.to_owned(),
            severity: rule.severity,
            summary: rule.summary.clone(),
            state,
            value: entry.value,
            threshold: rule.bound.value(),
            since,
            resolved_at,
        })
    }
}

impl AlertState {
    /// As in labels and notices.
    pub fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Pending => "pending",
            Self::Resolved => "resolved",
        }
    }
}

fn has_turned(before: Phase, after: Phase) -> bool {
    let is_firing = |phase| matches!(phase, Phase::Firing { .. });
    is_firing(before) != is_firing(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Signal, defaults};
    use crate::sample::Creates;
    use flames_pool::{BootLevel, Execution};
    use proptest::prelude::*;

    fn rule(signal: Signal) -> Rule {
        defaults(Execution::Hardware).into_iter().find(|rule| rule.signal == signal).unwrap()
    }

    fn board(rule: Rule) -> Board {
        Board::new(vec![rule])
    }

    fn creates(second: u64, ok: u64, failed: u64) -> Sample {
        Sample {
            at: Duration::from_secs(second),
            creates: Creates { ok, refused: 0, failed },
            ..Sample::default()
        }
    }

    fn leaks(second: u64, count: u64) -> Sample {
        Sample { at: Duration::from_secs(second), orphans: [("tap", count)].into(), ..Sample::default() }
    }

    fn states(board: &Board) -> Vec<(String, AlertState)> {
        board.alerts().into_iter().map(|alert| (alert.subject, alert.state)).collect()
    }

    #[test]
    fn too_few_creates_conclude_nothing() {
        let mut board = board(rule(Signal::AllocationSuccess));
        board.observe(creates(0, 0, 0));
        for second in (15..600).step_by(15) {
            assert_eq!(board.observe(creates(second, 0, 19)), []);
        }
        assert_eq!(board.alerts(), []);
    }

    #[test]
    fn failing_creates_fire_and_are_resolved_once_the_window_is_past_them() {
        let mut board = board(rule(Signal::AllocationSuccess));
        let mut turned = Vec::new();
        for second in (0..1200).step_by(15) {
            let failed = second.min(60);
            let turns = board.observe(creates(second, 100 + second, failed));
            turned.extend(turns.into_iter().map(|Turn(alert)| (second, alert.state)));
        }
        assert_eq!(turned.len(), 2, "{turned:?}");
        // Bad from 15 s on (15 of 30 creates failed), which must hold for 60 s.
        assert!(matches!(turned[0], (75..=90, AlertState::Firing)), "{turned:?}");
        assert!(matches!(turned[1], (300..=600, AlertState::Resolved)), "{turned:?}");
        assert_eq!(states(&board), [(String::new(), AlertState::Resolved)]);
    }

    #[test]
    fn each_kind_of_leak_is_an_alert_of_its_own_and_a_short_one_is_none() {
        let mut board = board(rule(Signal::Leaks));
        board.observe(leaks(0, 1));
        assert_eq!(states(&board), [("tap".to_owned(), AlertState::Pending)]);
        board.observe(leaks(60, 0));
        assert_eq!(board.alerts(), []);
        board.observe(leaks(90, 2));
        let fired = board.observe(leaks(210, 2));
        assert_eq!(fired.len(), 1);
        assert_eq!((fired[0].0.subject.as_str(), fired[0].0.value), ("tap", 2.0));
        assert_eq!(board.firing(), 1);
    }

    #[test]
    fn a_subject_that_is_gone_is_resolved() {
        let mut board = board(rule(Signal::Leaks));
        board.observe(leaks(0, 1));
        board.observe(leaks(200, 1));
        let turned = board.observe(Sample { at: Duration::from_secs(400), ..Sample::default() });
        assert_eq!(turned.len(), 1);
        assert_eq!(turned[0].0.state, AlertState::Resolved);
    }

    #[test]
    fn slow_creates_of_one_level_say_nothing_of_another() {
        let mut board = Board::new(defaults(Execution::Hardware));
        let mut slow = Sample { at: Duration::from_secs(0), ..Sample::default() };
        board.observe(slow.clone());
        for second in [60, 120, 180, 240] {
            slow.at = Duration::from_secs(second);
            let beyond = &mut slow.durations.entry(BootLevel::Instant).or_default().0;
            beyond[beyond.len() - 1] += 30;
            board.observe(slow.clone());
        }
        let firing: Vec<_> = board.alerts().into_iter().map(|alert| alert.rule).collect();
        assert_eq!(firing, ["create-p99-instant"]);
    }

    proptest! {
        #[test]
        fn every_alert_s_turns_alternate_and_begin_with_firing(
            counts in prop::collection::vec(0u64..3, 1..120)
        ) {
            let mut board = board(Rule { hold: Duration::from_secs(30), ..rule(Signal::Leaks) });
            let mut turned = Vec::new();
            for (tick, count) in (0..).zip(counts) {
                turned.extend(board.observe(leaks(tick * 15, count)).into_iter().map(|Turn(alert)| alert.state));
                prop_assert_eq!(board.firing(), usize::from(turned.last() == Some(&AlertState::Firing)));
            }
            for (place, state) in turned.iter().enumerate() {
                let expected = [AlertState::Firing, AlertState::Resolved][place % 2];
                prop_assert_eq!(*state, expected);
            }
        }

    }

    #[test]
    fn memory_does_not_grow_with_time() {
        let mut board = Board::new(defaults(Execution::Hardware));
        for tick in 0..500 {
            board.observe(leaks(tick * 15, tick % 5));
        }
        // The longest window is 600 s: 40 samples, the newest, and one beyond.
        assert_eq!(board.samples.len(), 41);
    }
}
