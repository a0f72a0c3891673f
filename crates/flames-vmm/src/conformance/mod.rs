//! What every driver promises: one function per promise.
//!
//! [`crate::vmm_conformance`] turns them into named tests for a [`Factory`]. The factory brings guests that
//! behave in a known way ([`Guest`]); whether a guest runs is seen by its console, where the well-behaved ones
//! print "tick N" many times a second.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise is a panic")]

mod bad_input;
mod end;
mod left_over;
mod outlive;
mod outside;
mod refuse;
mod run;
mod snapshot;
mod snapshot_fault;
mod support;

pub use bad_input::{
    is_refused_and_nothing_started, keeps_a_disk_that_disappears, refuses_a_kernel_that_is_no_elf,
};
pub use end::*;
pub use left_over::end_vms_below;
pub use outlive::*;
pub use outside::{Confined, Group, Seen, is_confined, nothing_is_held_after_the_end};
pub use refuse::*;
pub use run::*;
pub use snapshot::*;
pub use snapshot_fault::*;
pub use support::eventually;

use crate::VmmDriver;
use crate::spec::{VmHandle, VmSpec};
use async_trait::async_trait;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

/// Brings a driver, guests, and what a test must know of the host.
#[async_trait]
pub trait Factory: Debug + Send + Sync {
    /// A driver. Each call gives one that knows nothing of the others, as after a restart of the daemon.
    fn driver(&self) -> Arc<dyn VmmDriver>;

    /// A spec of a fresh VM with this guest, an empty run directory of mode 0700, and a console limit of
    /// [`CONSOLE_LIMIT`].
    async fn spec(&self, guest: Guest) -> VmSpec;

    /// Ends the VMM's process as a fault in it would, from outside.
    async fn crash(&self, handle: &VmHandle);

    /// True while the process that `handle` names lives.
    async fn is_alive(&self, handle: &VmHandle) -> bool;

    /// An empty folder on a file system that is too small for any snapshot; `None` skips.
    async fn small_disk(&self) -> Option<PathBuf>;
}

/// How a guest of the suite behaves. All but the last three report that they are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Prints "tick N"; when asked to power off it prints "powering off" and does.
    Ready,
    /// Prints "tick N" and never powers off.
    Deaf,
    /// Prints 40,000 lines and then "the last line".
    Chatty,
    /// Panics shortly after it reported.
    Panics,
    /// Powers off shortly after it reported.
    PowersOff,
    /// Reports the error "the test guest refuses".
    Refuses,
    /// Powers off before it reports.
    Dies,
    /// Never reports.
    Mute,
}

impl Guest {
    /// The value of the kernel argument `flames.test=` that asks a test guest to behave so.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Deaf => "deaf",
            Self::Chatty => "chatty",
            Self::Panics => "panics",
            Self::PowersOff => "powers-off",
            Self::Refuses => "refuses",
            Self::Dies => "dies",
            Self::Mute => "mute",
        }
    }
}

/// Console limit of the suite's specs, in bytes.
pub const CONSOLE_LIMIT: u64 = 16 * 1024;

/// Expands to one test per promise for `$factory`, an expression of type `Option<impl Factory>`. `None` skips:
/// the expression says why with [`flames_provider::conformance::skip`].
#[macro_export]
macro_rules! vmm_conformance {
    ($factory:expr) => {
        $crate::vmm_conformance!(@tests $factory;
            boot_reaches_ready_and_the_vm_describes_itself_as_running,
            pause_stops_the_guest_and_resume_lets_it_go_on,
            pausing_or_resuming_twice_changes_nothing,
            stop_lets_the_guest_power_off_first,
            stop_ends_a_deaf_guest_by_force_within_its_deadlines,
            stop_ends_a_paused_guest,
            stopping_twice_gives_the_same_exit,
            an_exit_before_the_call_is_not_missed,
            every_waiter_sees_the_exit,
            a_panic_is_told_from_a_shutdown,
            a_crash_is_reported_with_its_cause_and_the_last_output,
            the_console_keeps_its_newest_bytes_within_the_limit,
            a_missing_kernel_is_refused_by_name,
            a_missing_disk_is_refused_by_name,
            absurd_sizes_are_refused,
            a_vmm_that_cannot_start_says_why_and_leaves_nothing,
            an_agent_that_refuses_is_quoted_and_its_vm_ends,
            a_guest_that_dies_before_its_agent_reports_is_an_error,
            the_handle_is_in_the_run_directory_from_prepare_on,
            dropping_a_prepared_vm_ends_its_process,
            dropping_a_booting_vm_ends_its_process,
            dropping_a_running_vm_leaves_it_to_be_adopted,
            an_adopted_vm_can_be_paused_and_stopped,
            an_adopted_vm_keeps_the_limit_of_its_console,
            a_process_that_is_gone_is_not_adopted,
            a_reused_pid_is_not_adopted,
            many_vms_boot_at_once,
            nothing_is_left_after_stop,
            a_vm_that_is_gone_answers_unavailable,
            snapshots_work_or_are_unsupported,
            a_restored_guest_continues_where_its_snapshot_left_it,
            a_source_goes_on_after_its_snapshot_and_can_be_snapshotted_again,
            many_clones_run_at_once_and_leave_the_snapshot_as_it_was,
            a_snapshot_of_a_clone_needs_nothing_of_the_first_snapshot,
            a_restored_vm_can_be_paused_resumed_and_stopped,
            a_restored_vm_is_adopted_and_snapshotted_by_the_next_daemon,
            a_restored_deaf_guest_is_ended_by_force_within_its_deadlines,
            a_crash_of_a_restored_vm_is_reported_with_its_cause_and_the_last_output,
            nothing_is_left_after_a_restored_vm_stopped,
            a_running_vm_is_not_snapshotted,
            a_vm_that_is_gone_is_not_snapshotted,
            a_part_that_is_there_is_not_overwritten,
            a_snapshot_onto_a_full_disk_leaves_nothing_and_the_vm_usable,
            a_missing_part_is_refused_by_name,
            a_part_that_was_cut_short_or_altered_is_refused,
            parts_of_another_version_are_refused,
            a_vm_does_only_what_it_was_prepared_for,
            dropping_a_vm_prepared_for_a_restore_ends_its_process,
        );
    };
    (@tests $factory:expr; $($promise:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                if let Some(factory) = $factory {
                    $crate::conformance::$promise(&factory).await;
                }
            }
        )*
    };
}
