//! The kernel's list of connections in a namespace: to cut those that a policy no longer allows.
//!
//! A rule decides about packets; a connection that may not go on would still have its last answers come in. An
//! entry that is taken out of the list has no answers: what comes for it is for nobody.

use super::{GUEST_IP, HOST_IP};
use crate::paths::io_error;
use flames_vmm::Result;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, socket,
};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

// Numbers of linux/netlink.h and linux/netfilter/nfnetlink_conntrack.h.
const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
const NLM_REQUEST: u16 = 0x1;
const NLM_ACK: u16 = 0x4;
const NLM_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;
/// The kernel marks attributes that hold others.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
const HEADER: usize = 16 + 4;

/// A connection that the guest began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) to: Ipv4Addr,
    pub(super) protocol: u8,
    /// 0 where the protocol has no ports.
    pub(super) port: u16,
}

/// Cuts the guest's connections that may not go on, in the namespace of the calling thread, and tells how many.
/// Those that end at this program are its own to cut.
pub(super) fn cut(may_go_on: impl Fn(&Flow) -> bool) -> Result<usize> {
    cut_in(may_go_on).map_err(|error| io_error("connections", "conntrack", "cut", error))
}

fn cut_in(may_go_on: impl Fn(&Flow) -> bool) -> io::Result<usize> {
    let list = List::open()?;
    let condemned: Vec<Vec<u8>> = list
        .entries()?
        .into_iter()
        .filter_map(|entry| entry.flow.filter(|flow| !may_go_on(flow)).map(|_| entry.original))
        .collect();
    for original in &condemned {
        list.delete(original)?;
    }
    Ok(condemned.len())
}

/// One connection: what it is to us, and how the kernel calls it.
struct Entry {
    /// `None` unless the guest began it and it leaves the namespace.
    flow: Option<Flow>,
    /// The attribute of the original direction, as the kernel wrote it.
    original: Vec<u8>,
}

struct List(OwnedFd);

impl List {
    fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let netfilter = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, netfilter)?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        self.request(CT_GET, NLM_REQUEST | NLM_DUMP, &[])?;
        let mut entries = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (kind, body) in messages(&buffer[..length]) {
                match kind {
                    NLMSG_DONE => return Ok(entries),
                    NLMSG_ERROR => error_of(body)?,
                    _ => entries.extend(entry(body.get(4..).unwrap_or_default())),
                }
            }
        }
    }

    fn delete(&self, original: &[u8]) -> io::Result<()> {
        self.request(CT_DELETE, NLM_REQUEST | NLM_ACK, original)?;
        let mut buffer = [0; 4096];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let answer = messages(&buffer[..length]).next();
        match answer.map_or(Ok(()), |(_, body)| error_of(body)) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(()), // ended by itself
            outcome => outcome,
        }
    }

    fn request(&self, kind: u16, flags: u16, attributes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(HEADER + attributes.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADER + attributes.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]); // sequence and port: one question at a time, and the kernel knows who asks
        let family = u8::try_from(nix::libc::AF_INET).unwrap_or_default();
        message.extend([family, 0, 0, 0]);
        message.extend(attributes);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }
}

/// The messages of a datagram, each with its type and what follows the header.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let body = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The attributes in a piece of a message, each with its type, its value and its whole self.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & ATTRIBUTE_TYPE;
        let (value, whole) = (bytes.get(4..length)?, bytes.get(..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value, whole))
    })
}

fn value(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, ..)| *found == kind).map(|(_, value, _)| value)
}

fn error_of(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

fn entry(body: &[u8]) -> Option<Entry> {
    let original = attributes(body).find(|(kind, ..)| *kind == TUPLE_ORIG)?;
    let reply = value(body, TUPLE_REPLY)?;
    let leaves = address(reply, IP_V4_SRC)? != HOST_IP;
    let flow = flow(original.1).filter(|_| leaves && address(original.1, IP_V4_SRC) == Some(GUEST_IP));
    let mut whole = original.2.to_vec();
    whole.resize(whole.len().next_multiple_of(4), 0);
    Some(Entry { flow, original: whole })
}

fn flow(tuple: &[u8]) -> Option<Flow> {
    let protocol = value(tuple, TUPLE_PROTO)?;
    let port = value(protocol, PROTO_DST_PORT).and_then(|port| port.try_into().ok());
    Some(Flow {
        to: address(tuple, IP_V4_DST)?,
        protocol: *value(protocol, PROTO_NUM)?.first()?,
        port: port.map_or(0, u16::from_be_bytes),
    })
}

fn address(tuple: &[u8], which: u16) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = value(value(tuple, TUPLE_IP)?, which)?.try_into().ok()?;
    Some(Ipv4Addr::from(bytes))
}
