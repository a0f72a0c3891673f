//! Why a VMM's process ended: a pure decision over what was observed.

use flames_vmm::ExitCause;
use flames_vmm::process::Status;

/// What was seen of an end.
#[derive(Clone, Debug)]
pub(crate) struct Evidence<'a> {
    pub(crate) asked: Asked,
    pub(crate) status: Status,
    /// `reason` of QEMU's last SHUTDOWN event.
    pub(crate) shutdown_reason: Option<&'a str>,
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

pub(crate) fn cause(evidence: &Evidence<'_>) -> ExitCause {
    match evidence.shutdown_reason {
        Some("guest-panic") => ExitCause::GuestPanic,
        Some("guest-reset" | "guest-shutdown") if evidence.console_tail.contains(PANIC) => {
            ExitCause::GuestPanic
        }
        Some("guest-reset" | "guest-shutdown") => ExitCause::GuestShutdown,
        _ if evidence.asked == Asked::Yes => ExitCause::Stopped,
        _ => without_word_from_the_guest(evidence.status),
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

    fn ended(status: Status, shutdown_reason: Option<&'static str>, console_tail: &'static str) -> ExitCause {
        cause(&Evidence { asked: Asked::No, status, shutdown_reason, console_tail })
    }

    #[test]
    fn a_reset_is_a_shutdown_unless_the_kernel_spoke_of_a_panic() {
        let clean = Status::Exited(0);
        assert_eq!(ended(clean, Some("guest-reset"), "bye"), ExitCause::GuestShutdown);
        assert_eq!(
            ended(clean, Some("guest-reset"), "[1.2] Kernel panic - not syncing: oom"),
            ExitCause::GuestPanic
        );
    }

    #[test]
    fn an_end_without_a_word_from_the_guest_is_a_crash_with_what_is_known() {
        let killed = ExitCause::Crashed { code: None, signal: Some(9) };
        assert_eq!(ended(Status::Signalled(9), None, ""), killed);
        let terminated = ExitCause::Crashed { code: Some(0), signal: None };
        assert_eq!(ended(Status::Exited(0), Some("host-signal"), ""), terminated);
        assert_eq!(ended(Status::Unknown, None, ""), ExitCause::Unknown);
    }

    #[test]
    fn an_end_that_was_asked_for_is_no_crash_and_a_guest_that_obeyed_was_not_stopped_by_force() {
        let asked = |status, shutdown_reason| {
            cause(&Evidence { asked: Asked::Yes, status, shutdown_reason, console_tail: "" })
        };
        assert_eq!(asked(Status::Signalled(9), None), ExitCause::Stopped);
        assert_eq!(asked(Status::Exited(0), Some("guest-reset")), ExitCause::GuestShutdown);
    }
}
