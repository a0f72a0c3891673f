//! What QEMU says of its guest's end.

use flames_vmm::end::GuestEnd;

/// By the `reason` of its last SHUTDOWN event.
pub(crate) fn guest_end(shutdown_reason: Option<&str>) -> GuestEnd {
    match shutdown_reason {
        Some("guest-panic") => GuestEnd::Panicked,
        Some("guest-reset" | "guest-shutdown") => GuestEnd::Ended,
        _ => GuestEnd::Untold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_guest_did_is_its_end() {
        assert_eq!(guest_end(Some("guest-reset")), GuestEnd::Ended);
        assert_eq!(guest_end(Some("guest-panic")), GuestEnd::Panicked);
        assert_eq!([guest_end(Some("host-signal")), guest_end(None)], [GuestEnd::Untold; 2]);
    }
}
