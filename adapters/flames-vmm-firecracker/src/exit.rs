//! Why a VMM's process ended: a pure decision over what was observed.

use flames_vmm::ExitCause;
use flames_vmm::process::Status;

/// What was seen of an end.
#[derive(Clone, Debug)]
pub(crate) struct Evidence<'a> {
    pub(crate) asked: Asked,
    pub(crate) status: Status,
    /// Firecracker logged that it ends because its guest did. Known also of a process that was not our child.
    pub(crate) guest_ended: bool,
    /// It was ended because its page-fault handler had, and its guest would have hung.
    pub(crate) handler_failed: bool,
    /// End of the guest's console.
    pub(crate) console_tail: &'a str,
}

/// Whether the daemon asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Yes,
    No,
}

/// The kernel's words; it resets the machine right after them (`panic=-1`).
const PANIC: &str = "Kernel panic - not syncing";

/// What it was ended with, also where nobody could see that.
const SIGKILL: i32 = 9;

pub(crate) fn cause(evidence: &Evidence<'_>) -> ExitCause {
    if evidence.handler_failed {
        return ExitCause::Crashed { code: None, signal: Some(SIGKILL) };
    }
    let guest_ended = evidence.guest_ended || evidence.status == Status::Exited(0);
    match (guest_ended, evidence.asked) {
        (true, _) if evidence.console_tail.contains(PANIC) => ExitCause::GuestPanic,
        (true, _) => ExitCause::GuestShutdown,
        (false, Asked::Yes) => ExitCause::Stopped,
        (false, Asked::No) => without_word_from_the_guest(evidence.status),
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

    fn ended(asked: Asked, status: Status, guest_ended: bool, console_tail: &str) -> ExitCause {
        cause(&Evidence { asked, status, guest_ended, handler_failed: false, console_tail })
    }

    #[test]
    fn a_guest_that_ended_shut_down_unless_its_kernel_spoke_of_a_panic() {
        assert_eq!(ended(Asked::No, Status::Exited(0), true, "bye"), ExitCause::GuestShutdown);
        assert_eq!(ended(Asked::Yes, Status::Unknown, true, "bye"), ExitCause::GuestShutdown);
        let panic = "[1.2] Kernel panic - not syncing: oom";
        assert_eq!(ended(Asked::No, Status::Exited(0), true, panic), ExitCause::GuestPanic);
    }

    #[test]
    fn an_end_for_want_of_a_page_fault_handler_is_a_crash_whoever_saw_it() {
        for (asked, status) in [(Asked::No, Status::Unknown), (Asked::Yes, Status::Signalled(9))] {
            let evidence =
                Evidence { asked, status, guest_ended: false, handler_failed: true, console_tail: "" };
            assert_eq!(cause(&evidence), ExitCause::Crashed { code: None, signal: Some(9) });
        }
    }

    #[test]
    fn an_end_without_a_word_from_the_guest_is_a_crash_with_what_is_known() {
        let killed = ExitCause::Crashed { code: None, signal: Some(9) };
        assert_eq!(ended(Asked::No, Status::Signalled(9), false, ""), killed);
        let faulted = ExitCause::Crashed { code: Some(149), signal: None };
        assert_eq!(ended(Asked::No, Status::Exited(149), false, ""), faulted);
        assert_eq!(ended(Asked::No, Status::Unknown, false, ""), ExitCause::Unknown);
        assert_eq!(ended(Asked::Yes, Status::Signalled(9), false, ""), ExitCause::Stopped);
    }
}
