//! What every work queue must do: one function per promise, one test per function.
//!
//! ```ignore
//! flames_queue::queue_conformance! {
//!     #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
//!     async || Some(Fixture::new(Arc::new(MyQueue::open().await)))
//! }
//! ```
//!
//! The factory answers `None` for a backend that is not there, after it has said so with
//! [`flames_provider::conformance::skip`]. Promises share a backend: each uses queue names of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a suite panics: that is how it fails

mod broken;
mod dead;
mod dedup;
mod delivery;
mod depth;
mod ground;
mod leases;
mod load;
mod measure;
mod outage;
mod waiting;

pub use broken::{BrokenQueue, Flaw};
pub use dead::*;
pub use dedup::*;
pub use delivery::*;
pub use depth::*;
pub use leases::*;
pub use load::*;
pub use measure::*;
pub use outage::*;
pub use waiting::*;

pub use flames_provider::conformance::{is_required, skip, unique_prefix};

use crate::{DedupWindow, WorkQueue};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A queue to hold to its promises.
pub struct Fixture {
    /// The queue.
    pub queue: Arc<dyn WorkQueue>,
    /// How long it remembers dedup keys: short, since a promise waits for its end.
    pub dedup_window: DedupWindow,
    /// How many jobs the promise about crashing consumers moves.
    pub load: usize,
    _guard: Option<Box<dyn Any + Send + Sync>>,
}

impl Fixture {
    /// The dedup window that queues under test should be opened with.
    pub fn short_dedup_window() -> DedupWindow {
        DedupWindow::clamped(Duration::from_millis(600))
    }

    /// A queue opened with [`Fixture::short_dedup_window`], with a load of 10,000 jobs.
    pub fn new(queue: Arc<dyn WorkQueue>) -> Self {
        Self { queue, dedup_window: Self::short_dedup_window(), load: 10_000, _guard: None }
    }

    /// Moves so many jobs in the promise about crashing consumers.
    #[must_use]
    pub fn load(mut self, jobs: usize) -> Self {
        self.load = jobs;
        self
    }

    /// Keeps something until the promise has been tested, for example a temporary folder.
    #[must_use]
    pub fn keep(mut self, guard: impl Any + Send + Sync) -> Self {
        self._guard = Some(Box::new(guard));
        self
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture")
            .field("queue", &self.queue)
            .field("load", &self.load)
            .finish_non_exhaustive()
    }
}

/// One test per promise, for the queue that `factory` (an async closure) opens.
#[macro_export]
macro_rules! queue_conformance {
    (#[$test:meta] $factory:expr) => {
        $crate::__queue_promises! { $crate::__queue_tests, #[$test] $factory }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __queue_tests {
    ([#[$test:meta] $factory:expr] $($promise:ident)+) => {$(
        #[$test]
        async fn $promise() {
            let factory = $factory;
            if let Some(fixture) = factory().await {
                $crate::conformance::$promise(fixture).await;
            }
        }
    )+};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __queue_promises {
    ($callback:path, $($arguments:tt)*) => {
        $callback! { [$($arguments)*]
            an_enqueued_job_is_leased_with_its_payload_and_its_first_attempt
            the_smallest_and_the_largest_payload_arrive_whole
            queues_do_not_see_each_others_jobs
            a_lease_takes_no_more_jobs_than_asked_for
            an_acked_job_never_comes_back
            a_nacked_job_without_backoff_is_ready_at_once_for_its_next_attempt
            a_nacked_job_is_not_leased_before_its_backoff_is_over
            a_delayed_job_is_not_leased_before_its_delay_is_over
            a_lease_without_wait_answers_nothing_from_an_empty_queue_at_once
            a_waiting_lease_gives_up_when_its_wait_is_over
            a_waiting_lease_is_woken_by_an_enqueue
            a_waiting_lease_is_woken_when_a_delay_ends
            a_waiting_lease_is_woken_when_a_lease_expires
            a_waiting_lease_is_woken_by_a_nack
            a_dropped_waiting_lease_loses_no_job
            a_duplicate_within_the_window_is_not_added_and_names_the_first
            a_duplicate_of_a_finished_job_within_the_window_is_not_added
            a_dedup_key_is_free_again_after_its_window
            a_dedup_key_means_nothing_in_another_queue
            concurrent_enqueues_with_one_dedup_key_add_one_job
            a_leased_job_is_not_leased_to_another_consumer
            eight_consumers_race_for_one_job_and_exactly_one_gets_it
            an_expired_lease_hands_the_job_to_another_consumer
            an_ack_after_expiry_is_a_conflict_and_the_job_stays
            an_ack_by_the_former_holder_is_a_conflict_and_the_new_lease_holds
            a_second_ack_is_a_conflict
            an_ack_after_a_nack_is_a_conflict
            a_nack_after_expiry_is_a_conflict
            an_extend_after_expiry_is_a_conflict
            an_extended_lease_outlives_its_first_end
            an_extend_may_shorten_a_lease
            a_killed_consumer_loses_nothing
            a_job_is_dead_after_its_last_attempt_with_the_reason_of_each
            a_last_attempt_that_expires_is_dead_without_any_consumer
            a_dead_job_is_not_leased
            a_requeued_dead_job_has_all_its_attempts_again
            a_purged_dead_job_is_gone
            an_unknown_dead_job_is_not_found
            dead_letters_are_paged_in_order_each_exactly_once
            depth_counts_each_state
            the_oldest_age_is_that_of_the_longest_ready_job
            an_unused_queue_is_empty
            eight_crashing_consumers_do_every_job_and_never_hold_one_together
        }
    };
}
