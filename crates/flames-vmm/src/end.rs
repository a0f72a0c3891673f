//! The end of a VMM's process: how it is brought about, and why it was, as every driver does and tells it.

use crate::process::{Process, Status};
use crate::spec::{ExitCause, StopDeadlines};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whether the daemon has asked a VM to end.
#[derive(Debug, Default)]
pub struct Ending(AtomicBool);

/// The process outlived even `SIGKILL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("still there {} ms after SIGKILL", .0.as_millis())]
pub struct StillThere(pub Duration);

impl Ending {
    /// Gives `gracefully`, which asks the guest and waits for the end, its time; then ends the process by force. One that
    /// has ended already was not asked.
    ///
    /// # Errors
    /// When the process is there after its second deadline.
    pub async fn stop(
        &self,
        process: &Process,
        deadlines: StopDeadlines,
        gracefully: impl Future<Output = ()>,
    ) -> Result<(), StillThere> {
        if process.has_ended() {
            return Ok(());
        }
        self.0.store(true, Ordering::Release);
        let _in_time = tokio::time::timeout(deadlines.graceful, gracefully).await;
        process.kill();
        let ended = tokio::time::timeout(deadlines.forced, process.ended()).await;
        ended.map(drop).map_err(|_| StillThere(deadlines.forced))
    }

    /// Why the process ended, by what its VMM said of the guest, by its status and by the end of the guest's console.
    pub fn cause(&self, guest: GuestEnd, status: Status, console_tail: &str) -> ExitCause {
        let asked = if self.0.load(Ordering::Acquire) { Asked::Yes } else { Asked::No };
        cause(asked, guest, status, console_tail)
    }
}

/// What a VMM said of its guest's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEnd {
    /// Nothing.
    Untold,
    /// It powered off or reset the machine, which it also does after a panic (`panic=-1`).
    Ended,
    /// Its kernel panicked.
    Panicked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Yes,
    No,
}

/// The kernel's words.
const PANIC: &str = "Kernel panic - not syncing";

fn cause(asked: Asked, guest: GuestEnd, status: Status, console_tail: &str) -> ExitCause {
    match (guest, asked) {
        (GuestEnd::Panicked, _) => ExitCause::GuestPanic,
        (GuestEnd::Ended, _) if console_tail.contains(PANIC) => ExitCause::GuestPanic,
        (GuestEnd::Ended, _) => ExitCause::GuestShutdown,
        (GuestEnd::Untold, Asked::Yes) => ExitCause::Stopped,
        (GuestEnd::Untold, Asked::No) => without_word_from_the_guest(status),
    }
}

fn without_word_from_the_guest(status: Status) -> ExitCause {
    match status {
        Status::Exited(code) => ExitCause::Crashed { code: Some(code), signal: None },
        Status::Signalled(signal) => ExitCause::Crashed { code: None, signal: Some(signal) },
        Status::Unknown => ExitCause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_ended_shut_down_unless_its_kernel_spoke_of_a_panic() {
        let ended = |asked, console| cause(asked, GuestEnd::Ended, Status::Unknown, console);
        assert_eq!(ended(Asked::No, "bye"), ExitCause::GuestShutdown);
        assert_eq!(ended(Asked::Yes, "bye"), ExitCause::GuestShutdown, "it obeyed");
        assert_eq!(ended(Asked::No, "[1.2] Kernel panic - not syncing: oom"), ExitCause::GuestPanic);
        assert_eq!(cause(Asked::No, GuestEnd::Panicked, Status::Exited(0), ""), ExitCause::GuestPanic);
    }

    #[test]
    fn an_end_without_a_word_from_the_guest_is_a_crash_with_what_is_known_unless_it_was_asked_for() {
        let untold = |asked, status| cause(asked, GuestEnd::Untold, status, "");
        let killed = ExitCause::Crashed { code: None, signal: Some(9) };
        assert_eq!(untold(Asked::No, Status::Signalled(9)), killed);
        let faulted = ExitCause::Crashed { code: Some(149), signal: None };
        assert_eq!(untold(Asked::No, Status::Exited(149)), faulted);
        assert_eq!(untold(Asked::No, Status::Unknown), ExitCause::Unknown);
        assert_eq!(untold(Asked::Yes, Status::Signalled(9)), ExitCause::Stopped);
    }
}
