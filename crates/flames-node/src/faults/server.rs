//! The life of a handler that has its client: what waits is served first, then what is known to be wanted is fetched.

use super::client::{Client, Given};
use super::pages::{Answer, Pages};
use super::uffd::{Event, Filled, Stopped, Uffd};
use flames_vmm::faults::{Orders, WorkingSet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Serves one VMM.
#[derive(Debug)]
pub(super) struct Server {
    uffd: Uffd,
    vmm: OwnedFd,
    memory: File,
    memory_bytes: u64,
    page_bytes: u64,
    pages: Pages,
    /// Addresses that somebody waits for.
    waiting: VecDeque<u64>,
    ahead: VecDeque<Range<u64>>,
    record: Option<Record>,
    counts: Counts,
    buffer: Vec<u8>,
}

/// First touches, in their order.
#[derive(Debug)]
struct Record {
    lasts: Duration,
    began: Option<Instant>,
    touched: Vec<u64>,
}

/// What was done, for the log.
#[derive(Debug, Default)]
struct Counts {
    faults: u64,
    zeroed: u64,
    woken: u64,
    ahead: u64,
    removals: u64,
}

/// Why serving cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("it cannot wait for page faults: {0}")]
    Wait(#[source] io::Error),
    #[error("a fault at {0:#x} is in no memory of the guest's")]
    Address(u64),
    #[error("the snapshot's memory cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("a page cannot be filled: {0}")]
    Fill(nix::Error),
}

/// What came of trying to fill a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    Done,
    /// Events come first.
    Later,
}

/// Bytes that are fetched ahead before it is looked whether somebody waits.
const AT_ONCE: u64 = 256 * 1024;
/// When memory is just being given back, no event says that this is over; it is a matter of microseconds.
const SOON: Duration = Duration::from_millis(1);

impl Server {
    /// A working set of other pages than the client's is passed over.
    pub(super) fn new(given: Given, client: Client, ahead: Option<&WorkingSet>, orders: &Orders) -> Self {
        let Client { uffd, regions, page_bytes } = client;
        let fitting = ahead.filter(|set| set.page_bytes() == page_bytes);
        let memory_bytes = regions.iter().map(|region| region.pages * page_bytes).sum();
        let record = orders.record_ms.map(|ms| Record {
            lasts: Duration::from_millis(ms),
            began: None,
            touched: Vec::new(),
        });
        Self {
            uffd,
            vmm: given.vmm,
            memory: given.memory,
            memory_bytes,
            page_bytes,
            pages: Pages::new(regions, page_bytes),
            waiting: VecDeque::new(),
            ahead: fitting.into_iter().flat_map(WorkingSet::runs).collect(),
            record,
            counts: Counts::default(),
            buffer: Vec::new(),
        }
    }

    /// Until the VMM has ended.
    pub(super) fn run(mut self) -> Result<(), ServeError> {
        let ended = self.serve();
        self.tell();
        ended
    }

    fn serve(&mut self) -> Result<(), ServeError> {
        while self.wait()? {
            let removals = self.counts.removals;
            for event in self.uffd.read().map_err(ServeError::Wait)? {
                self.note(event);
            }
            if removals == 0 && self.counts.removals > 0 {
                self.tell();
            }
            let all = self.answer_all()?;
            if all == Tried::Done {
                self.fetch_ahead()?;
            }
            self.end_record();
        }
        Ok(())
    }

    /// True when there may be something to do, false when the VMM has ended.
    fn wait(&self) -> Result<bool, ServeError> {
        let timeout = self.timeout().and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut polled =
            [PollFd::new(self.uffd.descriptor(), PollFlags::IN), PollFd::new(&self.vmm, PollFlags::IN)];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => Ok(polled[1].revents().is_empty()),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(ServeError::Wait(error.into())),
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.waiting.is_empty() {
            return Some(SOON);
        }
        if !self.ahead.is_empty() {
            return Some(Duration::ZERO);
        }
        let record = self.record.as_ref()?;
        Some(record.lasts.saturating_sub(record.began?.elapsed()))
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Fault { address } => self.waiting.push_back(address),
            Event::Removed { start, end } => {
                self.counts.removals += 1;
                self.pages.removed(start, end);
            }
            // Not asked for by Firecracker; nothing waits for an answer to it.
            Event::Other(_) => {}
        }
    }

    fn answer_all(&mut self) -> Result<Tried, ServeError> {
        while let Some(address) = self.waiting.front().copied() {
            if self.answer(address)? == Tried::Later {
                return Ok(Tried::Later);
            }
            self.waiting.pop_front();
        }
        Ok(Tried::Done)
    }

    fn answer(&mut self, address: u64) -> Result<Tried, ServeError> {
        let answer = self.pages.fault(address).ok_or(ServeError::Address(address))?;
        let (Answer::Copy(page) | Answer::Zero(page) | Answer::Wake(page)) = answer;
        let at = self.pages.address(page).ok_or(ServeError::Address(address))?;
        let filled = match answer {
            Answer::Copy(_) => self.copy(page..page + 1, at)?,
            Answer::Zero(_) => self.zero(at),
            Answer::Wake(_) => Filled { bytes: 0, stopped: Some(Stopped::Present) },
        };
        match filled.stopped {
            None => self.pages.filled(page..page + 1),
            Some(Stopped::Present) => {
                self.pages.filled(page..page + 1);
                self.uffd.wake(at, self.page_bytes).map_err(ServeError::Fill)?;
            }
            Some(Stopped::Changing) => return Ok(Tried::Later),
            // Its end is told by its pidfd.
            Some(Stopped::Gone) => {}
            Some(Stopped::Failed(error)) => return Err(ServeError::Fill(error)),
        }
        self.count(answer);
        Ok(Tried::Done)
    }

    fn count(&mut self, answer: Answer) {
        match answer {
            Answer::Copy(page) => {
                self.counts.faults += 1;
                if let Some(record) = &mut self.record {
                    record.began.get_or_insert_with(Instant::now);
                    record.touched.push(page);
                }
            }
            Answer::Zero(_) => self.counts.zeroed += 1,
            Answer::Wake(_) => self.counts.woken += 1,
        }
    }

    /// One piece of what is known to be wanted.
    fn fetch_ahead(&mut self) -> Result<(), ServeError> {
        let Some(run) = self.ahead.pop_front() else { return Ok(()) };
        let (stretch, rest) = self.pages.absent(run, (AT_ONCE / self.page_bytes).max(1));
        if !rest.is_empty() {
            self.ahead.push_front(rest);
        }
        let Some(at) = self.pages.address(stretch.start).filter(|_| !stretch.is_empty()) else {
            return Ok(());
        };
        let filled = self.copy(stretch.clone(), at)?;
        let done = stretch.start + filled.bytes / self.page_bytes;
        self.pages.filled(stretch.start..done);
        self.counts.ahead += done - stretch.start;
        match filled.stopped {
            Some(Stopped::Failed(error)) => return Err(ServeError::Fill(error)),
            // Somebody else filled it: the rest is looked at again.
            Some(Stopped::Present) => self.pages.filled(done..done + 1),
            Some(Stopped::Changing | Stopped::Gone) | None => {}
        }
        if self.ahead.is_empty() && done == stretch.end {
            self.tell();
        }
        if done < stretch.end && filled.stopped != Some(Stopped::Gone) {
            self.ahead.push_front(done..stretch.end);
        }
        Ok(())
    }

    fn copy(&mut self, pages: Range<u64>, at: u64) -> Result<Filled, ServeError> {
        let bytes = (pages.end - pages.start) * self.page_bytes;
        self.buffer.resize(usize::try_from(bytes).unwrap_or(0), 0);
        self.memory
            .read_exact_at(&mut self.buffer, pages.start * self.page_bytes)
            .map_err(ServeError::Read)?;
        Ok(self.uffd.copy(at, &self.buffer))
    }

    /// Huge pages are not filled with zeroes by the kernel.
    fn zero(&mut self, at: u64) -> Filled {
        if self.page_bytes == SMALL_PAGE {
            return self.uffd.zero(at, self.page_bytes);
        }
        self.buffer.clear();
        self.buffer.resize(usize::try_from(self.page_bytes).unwrap_or(0), 0);
        self.uffd.copy(at, &self.buffer)
    }

    /// Hands the record over once its time is up. Who is no longer there to read it has no use for it.
    fn end_record(&mut self) {
        let is_over = |record: &mut Record| record.began.is_some_and(|began| began.elapsed() >= record.lasts);
        let Some(record) = self.record.take_if(is_over) else { return };
        let set = WorkingSet::of(record.touched, self.page_bytes, self.memory_bytes);
        let told = set.to_json().map_err(io::Error::from).and_then(|json| {
            let mut out = io::stdout();
            out.write_all(&json).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush())
        });
        if told.is_ok() {
            self.tell();
        }
    }

    /// In the log.
    fn tell(&self) {
        let Counts { faults, zeroed, woken, ahead, removals } = self.counts;
        let _nobody_reads_it = writeln!(
            io::stderr(),
            "pages: {faults} faults served, {ahead} fetched ahead, {zeroed} zeroed, {woken} there already, \
             {removals} removals"
        );
    }
}

const SMALL_PAGE: u64 = 4096;
