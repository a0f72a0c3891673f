//! A userfaultfd: what the kernel tells through it, and the three requests that answer it.

#![allow(unsafe_code, reason = "requests to the kernel that no crate wraps safely")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Another process's memory, to be filled.
#[derive(Debug)]
pub(super) struct Uffd(OwnedFd);

/// What the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Somebody waits for the page at this address.
    Fault { address: u64 },
    /// These pages were given back: what is touched there next is zero.
    Removed { start: u64, end: u64 },
    /// Of a kind that was not asked for.
    Other(u8),
}

/// How far filling memory came, and why it went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) bytes: u64,
    pub(super) stopped: Option<Stopped>,
}

/// What stops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Memory is being given back: that event comes first.
    Changing,
    /// The page is there already.
    Present,
    /// The process is ending.
    Gone,
    /// Anything else.
    Failed(nix::Error),
}

/// Bytes of one event.
const EVENT: usize = 32;
/// Events that one read brings at most.
const AT_ONCE: usize = 64;

impl Uffd {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    /// What has come since. The VMM made the descriptor non-blocking.
    pub(super) fn read(&self) -> io::Result<Vec<Event>> {
        let mut buffer = [0; EVENT * AT_ONCE];
        match rustix::io::read(&self.0, &mut buffer) {
            Ok(count) => Ok(buffer[..count].chunks_exact(EVENT).map(event).collect()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts `content`, whole pages, at `address`, and wakes who waits there.
    pub(super) fn copy(&self, address: u64, content: &[u8]) -> Filled {
        let len = content.len() as u64;
        let mut request = Copy { dst: address, src: content.as_ptr() as u64, len, mode: 0, copied: 0 };
        // SAFETY: the structure is the kernel's `struct uffdio_copy`, `src` and `len` are those of a slice that lives
        // until the call returns, and the kernel writes to `request` alone: `dst` is in the memory of whoever made the
        // descriptor, and is checked against what is registered there.
        let outcome = unsafe { uffdio_copy(self.0.as_raw_fd(), &raw mut request) };
        filled(outcome.err(), request.copied, len)
    }

    /// Fills with zeroes, and wakes who waits there.
    pub(super) fn zero(&self, address: u64, len: u64) -> Filled {
        let mut request = Zero { range: Range { start: address, len }, mode: 0, zeroed: 0 };
        // SAFETY: the structure is the kernel's `struct uffdio_zeropage`, and the kernel writes to it alone.
        let outcome = unsafe { uffdio_zeropage(self.0.as_raw_fd(), &raw mut request) };
        filled(outcome.err(), request.zeroed, len)
    }

    /// Wakes who waits for pages that are there.
    pub(super) fn wake(&self, address: u64, len: u64) -> nix::Result<()> {
        let mut range = Range { start: address, len };
        // SAFETY: the structure is the kernel's `struct uffdio_range`, which it reads.
        unsafe { uffdio_wake(self.0.as_raw_fd(), &raw mut range) }.map(drop)
    }
}

fn filled(error: Option<nix::Error>, done: i64, len: u64) -> Filled {
    let bytes = u64::try_from(done).unwrap_or(0).min(len);
    let stopped = match error {
        None => None,
        // Some of it was done, and it can go on.
        Some(_) if bytes > 0 => None,
        Some(nix::Error::EAGAIN) => Some(Stopped::Changing),
        Some(nix::Error::EEXIST) => Some(Stopped::Present),
        Some(nix::Error::ESRCH) => Some(Stopped::Gone),
        Some(other) => Some(Stopped::Failed(other)),
    };
    Filled { bytes, stopped }
}

const FAULT: u8 = 0x12;
const REMOVED: u8 = 0x15;

/// The kernel's `struct uffd_msg`: the kind, then from byte 8 on what belongs to it.
fn event(message: &[u8]) -> Event {
    let number = |at: usize| {
        let bytes = message.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    };
    match message.first() {
        Some(&FAULT) => Event::Fault { address: number(16) },
        Some(&REMOVED) => Event::Removed { start: number(8), end: number(16) },
        other => Event::Other(other.copied().unwrap_or(0)),
    }
}

#[repr(C)]
#[derive(Debug)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
#[derive(Debug)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
#[derive(Debug)]
struct Zero {
    range: Range,
    mode: u64,
    zeroed: i64,
}

const UFFDIO: u8 = 0xAA;

nix::ioctl_read!(uffdio_wake, UFFDIO, 0x02, Range);
nix::ioctl_readwrite!(uffdio_copy, UFFDIO, 0x03, Copy);
nix::ioctl_readwrite!(uffdio_zeropage, UFFDIO, 0x04, Zero);

/// The numbers of these requests, for the filter of system calls.
pub(super) const REQUESTS: [u64; 3] = [
    nix::request_code_read!(UFFDIO, 0x02, size_of::<Range>()) as u64,
    nix::request_code_readwrite!(UFFDIO, 0x03, size_of::<Copy>()) as u64,
    nix::request_code_readwrite!(UFFDIO, 0x04, size_of::<Zero>()) as u64,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_by_their_kind() {
        let message = |kind: u8, numbers: [u64; 3]| {
            let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
            event(&bytes)
        };
        assert_eq!(message(0x12, [1, 0x7000, 0]), Event::Fault { address: 0x7000 });
        assert_eq!(message(0x15, [0x7000, 0x9000, 0]), Event::Removed { start: 0x7000, end: 0x9000 });
        assert_eq!(message(0x13, [0; 3]), Event::Other(0x13));
    }

    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!(REQUESTS, [0x8010_aa02, 0xc028_aa03, 0xc020_aa04]);
    }

    #[test]
    fn what_stopped_after_some_progress_goes_on() {
        let again = Some(nix::Error::EAGAIN);
        assert_eq!(filled(again, 4096, 8192), Filled { bytes: 4096, stopped: None });
        assert_eq!(filled(again, -11, 8192), Filled { bytes: 0, stopped: Some(Stopped::Changing) });
        assert_eq!(filled(None, 8192, 8192), Filled { bytes: 8192, stopped: None });
        let gone = filled(Some(nix::Error::ESRCH), 0, 1);
        assert_eq!(gone.stopped, Some(Stopped::Gone));
    }
}
