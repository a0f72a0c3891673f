//! The promises that can be broken, and who must notice.

/// What is wrong with a [`BrokenStateStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing: the control.
    None,
    /// Every precondition holds.
    DropsPreconditions,
    /// A record that exists passes as absent.
    ForgetsAbsent,
    /// A missing record passes for any revision.
    CreatesOnRevision,
    /// Checks the precondition, and writes later.
    ChecksTooEarly,
    /// Checks are ignored.
    IgnoresChecks,
    /// A failed commit keeps the writes before the failure.
    CommitsHalf,
    /// The last write of a commit is acknowledged and dropped.
    LosesTheLastWrite,
    /// Every other commit gets the number of the one before.
    RepeatsRevisions,
    /// The store's revision lags.
    LagsBehind,
    /// A read may give an earlier value.
    ReadsStale,
    /// Deletes are acknowledged and not done.
    KeepsDeleted,
    /// Deleting a missing record fails.
    RefusesEmptyDelete,
    /// Values are cut.
    CutsValues,
    /// Keys that differ in case are one.
    FoldsCase,
    /// What is past a limit is acknowledged and dropped.
    SwallowsExcess,
    /// The records of a page are in reverse.
    ReordersPages,
    /// A page starts with the last record of the one before.
    RepeatsAtPageEnds,
    /// A page leaves out its last record when more follow.
    SkipsAtPageEnds,
    /// A list gives everything.
    IgnoresPrefix,
    /// A page never says that more follow.
    EndsAfterOnePage,
    /// A held lease is given out again.
    LeasesTwice,
    /// The refusal does not say who holds the lease.
    HidesTheHolder,
    /// A lease never ends.
    LeasesForEver,
    /// A lease ends at once.
    EndsLeasesEarly,
    /// A lease that is over can be renewed.
    RevivesLeases,
    /// Renewal changes nothing.
    RenewsNothing,
    /// Release changes nothing.
    ReleasesNothing,
    /// Anybody's release ends a lease.
    ReleasesForAnyone,
    /// Every lease has the same token.
    RepeatsTokens,
    /// A watch misses every tenth commit.
    WatchSkips,
    /// A resumed watch starts with the event seen last.
    WatchRepeats,
    /// A watch starts now instead of at its revision.
    WatchForgetsThePast,
    /// A watch ends with what has happened already.
    WatchForgetsTheFuture,
    /// A commit becomes an event per record.
    WatchSplitsCommits,
    /// The changes of a commit are in reverse.
    WatchReorders,
    /// Deletes are not told.
    WatchHidesDeletes,
    /// A watch sees every key.
    WatchIgnoresPrefix,
    /// A watch from before the history starts where the history does.
    WatchHidesTheGap,
    /// A watch that saw nothing for long is told that it is too slow.
    WatchDropsIdle,
    /// A watch from the future waits for it.
    WatchAwaitsTheFuture,
}

impl Flaw {
    /// All but [`Flaw::None`], each with the promise that must notice it.
    pub const CAUGHT_BY: &'static [(Self, &'static str)] = &[
        (Self::DropsPreconditions, "put_with_a_stale_revision_is_conflict_and_leaves_the_value"),
        (Self::ForgetsAbsent, "create_of_an_existing_record_is_already_exists_and_leaves_it"),
        (Self::ForgetsAbsent, "of_n_creators_exactly_one_wins"),
        (Self::CreatesOnRevision, "put_with_a_revision_of_a_missing_record_is_not_found_and_creates_nothing"),
        (Self::ChecksTooEarly, "of_n_writers_on_one_record_exactly_one_wins_each_revision"),
        (Self::IgnoresChecks, "a_check_guards_a_commit_and_leaves_its_record"),
        (Self::CommitsHalf, "a_commit_with_one_failing_write_changes_nothing_and_names_its_key"),
        (Self::CommitsHalf, "concurrent_transfers_keep_the_sum_in_every_page"),
        (Self::LosesTheLastWrite, "a_created_record_is_read_back_with_its_revision"),
        (Self::LosesTheLastWrite, "a_commit_applies_all_its_writes_at_one_revision"),
        (Self::RepeatsRevisions, "revisions_grow_with_every_commit_and_are_never_repeated_across_delete"),
        (Self::RepeatsRevisions, "a_revision_from_before_a_delete_never_matches_the_new_record"),
        (Self::LagsBehind, "the_store_revision_is_that_of_the_newest_commit"),
        (Self::ReadsStale, "an_acknowledged_write_is_seen_by_the_next_read"),
        (Self::KeepsDeleted, "a_deleted_record_is_gone_and_can_be_created_again"),
        (Self::DropsPreconditions, "delete_with_a_stale_revision_is_conflict_and_leaves_the_record"),
        (Self::RefusesEmptyDelete, "deleting_a_missing_record_is_no_error"),
        (Self::CutsValues, "values_of_0_bytes_and_of_1_mib_are_kept_whole"),
        (Self::CutsValues, "a_list_of_large_values_comes_in_pages"),
        (Self::FoldsCase, "any_utf8_key_names_a_record_of_its_own"),
        (Self::SwallowsExcess, "a_value_past_1_mib_is_refused_and_nothing_is_written"),
        (Self::SwallowsExcess, "a_commit_past_its_bounds_is_invalid_and_writes_nothing"),
        (Self::SwallowsExcess, "a_page_limit_out_of_bounds_is_invalid"),
        (Self::ReordersPages, "a_list_is_ordered_by_bytes_and_holds_only_its_prefix"),
        (Self::RepeatsAtPageEnds, "pages_join_to_the_whole_list_without_gap_or_repeat"),
        (Self::RepeatsAtPageEnds, "pages_stay_stable_while_others_write"),
        (Self::SkipsAtPageEnds, "pages_join_to_the_whole_list_without_gap_or_repeat"),
        (Self::SkipsAtPageEnds, "pages_stay_stable_while_others_write"),
        (Self::IgnoresPrefix, "a_list_is_ordered_by_bytes_and_holds_only_its_prefix"),
        (Self::IgnoresPrefix, "a_list_behind_a_key_before_the_prefix_starts_at_the_prefix"),
        (Self::EndsAfterOnePage, "pages_join_to_the_whole_list_without_gap_or_repeat"),
        (Self::LeasesTwice, "a_held_lease_is_refused_and_names_its_holder"),
        (Self::LeasesTwice, "of_many_takers_exactly_one_gets_the_lease"),
        (Self::HidesTheHolder, "a_held_lease_is_refused_and_names_its_holder"),
        (Self::LeasesForEver, "a_lease_ends_when_its_time_is_over"),
        (Self::EndsLeasesEarly, "a_lease_ends_when_its_time_is_over"),
        (Self::RevivesLeases, "a_lease_that_is_over_cannot_be_renewed"),
        (Self::RevivesLeases, "a_lease_is_renewed_only_by_its_holder"),
        (Self::RenewsNothing, "a_renewed_lease_outlives_its_first_time"),
        (Self::ReleasesNothing, "a_released_lease_is_free_at_once"),
        (Self::ReleasesForAnyone, "a_late_release_leaves_the_next_holder_alone"),
        (Self::RepeatsTokens, "lease_tokens_grow_with_every_acquisition"),
        (Self::WatchSkips, "a_watch_resumed_from_its_last_event_misses_and_repeats_nothing"),
        (Self::WatchRepeats, "a_watch_resumed_from_its_last_event_misses_and_repeats_nothing"),
        (Self::WatchForgetsThePast, "a_watch_gives_past_and_coming_commits_in_order"),
        (Self::WatchForgetsTheFuture, "a_watch_gives_past_and_coming_commits_in_order"),
        (Self::WatchSplitsCommits, "a_watch_gives_a_commit_as_one_event_in_the_order_of_its_writes"),
        (Self::WatchReorders, "a_watch_gives_a_commit_as_one_event_in_the_order_of_its_writes"),
        (Self::WatchHidesDeletes, "a_watch_gives_past_and_coming_commits_in_order"),
        (Self::WatchIgnoresPrefix, "a_watch_sees_only_its_prefix"),
        (Self::WatchHidesTheGap, "a_watch_from_before_the_history_is_not_found"),
        (Self::WatchDropsIdle, "a_watch_under_a_quiet_prefix_outlives_the_history"),
        (Self::WatchAwaitsTheFuture, "a_watch_from_the_future_is_invalid"),
    ];
}
