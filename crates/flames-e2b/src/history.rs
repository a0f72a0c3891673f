//! What sandboxes used in the past: a few hundred points of each, for as long as it lives and the daemon runs.
//!
//! Nothing is measured before a client of E2B has shown itself. Sandboxes that rest are not woken: their points have
//! a gap.

use flames_core::sandbox::query::Filter;
use flames_core::sandbox::record::Sandbox;
use flames_core::sandbox::state::State;
use flames_core::{ControlPlane, SandboxId};
use flames_node::GuestMetrics;
use futures::StreamExt;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// The points of all sandboxes.
#[derive(Debug)]
pub struct History {
    every: Duration,
    rings: Mutex<HashMap<SandboxId, Ring>>,
    asked_for: watch::Sender<bool>,
}

/// What a sandbox used at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// Seconds of Unix time.
    pub(crate) at_s: i64,
    pub(crate) used: GuestMetrics,
}

/// Points of one sandbox.
const MAX_POINTS: usize = 360;
/// Sandboxes that have points: 4096 of them, each full, are 95 MB; a sandbox of an hour's age has 23 kB.
const MAX_RINGS: usize = 4096;
/// Guests that are asked at once.
const AT_ONCE: usize = 4;

impl History {
    /// Measures `every` so often; zero is never.
    pub fn new(every: Duration) -> Self {
        Self { every, rings: Mutex::default(), asked_for: watch::Sender::new(false) }
    }

    /// Measures what runs, once somebody may want it. Ends never; drop it to end it.
    pub async fn follow(&self, plane: &ControlPlane) {
        if self.every.is_zero() {
            return;
        }
        let mut asked_for = self.asked_for.subscribe();
        if asked_for.wait_for(|asked_for| *asked_for).await.is_err() {
            return;
        }
        let mut turn = tokio::time::interval(self.every);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            self.measure_all(plane).await;
        }
    }

    /// From now on there is somebody who may want it.
    pub(crate) fn ask(&self) {
        self.asked_for.send_if_modified(|asked_for| !std::mem::replace(asked_for, true));
    }

    /// The points from `start` to `end`, one a step.
    pub(crate) fn range(&self, id: &SandboxId, start: i64, end: i64) -> Vec<Point> {
        self.rings().get(id).map(|ring| ring.range(start, end)).unwrap_or_default()
    }

    /// Adds a point.
    pub(crate) fn add(&self, id: &SandboxId, point: Point) {
        let mut rings = self.rings();
        if rings.contains_key(id) || rings.len() < MAX_RINGS {
            rings.entry(id.clone()).or_default().add(point);
        }
    }

    async fn measure_all(&self, plane: &ControlPlane) {
        let sandboxes = match plane.list_all(&Filter::default()).await {
            Ok(sandboxes) => sandboxes,
            Err(error) => return tracing::warn!(%error, "no metrics this time: the records cannot be read"),
        };
        let (mut known, mut running) = (HashSet::new(), Vec::new());
        for Sandbox { id, state, .. } in sandboxes {
            if state == State::Running {
                running.push(id.clone());
            }
            known.insert(id);
        }
        self.rings().retain(|id, _| known.contains(id));
        let measured = futures::stream::iter(running);
        measured.for_each_concurrent(AT_ONCE, |id| self.measure(plane, id)).await;
    }

    /// A guest that does not answer has a gap.
    async fn measure(&self, plane: &ControlPlane, id: SandboxId) {
        let Ok(guest) = plane.guest_unnoticed(&id).await else { return };
        if let Ok(used) = guest.metrics().await {
            self.add(&id, Point { at_s: Timestamp::now().as_second(), used });
        }
    }

    fn rings(&self) -> MutexGuard<'_, HashMap<SandboxId, Ring>> {
        // A panic cannot leave the points half-changed.
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Points in the order of time. When there is no room for another, every second goes and new ones come half as often: they
/// always reach back to the first.
#[derive(Debug, Default)]
struct Ring {
    points: Vec<Point>,
    /// No two points are closer, in seconds.
    spacing_s: i64,
}

impl Ring {
    fn add(&mut self, point: Point) {
        let earliest = self.points.last().map_or(i64::MIN, |last| last.at_s + self.spacing_s.max(1));
        if point.at_s < earliest {
            return;
        }
        if self.points.len() == MAX_POINTS {
            self.thin();
        }
        self.points.push(point);
    }

    fn thin(&mut self) {
        let span = self.points[MAX_POINTS - 1].at_s - self.points[0].at_s;
        // Twice the mean, rounded down: points that come by a clock are not each a moment too early.
        self.spacing_s = (2 * span / MAX_POINTS as i64).max(1);
        let mut keep = false;
        self.points.retain(|_| {
            keep = !keep;
            keep
        });
    }

    fn range(&self, start: i64, end: i64) -> Vec<Point> {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else { return Vec::new() };
        let (start, end) = (start.max(first.at_s), end.min(last.at_s));
        let step = step(end.saturating_sub(start));
        let mut found: Vec<Point> = Vec::new();
        for point in self.points.iter().filter(|point| (start..=end).contains(&point.at_s)) {
            match found.last_mut() {
                // The newest stands for its step.
                Some(last) if last.at_s.div_euclid(step) == point.at_s.div_euclid(step) => *last = *point,
                _ => found.push(*point),
            }
        }
        found
    }
}

/// How far apart points are in an answer over `span` seconds, as with E2B.
fn step(span: i64) -> i64 {
    const HOUR: i64 = 3600;
    match span {
        ..HOUR => 5,
        HOUR..21_600 => 30,
        21_600..43_200 => 60,
        43_200..86_400 => 120,
        86_400..604_800 => 300,
        _ => 900,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(at_s: i64) -> Point {
        Point {
            at_s,
            used: GuestMetrics { mem_used: u64::try_from(at_s).unwrap(), ..GuestMetrics::default() },
        }
    }

    fn ring(times: impl IntoIterator<Item = i64>) -> Ring {
        let mut ring = Ring::default();
        times.into_iter().for_each(|at_s| ring.add(point(at_s)));
        ring
    }

    #[test]
    fn a_long_life_is_kept_from_its_first_point_on_in_bounded_room() {
        let ring = ring((0..100_000).map(|turn| turn * 10));
        assert!(ring.points.len() <= MAX_POINTS && ring.points.capacity() <= 2 * MAX_POINTS);
        assert!(ring.points.len() >= MAX_POINTS / 4, "{}", ring.points.len());
        assert_eq!(ring.points[0], point(0));
        assert!(ring.points.last().unwrap().at_s > 990_000);
    }

    #[test]
    fn an_answer_holds_what_is_in_its_range_and_one_point_a_step() {
        let ring = ring((1000..1060).chain([9000]));
        let found: Vec<_> = ring.range(1000, 1059).iter().map(|point| point.at_s).collect();
        assert_eq!(found, (1004..1060).step_by(5).collect::<Vec<_>>());
        assert_eq!(ring.range(0, 999), []);
        assert_eq!(ring.range(1059, i64::MAX).len(), 2);
        assert_eq!(ring.range(i64::MIN, i64::MAX).len(), 4);
    }

    proptest! {
        #[test]
        fn points_are_ordered_bounded_and_within_what_was_asked(
            gaps in prop::collection::vec(0i64..1000, 0..2000), start in 0i64..1_000_000, length in 0i64..1_000_000,
        ) {
            let mut at = 0;
            let ring = ring(gaps.into_iter().map(|gap| { at += gap; at }));
            prop_assert!(ring.points.len() <= MAX_POINTS);
            prop_assert!(ring.points.is_sorted_by(|a, b| a.at_s < b.at_s));
            let found = ring.range(start, start + length);
            prop_assert!(found.iter().all(|point| (start..=start + length).contains(&point.at_s)));
        }
    }
}
