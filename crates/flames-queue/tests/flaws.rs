//! The suite proves itself: each flaw of a broken queue is caught by the promise that names it.
#![allow(clippy::unwrap_used, missing_docs)]

use flames_queue::conformance::{self, BrokenQueue, Fixture, Flaw};
use flames_queue::memory::MemoryQueue;
use std::sync::Arc;

/// `flaw` is caught by `promise`: the promise fails on the broken queue (and holds on the sound one, which
/// `conformance.rs` shows).
macro_rules! caught {
    ($($flaw:ident by $promise:ident as $test:ident;)+) => {$(
        #[tokio::test(start_paused = true)]
        async fn $test() {
            let broken = BrokenQueue::new(MemoryQueue::new(Fixture::short_dedup_window()), Flaw::$flaw);
            let verdict = tokio::spawn(conformance::$promise(Fixture::new(Arc::new(broken)))).await;
            assert!(verdict.is_err_and(|error| error.is_panic()), "the suite missed {:?}", Flaw::$flaw);
        }
    )+};
}

caught! {
    AcksAfterExpiry by an_ack_after_expiry_is_a_conflict_and_the_job_stays as acks_after_expiry_are_caught;
    AcksForTheFormerHolder by an_ack_by_the_former_holder_is_a_conflict_and_the_new_lease_holds as unfenced_acks_are_caught;
    AckDoesNothing by an_acked_job_never_comes_back as acks_without_effect_are_caught;
    CountsDelayedAsReady by depth_counts_each_state as a_wrong_depth_is_caught;
    CutsPayloads by the_smallest_and_the_largest_payload_arrive_whole as cut_payloads_are_caught;
    DedupForever by a_dedup_key_is_free_again_after_its_window as an_endless_dedup_window_is_caught;
    DoubleLeases by a_leased_job_is_not_leased_to_another_consumer as double_leases_are_caught;
    DoubleLeases by eight_consumers_race_for_one_job_and_exactly_one_gets_it as double_leases_are_caught_in_a_race;
    DoubleLeases by eight_crashing_consumers_do_every_job_and_never_hold_one_together as double_leases_are_caught_under_load;
    DropsDeadLetterReasons by a_job_is_dead_after_its_last_attempt_with_the_reason_of_each as dropped_reasons_are_caught;
    DropsDedup by a_duplicate_within_the_window_is_not_added_and_names_the_first as dropped_dedup_keys_are_caught;
    DropsDedup by concurrent_enqueues_with_one_dedup_key_add_one_job as dropped_dedup_keys_are_caught_in_a_race;
    DuplicatesGetNewIds by a_duplicate_of_a_finished_job_within_the_window_is_not_added as misnamed_duplicates_are_caught;
    ExtendDoesNothing by an_extended_lease_outlives_its_first_end as extends_without_effect_are_caught;
    ForgetsBackoff by a_nacked_job_is_not_leased_before_its_backoff_is_over as forgotten_backoffs_are_caught;
    ForgetsDelay by a_delayed_job_is_not_leased_before_its_delay_is_over as forgotten_delays_are_caught;
    IgnoresMax by a_lease_takes_no_more_jobs_than_asked_for as oversized_batches_are_caught;
    LeasesNeverExpire by an_expired_lease_hands_the_job_to_another_consumer as endless_leases_are_caught;
    LeasesNeverExpire by a_killed_consumer_loses_nothing as jobs_stuck_with_a_dead_consumer_are_caught;
    LosesTheLastEnqueue by an_enqueued_job_is_leased_with_its_payload_and_its_first_attempt as a_lost_enqueue_is_caught;
    LosesEveryHundredthEnqueue by eight_crashing_consumers_do_every_job_and_never_hold_one_together as rare_losses_are_caught_under_load;
    MixesQueues by queues_do_not_see_each_others_jobs as mixed_queues_are_caught;
    NeverDies by a_job_is_dead_after_its_last_attempt_with_the_reason_of_each as immortal_jobs_are_caught;
    NeverTellsTheAge by the_oldest_age_is_that_of_the_longest_ready_job as a_missing_age_is_caught;
    NeverWaits by a_waiting_lease_is_woken_by_an_enqueue as leases_that_do_not_wait_are_caught;
    PurgeDoesNothing by a_purged_dead_job_is_gone as purges_without_effect_are_caught;
    RepeatsTheFirstPage by dead_letters_are_paged_in_order_each_exactly_once as repeated_pages_are_caught;
    RequeueKeepsTheDead by a_requeued_dead_job_has_all_its_attempts_again as requeues_that_copy_are_caught;
    SleepsThroughEvents by a_waiting_lease_is_woken_when_a_delay_ends as missed_wakeups_are_caught;
}
