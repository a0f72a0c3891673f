//! Which events are legal in which state of a sandbox's microVM: one pure function.
//!
//! ```text
//!   Initializing ─ Begin ──> Starting ─ Booted ──> Running
//!        └─ BeginPrewarm ─> Prewarming ─ Prewarmed ─> Ready ─ Allocate ─> Allocating ─ HandedOut ─> Running
//!                                                       └─ MaintenanceDue ─> NeedsMaintenance
//!   Running | Paused ─ Pause ──> Pausing ─ HeldInMemory ──> Paused
//!                                        ─ SnapshotStored ─> Snapshotted
//!                                        ─ PauseUndone ───> Running
//!   Paused ──────── Resume ─┐             ┌─ Resumed ─────> Running
//!   Snapshotted ─── Wake ───┴─> Resuming ─┼─ ResumeUndone ─> Paused
//!                                         └─ WakeUndone ──> Snapshotted
//!   any but Stopped  ─ Stop ──> Stopping ─ VmGone ──> Stopped
//!   any but Stopped  ─ Fail ──> Failed
//! ```
//!
//! `Pausing` and `Resuming` are claims: whoever wrote them is the one who may touch the VM, and everybody else
//! but a `Stop` is refused (hazard L1). The record says what they began with, so that a crash in between is
//! undone (hazard R1).
//!
//! Absent on purpose: an arrow from anything that ran tenant code back to `Ready` (hazard L5).

use serde::{Deserialize, Serialize};

/// The state that `event` leads to.
///
/// # Errors
/// [`Rejected`] when the event is not legal in this state; nothing changes then.
pub fn next(state: State, event: Event) -> Result<State, Rejected> {
    use {Event as E, State as S};
    Ok(match (state, event) {
        (S::Initializing, E::Begin) => S::Starting,
        (S::Initializing, E::BeginPrewarm) => S::Prewarming,
        (S::Prewarming, E::Prewarmed) => S::Ready,
        (S::Ready, E::Allocate) => S::Allocating,
        (S::Starting, E::Booted)
        | (S::Allocating, E::HandedOut)
        | (S::Resuming, E::Resumed)
        | (S::Pausing, E::PauseUndone) => S::Running,
        (S::Running | S::Paused, E::Pause) => S::Pausing,
        (S::Pausing, E::HeldInMemory) | (S::Resuming, E::ResumeUndone) => S::Paused,
        (S::Pausing, E::SnapshotStored) | (S::Resuming, E::WakeUndone) => S::Snapshotted,
        (S::Paused, E::Resume) | (S::Snapshotted, E::Wake) => S::Resuming,
        (S::Ready, E::MaintenanceDue) => S::NeedsMaintenance,
        (S::Stopping, E::VmGone) => S::Stopped,
        (state, E::Stop) if state != S::Stopped => S::Stopping,
        (state, E::Fail) if state != S::Stopped => S::Failed,
        _ => return Err(Rejected { state, event }),
    })
}

/// Where a sandbox's microVM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Recorded; nothing on a host exists for it yet.
    Initializing,
    /// A host boots or restores it.
    Starting,
    /// Its agent serves.
    Running,
    /// Somebody stops it, or writes it to disk.
    Pausing,
    /// In memory, with its virtual CPUs stopped.
    Paused,
    /// Somebody brings it back, from memory or from disk.
    Resuming,
    /// Started ahead of need; no tenant yet.
    Prewarming,
    /// In the warm pool.
    Ready,
    /// Taken from the pool; being handed to its tenant.
    Allocating,
    /// Found unhealthy, too old or outdated while in the pool.
    NeedsMaintenance,
    /// Its state is on disk and no VMM exists.
    Snapshotted,
    /// Being taken down.
    Stopping,
    /// Gone.
    Stopped,
    /// Ended by a fault; the record says which.
    Failed,
}

/// What may happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A host takes up the create.
    Begin,
    /// The agent answered the init handshake.
    Booted,
    /// Started ahead of need.
    BeginPrewarm,
    /// Ready for the pool.
    Prewarmed,
    /// Chosen for a create.
    Allocate,
    /// The tenant has it.
    HandedOut,
    /// Claimed by whoever pauses it.
    Pause,
    /// Its virtual CPUs stand still.
    HeldInMemory,
    /// Memory and disk are on disk and the VMM is gone.
    SnapshotStored,
    /// The pause failed and it runs as before.
    PauseUndone,
    /// Claimed by whoever resumes it from memory.
    Resume,
    /// Claimed by whoever resumes it from its snapshot.
    Wake,
    /// Its agent serves again.
    Resumed,
    /// The resume failed and it stands still in memory as before.
    ResumeUndone,
    /// The resume failed and its snapshot is as before.
    WakeUndone,
    /// The pool's maintenance wants it replaced.
    MaintenanceDue,
    /// Take it down.
    Stop,
    /// Nothing of it is left on the host.
    VmGone,
    /// A fault ended it.
    Fail,
}

/// An event that is not legal in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sandbox in state {state:?} cannot take {event:?}")]
pub struct Rejected {
    /// The state, which stays as it was.
    pub state: State,
    /// The event that was refused.
    pub event: Event,
}

impl State {
    /// Every state, for tables and tests.
    pub const ALL: [Self; 14] = [
        Self::Initializing,
        Self::Starting,
        Self::Running,
        Self::Pausing,
        Self::Paused,
        Self::Resuming,
        Self::Prewarming,
        Self::Ready,
        Self::Allocating,
        Self::NeedsMaintenance,
        Self::Snapshotted,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
    ];

    /// True while some task must bring it further: such a state has a deadline (hazard L2).
    pub fn is_transitional(self) -> bool {
        matches!(
            self,
            Self::Initializing
                | Self::Starting
                | Self::Pausing
                | Self::Resuming
                | Self::Prewarming
                | Self::Allocating
                | Self::Stopping
        )
    }

    /// True if a VMM process should exist for it.
    pub fn has_vm(self) -> bool {
        !matches!(self, Self::Initializing | Self::Snapshotted | Self::Stopped | Self::Failed)
    }

    /// As the API and the CLI show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Prewarming => "prewarming",
            Self::Ready => "ready",
            Self::Allocating => "allocating",
            Self::NeedsMaintenance => "needs_maintenance",
            Self::Snapshotted => "snapshotted",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// The state of that name, as [`State::as_str`] writes it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENTS: [Event; 19] = [
        Event::Begin,
        Event::Booted,
        Event::BeginPrewarm,
        Event::Prewarmed,
        Event::Allocate,
        Event::HandedOut,
        Event::Pause,
        Event::HeldInMemory,
        Event::SnapshotStored,
        Event::PauseUndone,
        Event::Resume,
        Event::Wake,
        Event::Resumed,
        Event::ResumeUndone,
        Event::WakeUndone,
        Event::MaintenanceDue,
        Event::Stop,
        Event::VmGone,
        Event::Fail,
    ];

    /// The states a walk goes through; illegal events leave it where it is.
    fn walk(events: &[Event]) -> Vec<State> {
        events.iter().fold(vec![State::Initializing], |mut seen, event| {
            let last = seen[seen.len() - 1];
            seen.push(next(last, *event).unwrap_or(last));
            seen
        })
    }

    proptest! {
        #[test]
        fn what_ran_tenant_code_never_becomes_ready(
            events in prop::collection::vec(prop::sample::select(&EVENTS[..]), 0..60)
        ) {
            let seen = walk(&events);
            if let Some(ran) = seen.iter().position(|state| *state == State::Running) {
                prop_assert!(!seen[ran..].contains(&State::Ready));
            }
        }

        #[test]
        fn stopped_is_final(events in prop::collection::vec(prop::sample::select(&EVENTS[..]), 0..60)) {
            let seen = walk(&events);
            if let Some(end) = seen.iter().position(|state| *state == State::Stopped) {
                prop_assert!(seen[end..].iter().all(|state| *state == State::Stopped));
            }
        }
    }

    proptest! {
        /// Hazard L1: a claim ends only by what its owner reports, by a stop or by a fault.
        #[test]
        fn nobody_claims_what_is_claimed(
            events in prop::collection::vec(prop::sample::select(&EVENTS[..]), 0..60)
        ) {
            let last = *walk(&events).last().unwrap();
            if matches!(last, State::Pausing | State::Resuming | State::Stopping) {
                for claim in [Event::Pause, Event::Resume, Event::Wake] {
                    prop_assert!(next(last, claim).is_err(), "{last:?} took {claim:?}");
                }
            }
        }

        /// What has no VM runs again only through a claim that somebody owns.
        #[test]
        fn a_snapshotted_sandbox_runs_only_through_resuming(
            events in prop::collection::vec(prop::sample::select(&EVENTS[..]), 0..60)
        ) {
            let seen = walk(&events);
            for step in seen.windows(2) {
                prop_assert!(step != [State::Snapshotted, State::Running]);
                prop_assert!(step != [State::Paused, State::Running]);
            }
        }
    }

    #[test]
    fn a_stop_is_accepted_in_every_state_but_stopped_and_leads_to_stopped() {
        for state in State::ALL.into_iter().filter(|state| *state != State::Stopped) {
            let stopping = next(state, Event::Stop).unwrap();
            assert_eq!(next(stopping, Event::VmGone), Ok(State::Stopped), "{state:?}");
        }
        assert!(next(State::Stopped, Event::Stop).is_err());
    }

    #[test]
    fn every_state_can_be_reached_and_parses_back() {
        let reached = |state| {
            let mut seen = vec![State::Initializing];
            for round in 0..seen.len() + State::ALL.len() {
                let Some(from) = seen.get(round).copied() else { break };
                for to in EVENTS.iter().filter_map(|event| next(from, *event).ok()) {
                    if !seen.contains(&to) {
                        seen.push(to);
                    }
                }
            }
            seen.contains(&state)
        };
        assert!(State::ALL.into_iter().all(reached));
        assert!(State::ALL.into_iter().all(|state| State::parse(state.as_str()) == Some(state)));
    }

    #[test]
    fn an_illegal_event_says_state_and_event() {
        let rejected = next(State::Pausing, Event::Pause).unwrap_err();
        assert_eq!(rejected.to_string(), "a sandbox in state Pausing cannot take Pause");
    }
}
