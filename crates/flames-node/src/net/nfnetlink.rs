//! Words with the kernel's firewall over netlink: asking for what it has, and hearing of what was changed.
//!
//! A socket belongs to the namespace of the thread that opened it. Closing one waits until the kernel has freed what
//! the last transactions replaced, some 12 ms, so that is done aside ([`aside`]).

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_packet_core::{NetlinkBuffer, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::libc;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// `NFNL_SUBSYS_NFTABLES` of linux/netfilter/nfnetlink.h, as it stands in a message's type.
const NFTABLES: u16 = 10 << 8;
/// `NFNLGRP_NFTABLES` of the same: whoever joins hears of every change.
const CHANGES: u32 = 7;
/// `struct nfgenmsg`: family, version, and a number that means nothing here.
const FAMILY_HEADER: usize = 4;
const MESSAGE_HEADER: usize = 16;
/// Room for what the kernel tells of a transaction with every rule that a policy may have.
const HEARD_BYTES: usize = 4 << 20;

/// What may be asked for or heard of: numbers of linux/netfilter/nf_tables.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    GetTable = 1,
    GetSet = 10,
    GetElements = 13,
    NewGeneration = 15,
    GetObject = 19,
}

/// A table's family, as netfilter numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Family {
    Inet = 1,
    Netdev = 5,
}

/// A socket to the firewall of one namespace.
pub(super) struct Firewall(Option<Socket>);

/// One message, without its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) family: u8,
    attributes: Vec<u8>,
}

impl Firewall {
    /// A socket in the namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        Ok(Self(Some(socket)))
    }

    /// A socket that hears of every change from now on.
    pub(super) fn listen() -> io::Result<Self> {
        let listener = Self::open()?;
        nix::sys::socket::setsockopt(&listener, nix::sys::socket::sockopt::RcvBufForce, &HEARD_BYTES)?;
        listener.socket()?.add_membership(CHANGES)?;
        listener.socket()?.set_non_blocking(true)?;
        Ok(listener)
    }

    /// Everything of a kind, of one family, whose attributes say what they should.
    ///
    /// # Errors
    /// What the kernel answers; `Interrupted` when a change came between its answers.
    pub(super) fn dump(
        &self,
        kind: Kind,
        family: Family,
        attributes: &[(u16, &str)],
    ) -> io::Result<Vec<Message>> {
        let socket = self.socket()?;
        socket.send_to(&request(kind, family, attributes), &SocketAddr::new(0, 0), 0)?;
        let mut messages = Vec::new();
        loop {
            let (bytes, _) = socket.recv_from_full()?;
            if collect(&bytes, &mut messages)? == Answer::Whole {
                return Ok(messages);
            }
        }
    }

    /// Whether a transaction of this process was heard of; what was heard before it is forgotten.
    ///
    /// # Errors
    /// More was told than there was room for.
    pub(super) fn heard_of(&self, process: u32) -> io::Result<bool> {
        loop {
            let bytes = match self.socket()?.recv_from_full() {
                Ok((bytes, _)) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            if generations(&bytes).any(|by| by == Some(process)) {
                return Ok(true);
            }
        }
    }

    fn socket(&self) -> io::Result<&Socket> {
        self.0.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsFd for Firewall {
    #[allow(clippy::expect_used, reason = "the socket is taken out by the drop alone")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("a socket").as_fd()
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        let socket = self.0.take();
        aside(move || drop(socket));
    }
}

/// Does something that only waits, on a thread of its own; here when there can be none.
pub(super) fn aside(work: impl FnOnce() + Send + 'static) {
    // A thread that cannot be started drops the work, and with it what it would have closed.
    let _ = std::thread::Builder::new().name("fl-nft-end".into()).spawn(work);
}

impl Message {
    /// The first attribute of a kind.
    pub(super) fn attribute(&self, kind: u16) -> Option<&[u8]> {
        attribute(&self.attributes, kind)
    }

    /// A name, which ends with a zero byte.
    pub(super) fn name(&self, kind: u16) -> Option<&str> {
        let name = self.attribute(kind)?;
        std::str::from_utf8(name.strip_suffix(&[0]).unwrap_or(name)).ok()
    }
}

/// The attributes that are written one after the other in some bytes; nothing after one that is broken.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let value = attribute.into_inner().get(4..usize::from(attribute.length()))?;
        Some((attribute.kind(), value))
    })
}

/// The first attribute of a kind among some.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(of, value)| (of == kind).then_some(value))
}

/// Eight bytes in the network's order.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

fn request(kind: Kind, family: Family, attributes: &[(u16, &str)]) -> Vec<u8> {
    let mut bytes = vec![0; MESSAGE_HEADER];
    bytes.extend([family as u8, 0, 0, 0]);
    for (of, text) in attributes {
        let length = u16::try_from(4 + text.len() + 1).unwrap_or(u16::MAX);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(of.to_ne_bytes());
        bytes.extend(text.as_bytes());
        bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut header = NetlinkBuffer::new(&mut bytes[..]);
    header.set_length(length);
    header.set_message_type(NFTABLES | kind as u16);
    header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    bytes
}

/// Whether an answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Whole,
    Continues,
}

/// Takes the messages out of what came at once.
fn collect(bytes: &[u8], messages: &mut Vec<Message>) -> io::Result<Answer> {
    for message in whole_messages(bytes) {
        if message.flags() & NLM_F_DUMP_INTR != 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match message.message_type() {
            NLMSG_DONE => return Ok(Answer::Whole),
            NLMSG_ERROR => return Err(refusal(message.payload())),
            _ => messages.extend(parsed(message.payload())),
        }
    }
    Ok(Answer::Continues)
}

fn whole_messages(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let length = usize::try_from(message.length()).ok()?.next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
        Some(message)
    })
}

fn parsed(payload: &[u8]) -> Option<Message> {
    let (header, attributes) = payload.split_at_checked(FAMILY_HEADER)?;
    Some(Message { family: header[0], attributes: attributes.to_owned() })
}

fn refusal(payload: &[u8]) -> io::Error {
    let code = payload.first_chunk().map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
    io::Error::from_raw_os_error(-code)
}

/// By which processes the transactions were made that some bytes tell of.
fn generations(bytes: &[u8]) -> impl Iterator<Item = Option<u32>> {
    const PROCESS: u16 = 2;
    let ends =
        |message: &NetlinkBuffer<&[u8]>| message.message_type() == NFTABLES | Kind::NewGeneration as u16;
    whole_messages(bytes).filter(ends).map(|message| {
        let process = parsed(message.payload())?.attribute(PROCESS)?.try_into().ok()?;
        Some(u32::from_be_bytes(process))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; MESSAGE_HEADER];
        bytes.extend(payload);
        let length = u32::try_from(bytes.len()).unwrap();
        let mut header = NetlinkBuffer::new(&mut bytes[..]);
        header.set_length(length);
        header.set_message_type(kind);
        header.set_flags(flags);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_request_says_what_is_asked_for_and_is_as_long_as_it_says() {
        let bytes = request(Kind::GetElements, Family::Inet, &[(1, "flames"), (2, "abc")]);
        let read = NetlinkBuffer::new_checked(&bytes[..]).unwrap();
        assert_eq!(usize::try_from(read.length()).unwrap(), bytes.len());
        assert_eq!(read.message_type(), NFTABLES | 13);
        let asked = parsed(read.payload()).unwrap();
        assert_eq!((asked.family, asked.name(1), asked.name(2)), (1, Some("flames"), Some("abc")));
        assert_eq!(asked.attribute(3), None);
    }

    #[test]
    fn an_answer_is_whole_when_the_kernel_says_so() {
        let mut messages = Vec::new();
        let first = message(NFTABLES, 0, &[5, 0, 0, 0, 5, 0, 1, 0, b'x', 0, 0, 0]);
        assert_eq!(collect(&first, &mut messages).unwrap(), Answer::Continues);
        let end = [first, message(NLMSG_DONE, 0, &[0; 4])].concat();
        assert_eq!(collect(&end, &mut messages).unwrap(), Answer::Whole);
        assert_eq!((messages.len(), messages[1].name(1)), (2, Some("x")));
    }

    #[test]
    fn refusals_and_changes_in_between_are_errors() {
        let mut messages = Vec::new();
        let refused = message(NLMSG_ERROR, 0, &(-libc::EPERM).to_ne_bytes());
        let error = collect(&refused, &mut messages).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let torn = message(NFTABLES, NLM_F_DUMP_INTR, &[0; 4]);
        assert_eq!(collect(&torn, &mut messages).unwrap_err().kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn bytes_that_are_cut_anywhere_are_read_without_harm() {
        let whole = message(NFTABLES | 15, 0, &[0, 0, 0, 0, 8, 0, 2, 0, 0, 0, 0x12, 0x34]);
        assert_eq!(generations(&whole).collect::<Vec<_>>(), [Some(0x1234)]);
        for cut in 0..whole.len() {
            assert_eq!(generations(&whole[..cut]).count(), 0);
            assert!(attributes(&whole[cut..]).count() < 8);
        }
    }
}
