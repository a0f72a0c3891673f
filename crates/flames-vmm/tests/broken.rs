//! The suite can fail: a driver that breaks a promise is caught by the case of that name.
//!
//! The clock is paused, so that waiting for what never comes takes no time.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flames_vmm::conformance;
use std::sync::Arc;
use support::FakeFactory;
use support::broken::{Breach, BrokenFactory};

/// One test per pair: an honest driver passes the case, the broken one does not.
macro_rules! caught {
    ($($breach:ident => $case:ident),* $(,)?) => {
        $(
            mod $case {
                #[tokio::test(start_paused = true)]
                #[allow(non_snake_case)]
                async fn $breach() {
                    super::conformance::$case(&super::FakeFactory::new()).await;
                    let honest = super::Arc::new(super::FakeFactory::new());
                    let broken = super::BrokenFactory { honest, breach: super::Breach::$breach };
                    super::assert_fails(async move { super::conformance::$case(&broken).await }).await;
                }
            }
        )*
    };
}

caught! {
    DescribesAnotherPid => boot_reaches_ready_and_the_vm_describes_itself_as_running,
    PauseDoesNothing => pause_stops_the_guest_and_resume_lets_it_go_on,
    SecondPauseFails => pausing_or_resuming_twice_changes_nothing,
    StopDoesNotAsk => stop_lets_the_guest_power_off_first,
    StopNeverForces => stop_ends_a_deaf_guest_by_force_within_its_deadlines,
    StopWaitsForAPausedGuest => stop_ends_a_paused_guest,
    SecondStopDiffers => stopping_twice_gives_the_same_exit,
    LateExitIsMissed => an_exit_before_the_call_is_not_missed,
    SecondWaiterIsTold => every_waiter_sees_the_exit,
    PanicLooksLikeShutdown => a_panic_is_told_from_a_shutdown,
    CrashHasNoOutput => a_crash_is_reported_with_its_cause_and_the_last_output,
    ConsoleIsNotLimited => the_console_keeps_its_newest_bytes_within_the_limit,
    AnyFileIsAccepted => a_missing_kernel_is_refused_by_name,
    AnySizeIsAccepted => absurd_sizes_are_refused,
    NoReasonIsGiven => a_vmm_that_cannot_start_says_why_and_leaves_nothing,
    AgentIsNotQuoted => an_agent_that_refuses_is_quoted_and_its_vm_ends,
    ReadyWaitsForTheDead => a_guest_that_dies_before_its_agent_reports_is_an_error,
    NoHandleIsWritten => the_handle_is_in_the_run_directory_from_prepare_on,
    DroppedPreparedLives => dropping_a_prepared_vm_ends_its_process,
    DroppedBootingLives => dropping_a_booting_vm_ends_its_process,
    DroppedRunningDies => dropping_a_running_vm_leaves_it_to_be_adopted,
    AdoptedIsNotAsked => an_adopted_vm_can_be_paused_and_stopped,
    AdoptFailsForTheDead => a_process_that_is_gone_is_not_adopted,
    AdoptsAnyPid => a_reused_pid_is_not_adopted,
    OnePidForAll => many_vms_boot_at_once,
    LeavesASocket => nothing_is_left_after_stop,
    GoneAnswersOk => a_vm_that_is_gone_answers_unavailable,
    SnapshotWithoutCapability => snapshots_work_or_are_unsupported,
    RestoreBoots => a_restored_guest_continues_where_its_snapshot_left_it,
    SnapshotEndsItsSource => a_source_goes_on_after_its_snapshot_and_can_be_snapshotted_again,
    RestoreWritesToTheMemory => many_clones_run_at_once_and_leave_the_snapshot_as_it_was,
    SnapshotOfACloneIsItsBase => a_snapshot_of_a_clone_needs_nothing_of_the_first_snapshot,
    StopDoesNotAsk => a_restored_vm_can_be_paused_resumed_and_stopped,
    DroppedRunningDies => a_restored_vm_is_adopted_and_snapshotted_by_the_next_daemon,
    StopNeverForces => a_restored_deaf_guest_is_ended_by_force_within_its_deadlines,
    CrashHasNoOutput => a_crash_of_a_restored_vm_is_reported_with_its_cause_and_the_last_output,
    LeavesASocket => nothing_is_left_after_a_restored_vm_stopped,
    SnapshotsWhatRuns => a_running_vm_is_not_snapshotted,
    GoneAnswersOk => a_vm_that_is_gone_is_not_snapshotted,
    SnapshotOverwrites => a_part_that_is_there_is_not_overwritten,
    SnapshotLeavesAHalf => a_snapshot_onto_a_full_disk_leaves_nothing_and_the_vm_usable,
    RestoreTakesAnyParts => a_missing_part_is_refused_by_name,
    DroppedPreparedLives => dropping_a_vm_prepared_for_a_restore_ends_its_process,
}

macro_rules! any_parts_are_caught {
    ($($case:ident),* $(,)?) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $case() {
                let breach = Breach::RestoreTakesAnyParts;
                let broken = BrokenFactory { honest: Arc::new(FakeFactory::new()), breach };
                assert_fails(async move { conformance::$case(&broken).await }).await;
            }
        )*
    };
}

mod takes_any_parts {
    use super::*;

    any_parts_are_caught!(
        a_part_that_was_cut_short_or_altered_is_refused,
        parts_of_another_version_are_refused,
        a_vm_does_only_what_it_was_prepared_for,
    );
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_accepts_any_disk_is_caught() {
    let broken = BrokenFactory { honest: Arc::new(FakeFactory::new()), breach: Breach::AnyFileIsAccepted };
    assert_fails(async move { conformance::a_missing_disk_is_refused_by_name(&broken).await }).await;
}

async fn assert_fails(case: impl Future<Output = ()> + 'static) {
    let local = tokio::task::LocalSet::new();
    let outcome = local.run_until(async move { tokio::task::spawn_local(case).await }).await;
    assert!(outcome.expect_err("the suite did not notice").is_panic());
}
