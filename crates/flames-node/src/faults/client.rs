//! What the handler was started with, and the VMM's hand-over: its userfaultfd, and where its memory is.

use super::pages::Region;
use super::uffd::Uffd;
use flames_vmm::faults::{LISTENER, MEMORY, Unusable, VMM, WORKING_SET, WorkingSet};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

/// The descriptors that this process was started with.
#[derive(Debug)]
pub(super) struct Given {
    listener: OwnedFd,
    pub(super) memory: File,
    pub(super) vmm: OwnedFd,
    working_set: File,
}

/// A VMM that handed over its memory.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) uffd: Uffd,
    pub(super) regions: Vec<Region>,
    pub(super) page_bytes: u64,
}

/// Why a hand-over is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it names no memory: {0}")]
    Garbled(#[from] serde_json::Error),
    #[error("it brings {0} descriptors and not one")]
    Descriptors(usize),
    #[error("it speaks of memory that the snapshot does not have")]
    Memory,
}

impl From<rustix::io::Errno> for ClientError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

/// One region of the guest's memory, in Firecracker's words.
#[derive(Debug, Deserialize)]
struct Mapping {
    base_host_virt_addr: u64,
    size: u64,
    offset: u64,
    page_size: u64,
}

/// A hand-over is a few hundred bytes.
const MAX_HAND_OVER: usize = 16 * 1024;

impl Given {
    #[allow(unsafe_code)]
    pub(super) fn take() -> Self {
        // SAFETY: whoever starts a handler opens these descriptors for it alone, nothing else in this process has them,
        // and this is called once.
        let own = |number| unsafe { OwnedFd::from_raw_fd(number) };
        Self {
            listener: own(LISTENER),
            memory: own(MEMORY).into(),
            vmm: own(VMM),
            working_set: own(WORKING_SET).into(),
        }
    }

    /// What is to be fetched ahead, if that is known.
    pub(super) fn working_set(&self) -> Result<Option<WorkingSet>, ClientError> {
        let mut text = Vec::new();
        (&self.working_set).read_to_end(&mut text)?;
        if text.is_empty() {
            return Ok(None);
        }
        match WorkingSet::parse(&text, self.memory.metadata()?.len()) {
            Ok(set) => Ok(Some(set)),
            Err(Unusable::Garbled(error)) => Err(error.into()),
            Err(_) => Err(ClientError::Memory),
        }
    }
}

/// Waits for the VMM to be told to restore its guest. `None` if it ended before.
pub(super) fn await_client(given: &Given) -> Result<Option<Client>, ClientError> {
    if !await_either(given, given.listener.as_fd())? {
        return Ok(None);
    }
    let client = rustix::net::accept_with(&given.listener, SocketFlags::CLOEXEC)?;
    if !await_either(given, client.as_fd())? {
        return Ok(None);
    }
    let (text, uffd) = receive(&client)?;
    let mappings: Vec<Mapping> = serde_json::from_slice(&text)?;
    let (regions, page_bytes) = regions(&mappings, given.memory.metadata()?.len())?;
    Ok(Some(Client { uffd: Uffd::new(uffd), regions, page_bytes }))
}

/// True when `socket` has something to read, false when the VMM has ended.
fn await_either(given: &Given, socket: impl AsFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&given.vmm, PollFlags::IN)];
    while let Err(error) = poll(&mut polled, None) {
        if error != rustix::io::Errno::INTR {
            return Err(error.into());
        }
    }
    Ok(!polled[0].revents().is_empty())
}

fn receive(client: &OwnedFd) -> Result<(Vec<u8>, OwnedFd), ClientError> {
    let mut text = vec![0; MAX_HAND_OVER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [IoSliceMut::new(&mut text)];
    let got = rustix::net::recvmsg(client, &mut buffer, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let mut descriptors: Vec<OwnedFd> = rights.flatten().collect();
    text.truncate(got.bytes);
    match (descriptors.pop(), descriptors.len()) {
        (Some(uffd), 0) => Ok((text, uffd)),
        (_, others) => Err(ClientError::Descriptors(others)),
    }
}

/// A VMM that was broken into may say anything: every page must lie in the snapshot, and once.
fn regions(mappings: &[Mapping], memory_bytes: u64) -> Result<(Vec<Region>, u64), ClientError> {
    let page_bytes = mappings.first().map_or(0, |first| first.page_size);
    let mut end = 0;
    for one in mappings {
        let whole = |number: u64| page_bytes != 0 && number.is_multiple_of(page_bytes);
        let fits = one.offset == end && one.base_host_virt_addr.checked_add(one.size).is_some();
        let pages = one.page_size == page_bytes
            && [one.size, one.offset, one.base_host_virt_addr].into_iter().all(whole);
        end = one.offset.checked_add(one.size).ok_or(ClientError::Memory)?;
        if !fits || !pages {
            return Err(ClientError::Memory);
        }
    }
    if end != memory_bytes || !page_bytes.is_power_of_two() || !(4096..=1 << 30).contains(&page_bytes) {
        return Err(ClientError::Memory);
    }
    let region = |one: &Mapping| Region {
        address: one.base_host_virt_addr,
        first: one.offset / page_bytes,
        pages: one.size / page_bytes,
    };
    Ok((mappings.iter().map(region).collect(), page_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(base_host_virt_addr: u64, size: u64, offset: u64) -> Mapping {
        Mapping { base_host_virt_addr, size, offset, page_size: 4096 }
    }

    #[test]
    fn regions_that_are_not_the_snapshots_memory_are_refused() {
        let good = [mapping(0x7000_0000, 8192, 0), mapping(0x9000_0000, 4096, 8192)];
        let (made, page_bytes) = regions(&good, 12288).unwrap();
        assert_eq!((made[1].address, made[1].first, made[1].pages, page_bytes), (0x9000_0000, 2, 1, 4096));
        let bad: [&[Mapping]; 6] = [
            &[],
            &[mapping(0x7000_0000, 4096, 0)],
            &[mapping(0x7000_0000, 16384, 0)],
            &[mapping(0x7000_0001, 12288, 0)],
            &[mapping(u64::MAX - 4095, 12288, 0)],
            &[mapping(0x7000_0000, 8192, 0), mapping(0x9000_0000, 4096, 4096)],
        ];
        for mappings in bad {
            assert!(matches!(regions(mappings, 12288), Err(ClientError::Memory)), "{mappings:?}");
        }
        let small_pages = [Mapping { page_size: 1000, ..mapping(0x7000_0000, 12288, 0) }];
        assert!(regions(&small_pages, 12288).is_err());
    }
}
