//! Pseudo-terminals: making one, its size, and the way a process takes it.
#![allow(unsafe_code, reason = "the size of a terminal and its session have no safe wrapper here")]

use crate::users::User;
use flames_guest::process::{Pty, PtySize};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::pty::{Winsize, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Uid, fchown};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use tokio::net::unix::pipe;

/// The agent's side of a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: OwnedFd,
}

/// What a new terminal is made of.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) terminal: Terminal,
    /// The process's side: its standard input, output and error.
    pub(super) device: OwnedFd,
    pub(super) output: pipe::Receiver,
    pub(super) input: pipe::Sender,
}

/// What a caller gets who gives no size.
const SIZE: PtySize = PtySize { cols: 80, rows: 24 };

/// Makes a terminal that belongs to the user.
pub(super) fn open_terminal(wanted: &Pty, user: &User) -> io::Result<Opened> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname_r(&master)?;
    let device = open(name.as_str(), OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty())?;
    if Uid::effective().is_root() {
        fchown(&device, Some(user.uid), None)?;
        fchmod(&device, Mode::from_bits_truncate(0o620))?;
    }
    let terminal = Terminal { master: master.as_fd().try_clone_to_owned()? };
    terminal.resize(wanted.size.unwrap_or(SIZE))?;
    let output = pipe::Receiver::from_file_unchecked(terminal.master.try_clone()?.into())?;
    let input = pipe::Sender::from_file_unchecked(terminal.master.try_clone()?.into())?;
    Ok(Opened { terminal, device, output, input })
}

impl Terminal {
    /// Changes the size; the programs on it are told by a signal.
    pub(crate) fn resize(&self, size: PtySize) -> io::Result<()> {
        let cut = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        let size = Winsize { ws_row: cut(size.rows), ws_col: cut(size.cols), ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open, and `size` lives through the call, which only reads it.
        let set = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        Ok(Errno::result(set).map(drop)?)
    }
}

/// Makes standard input the controlling terminal. Runs between fork and exec, after a session was begun: one
/// system call.
pub(super) fn take_terminal() -> io::Result<()> {
    // SAFETY: descriptor 0 is the terminal by now, and the call takes a plain number.
    let taken = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) };
    Ok(Errno::result(taken).map(drop)?)
}
