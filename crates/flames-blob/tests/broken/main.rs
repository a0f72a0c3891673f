//! The suite can fail: each way to break a store is caught by the case that names the promise.
#![allow(clippy::unwrap_used, missing_docs)]

mod store;

use flames_blob::conformance::{self, Subject};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use store::{BrokenBlobStore, Fault};

fn subject(fault: Option<Fault>) -> Subject {
    let store = Arc::new(BrokenBlobStore::new(fault));
    let damaged = store.clone();
    Subject::new(store, move |key| damaged.rot(key))
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
    a_dropped_precondition_is_caught: IgnoresCreateOnly by create_only_refuses_a_taken_key_and_leaves_the_blob
    a_racy_precondition_is_caught: ChecksThenWrites by a_create_only_race_has_exactly_one_winner
    an_unchecked_body_is_caught: IgnoresExpectedHash by a_body_with_another_hash_is_corrupt_and_leaves_nothing
    an_unchecked_read_is_caught: ServesDamagedBlobs by a_damaged_blob_is_corrupt_at_the_end_of_its_stream
    an_early_blob_is_caught: ShowsUnfinishedBlobs by a_blob_is_invisible_until_its_body_ended
    the_blob_of_a_dropped_put_is_caught: ShowsUnfinishedBlobs by a_dropped_put_leaves_nothing_visible
    the_blob_of_a_failed_body_is_caught: KeepsFailedBodies by a_body_that_fails_leaves_nothing_and_gives_its_error
    a_replace_by_a_failed_body_is_caught: KeepsFailedBodies by a_failed_replace_keeps_the_old_blob
    a_lost_chunk_is_caught: LosesTheLastChunk by the_chunks_of_a_body_do_not_matter
    a_shifted_range_is_caught: ShiftsRanges by a_range_returns_exactly_its_bytes
    a_range_taken_for_the_whole_is_caught: IgnoresRanges by a_range_that_ends_behind_the_blob_is_cut
    a_wrong_order_is_caught: ListsBackwards by a_list_is_ordered_by_the_bytes_of_the_keys
    a_repeated_entry_is_caught: RepeatsAtPageBreaks by pages_hold_every_blob_exactly_once
    pages_by_number_are_caught: CountsInsteadOfKeys by pages_stay_stable_while_others_write
    a_folder_by_its_letters_is_caught: ListsNeighbours by a_list_under_a_folder_leaves_out_its_neighbours
    a_page_without_limit_is_caught: IgnoresTheLimit by a_page_has_at_most_its_limit
    a_delete_that_complains_is_caught: RefusesToDeleteNothing by delete_of_a_missing_blob_does_nothing
    a_delete_that_does_nothing_is_caught: NeverDeletes by delete_removes_the_blob
    a_replace_that_keeps_the_tail_is_caught: KeepsTheOldTail by replace_takes_the_place_of_the_whole_blob
    a_head_with_another_size_is_caught: HeadsAnotherSize by head_says_what_get_says
    a_collector_that_takes_blobs_is_caught: CollectsBlobs by collecting_garbage_touches_no_blob
    a_collector_that_never_ends_is_caught: NeverRunsOutOfGarbage by leftovers_of_dropped_puts_can_be_collected
    a_torn_read_is_caught: ReadsInTwoSteps by a_reader_sees_the_old_or_the_new_blob_never_a_mix
}

/// Without a fault it passes everything: what the tests above catch is the fault.
mod without_a_fault {
    flames_blob::blob_conformance!(async { Some(super::subject(None)) });
}
