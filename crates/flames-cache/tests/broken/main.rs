//! The suite can fail: each way to break a cache is caught by the case that names the promise.
#![allow(clippy::unwrap_used, missing_docs)]

mod cache;

use cache::{BrokenCacheStore, Fault};
use flames_cache::conformance::{self, Subject};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

fn subject(fault: Option<Fault>) -> Subject {
    let cache = Arc::new(BrokenCacheStore::new(fault));
    let wiped = cache.clone();
    Subject::new(cache, move || {
        wiped.wipe();
        std::future::ready(())
    })
}

/// One test per pair of a fault and the case that catches it, which is to say: panics.
macro_rules! caught {
    ($($test:ident: $fault:ident by $case:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let subject = subject(Some(Fault::$fault));
                let ended = AssertUnwindSafe(conformance::$case(&subject)).catch_unwind().await;
                assert!(ended.is_err(), "{:?} passes the case that should catch it", Fault::$fault);
            }
        )+
    };
}

caught! {
    a_lost_write_is_caught: LosesTheLastWrite by set_replaces_the_value
    a_cut_value_is_caught: CutsValues by the_largest_value_and_the_longest_key_work
    a_text_only_cache_is_caught: KeepsTextOnly by a_value_comes_back_as_it_was_set
    keys_without_case_are_caught: FoldsCase by any_text_is_a_key_of_its_own
    an_endless_entry_is_caught: IgnoresTtl by a_value_ends_when_its_time_is_over
    a_coarse_clock_is_caught: RoundsTtlUp by a_value_ends_to_the_second_or_better
    a_kept_time_is_caught: KeepsTheOldTtl by set_replaces_the_time_to_live
    a_delete_that_does_nothing_is_caught: NeverDeletes by delete_removes_the_value
    a_delete_that_complains_is_caught: RefusesToDeleteNothing by delete_of_a_missing_key_does_nothing
    a_dropped_precondition_is_caught: GrantsEveryLock by set_if_absent_leaves_what_is_there
    a_racy_lock_is_caught: ChecksThenLocks by a_race_for_a_lock_has_exactly_one_winner
    a_lock_that_is_prolonged_is_caught: ProlongsRefusedLocks by a_refused_lock_does_not_live_longer
    a_racy_counter_is_caught: ReadsThenCounts by increments_at_the_same_time_are_all_counted
    a_counter_with_a_new_time_is_caught: ProlongsCounters by increment_keeps_the_time_of_the_first
    a_counter_that_wraps_is_caught: WrapsAround by increment_past_the_largest_number_is_invalid_and_leaves_it
    a_text_taken_for_zero_is_caught: TakesTextForZero by increment_of_a_text_is_invalid_and_leaves_it
    a_cache_that_survives_is_caught: SurvivesTheWipe by a_wiped_cache_is_empty_and_goes_on
}

/// Without a fault it passes everything: what the tests above catch is the fault.
mod without_a_fault {
    flames_cache::cache_conformance!(async { Some(super::subject(None)) });
}
