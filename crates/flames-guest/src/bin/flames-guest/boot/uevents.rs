//! What the kernel says about its devices as they come.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Instant;

/// Tells of devices that came or changed since it was opened. Whoever waits for one looks again after each word.
#[derive(Debug)]
pub(super) struct Uevents(OwnedFd);

/// The kernel's own messages (lib/kobject_uevent.c); the other group is for udev.
const KERNEL: u32 = 1;

impl Uevents {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self(socket))
    }

    /// Returns when there was at least one message, and takes all there are.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`] at the deadline.
    pub(super) fn wait_until(&self, deadline: Instant) -> io::Result<()> {
        loop {
            if self.take_all()? {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // Rounded up, so that the last wait does not spin.
            let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take_all(&self) -> io::Result<bool> {
        let mut some = false;
        loop {
            match recv(self.0.as_raw_fd(), &mut [0; 64], MsgFlags::empty()) {
                // Messages that did not fit were lost: that, too, is a reason to look again.
                Ok(_) | Err(Errno::ENOBUFS) => some = true,
                Err(Errno::EAGAIN) => return Ok(some),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
