//! Ethernet frames as a hostile guest would write them.

use crate::net::{GUEST_IP, GUEST_MAC, HOST_IP, HOST_MAC};
use std::net::Ipv4Addr;

pub(super) const BROADCAST: [u8; 6] = [0xff; 6];
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// An IPv4 packet in a frame. The usual values are those of an honest guest.
#[derive(Clone, Debug)]
pub(super) struct Ip {
    pub(super) source_mac: [u8; 6],
    pub(super) target_mac: [u8; 6],
    pub(super) source: Ipv4Addr,
    pub(super) target: Ipv4Addr,
    pub(super) protocol: u8,
    pub(super) options: Vec<u8>,
    /// The field of flags and offset.
    pub(super) fragment: u16,
    pub(super) payload: Vec<u8>,
}

impl Ip {
    pub(super) fn to(target: Ipv4Addr) -> Self {
        Self {
            source_mac: GUEST_MAC.0,
            target_mac: HOST_MAC.0,
            source: GUEST_IP,
            target,
            protocol: 17,
            options: Vec::new(),
            fragment: 0,
            payload: udp(4000, 9),
        }
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        let words = 5 + self.options.len() / 4;
        let length = u16::try_from(words * 4 + self.payload.len()).unwrap();
        let mut header = vec![0x40 | u8::try_from(words).unwrap(), 0];
        header.extend(length.to_be_bytes());
        header.extend([0x12, 0x34]);
        header.extend(self.fragment.to_be_bytes());
        header.extend([64, self.protocol, 0, 0]);
        header.extend(self.source.octets());
        header.extend(self.target.octets());
        header.extend(&self.options);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.extend(&self.payload);
        ethernet(self.target_mac, self.source_mac, IPV4, &header)
    }
}

pub(super) fn ethernet(to: [u8; 6], from: [u8; 6], kind: [u8; 2], body: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind, body].concat()
}

/// A UDP packet without checksum, which is legal.
pub(super) fn udp(from: u16, to: u16) -> Vec<u8> {
    let body = b"let me out";
    let length = u16::try_from(8 + body.len()).unwrap();
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], body].concat()
}

/// The first segment of a connection.
pub(super) fn syn(source: Ipv4Addr, target: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut segment = [&4000u16.to_be_bytes()[..], &port.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    segment.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let length = u16::try_from(segment.len()).unwrap();
    let pseudo = [&source.octets()[..], &target.octets(), &[0, 6], &length.to_be_bytes(), &segment].concat();
    let sum = checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

pub(super) fn ping() -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0, 0, 1, 0, 1];
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// An ARP packet: operation 1 asks, 2 answers.
pub(super) fn arp(
    operation: u16,
    sender: ([u8; 6], Ipv4Addr),
    target: ([u8; 6], Ipv4Addr),
    to: [u8; 6],
) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4];
    body.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        body.extend(mac);
        body.extend(address.octets());
    }
    ethernet(to, GUEST_MAC.0, ARP, &body)
}

/// The question that an honest guest asks.
pub(super) fn honest_arp() -> Vec<u8> {
    arp(1, (GUEST_MAC.0, GUEST_IP), ([0; 6], HOST_IP), BROADCAST)
}

/// A neighbour solicitation's worth of IPv6: enough to see whether any passes.
pub(super) fn ipv6(to: [u8; 6]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 8, 58, 255];
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([128, 0, 0, 0, 0, 1, 0, 1]);
    ethernet(to, GUEST_MAC.0, IPV6, &packet)
}

fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
