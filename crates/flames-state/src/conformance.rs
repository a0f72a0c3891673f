//! What every state store must do: one function per promise, one test per function.
//!
//! ```ignore
//! flames_state::state_conformance! {
//!     #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
//!     async || Some(Fixture::new(Arc::new(MyStore::open_with_history(HISTORY).await)))
//! }
//! ```
//!
//! The factory answers `None` for a backend that is not there, after it has said so with
//! [`flames_provider::conformance::skip`]. Each promise gets a store of its own: some count its commits.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a suite fails by panicking")]

mod broken;
mod commits;
mod concurrency;
mod leases;
mod lists;
mod records;
mod watches;

pub use broken::{BrokenStateStore, Flaw};
pub use commits::*;
pub use concurrency::*;
pub use leases::*;
pub use lists::*;
pub use records::*;
pub use watches::*;

pub use flames_provider::conformance::{is_required, skip, unique_prefix};

use crate::{Key, StateStore};
use bytes::Bytes;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// How many commits a store under test should keep for watches: few, since a promise waits for it to forget.
pub const HISTORY: u64 = 500;

/// A store to hold to its promises.
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn StateStore>,
    prefix: String,
    _guard: Option<Box<dyn Any + Send + Sync>>,
}

impl Fixture {
    /// A store that was opened with a history of [`HISTORY`] commits.
    pub fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store, prefix: unique_prefix("suite"), _guard: None }
    }

    /// Keeps something until the promise has been tested, for example a temporary folder.
    #[must_use]
    pub fn keep(mut self, guard: impl Any + Send + Sync) -> Self {
        self._guard = Some(Box::new(guard));
        self
    }

    fn key(&self, name: impl fmt::Display) -> Key {
        Key::parse(format!("{}/{name}", self.prefix)).unwrap()
    }

    /// Everything this promise writes is under it.
    fn prefix(&self) -> String {
        format!("{}/", self.prefix)
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").field("store", &self.store).finish_non_exhaustive()
    }
}

fn bytes(text: impl fmt::Display) -> Bytes {
    Bytes::from(text.to_string())
}

/// One test per promise, for the store that `factory` (an async closure) opens.
#[macro_export]
macro_rules! state_conformance {
    (#[$test:meta] $factory:expr) => {
        $crate::__state_promises! { $crate::__state_tests, #[$test] $factory }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __state_tests {
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
macro_rules! __state_promises {
    ($callback:path, $($arguments:tt)*) => {
        $callback! { [$($arguments)*]
            a_created_record_is_read_back_with_its_revision
            create_of_an_existing_record_is_already_exists_and_leaves_it
            put_with_a_stale_revision_is_conflict_and_leaves_the_value
            put_with_a_revision_of_a_missing_record_is_not_found_and_creates_nothing
            delete_with_a_stale_revision_is_conflict_and_leaves_the_record
            deleting_a_missing_record_is_no_error
            a_deleted_record_is_gone_and_can_be_created_again
            revisions_grow_with_every_commit_and_are_never_repeated_across_delete
            a_revision_from_before_a_delete_never_matches_the_new_record
            the_store_revision_is_that_of_the_newest_commit
            values_of_0_bytes_and_of_1_mib_are_kept_whole
            any_utf8_key_names_a_record_of_its_own
            a_value_past_1_mib_is_refused_and_nothing_is_written
            a_commit_applies_all_its_writes_at_one_revision
            a_commit_with_one_failing_write_changes_nothing_and_names_its_key
            a_check_guards_a_commit_and_leaves_its_record
            a_commit_past_its_bounds_is_invalid_and_writes_nothing
            a_list_is_ordered_by_bytes_and_holds_only_its_prefix
            pages_join_to_the_whole_list_without_gap_or_repeat
            pages_stay_stable_while_others_write
            a_list_of_large_values_comes_in_pages
            a_list_behind_a_key_before_the_prefix_starts_at_the_prefix
            a_page_limit_out_of_bounds_is_invalid
            a_held_lease_is_refused_and_names_its_holder
            a_lease_ends_when_its_time_is_over
            a_lease_that_is_over_cannot_be_renewed
            a_lease_is_renewed_only_by_its_holder
            a_renewed_lease_outlives_its_first_time
            a_released_lease_is_free_at_once
            a_late_release_leaves_the_next_holder_alone
            lease_tokens_grow_with_every_acquisition
            of_many_takers_exactly_one_gets_the_lease
            a_watch_gives_past_and_coming_commits_in_order
            a_watch_gives_a_commit_as_one_event_in_the_order_of_its_writes
            a_watch_sees_only_its_prefix
            a_watch_resumed_from_its_last_event_misses_and_repeats_nothing
            a_watch_under_a_quiet_prefix_outlives_the_history
            a_watch_from_before_the_history_is_not_found
            a_watch_from_the_future_is_invalid
            of_n_writers_on_one_record_exactly_one_wins_each_revision
            of_n_creators_exactly_one_wins
            concurrent_transfers_keep_the_sum_in_every_page
            an_acknowledged_write_is_seen_by_the_next_read
        }
    };
}
