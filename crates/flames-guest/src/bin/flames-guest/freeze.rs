//! Freezes the sandbox's disk, so that a copy taken of it while the machine stands still is whole: everything written
//! before is on it, and its journal is empty.
#![allow(unsafe_code, reason = "the file system's ioctls have no safe wrapper")]

use crate::boot::OwnDisk;
use flames_guest::control::THAW_AFTER;
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// `FIFREEZE`: `_IOWR('X', 119, int)`.
const FREEZE: libc::Ioctl = 0xc004_5877_u32 as libc::Ioctl;
/// `FITHAW`: `_IOWR('X', 120, int)`.
const THAW: libc::Ioctl = 0xc004_5878_u32 as libc::Ioctl;

/// Freezes a disk and thaws it. The guest of somebody's host has none of its own: there both do nothing.
#[derive(Debug)]
pub(crate) struct Freezer {
    disk: Option<Arc<OwnDisk>>,
    turns: Arc<Turns>,
}

/// How often the disk was frozen or thawed so far: who thaws late must know whether somebody else did meanwhile.
#[derive(Debug, Default)]
struct Turns {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Freezer {
    pub(crate) fn of(disk: Arc<OwnDisk>) -> Self {
        Self { disk: Some(disk), turns: Arc::default() }
    }

    pub(crate) fn none() -> Self {
        Self { disk: None, turns: Arc::default() }
    }

    /// Writes everything out and lets whoever writes wait, for [`THAW_AFTER`] at most. Of a frozen disk that time begins
    /// anew.
    ///
    /// # Errors
    /// What the file system answers: an error of the disk, mostly.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        // Most of the work, before the time begins to run and while others may still write.
        nix::unistd::syncfs(disk.file()).map_err(io::Error::from)?;
        let turn = self.turns.next();
        let (turns, late) = (Arc::clone(&self.turns), Arc::clone(disk));
        // A thread of its own, made beforehand: any other may be what waits for the disk.
        std::thread::Builder::new().name("thaw".into()).spawn(move || turns.thaw_late(turn, &late))?;
        match control(disk.file(), FREEZE) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            frozen => frozen,
        }
    }

    /// Lets everybody write again.
    ///
    /// # Errors
    /// What the file system answers.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        self.turns.next();
        thaw(disk)
    }
}

impl Turns {
    fn next(&self) -> u64 {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        self.changed.notify_all();
        *count
    }

    /// Thaws the disk unless somebody froze or thawed it since `turn`.
    fn thaw_late(&self, turn: u64, disk: &OwnDisk) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(count, THAW_AFTER, |count| *count == turn);
        let (count, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *count == turn {
            eprintln!("flames-guest: nobody thawed the disk in time");
            if let Err(error) = thaw(disk) {
                eprintln!("flames-guest: cannot thaw the disk: {error}");
            }
        }
    }
}

/// One that is not frozen is fine.
fn thaw(disk: &OwnDisk) -> io::Result<()> {
    match control(disk.file(), THAW) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        thawed => thawed,
    }
}

fn control(file: &File, request: libc::Ioctl) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the kernel reads nothing of the argument.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), request, 0) }).map(drop).map_err(io::Error::from)
}
