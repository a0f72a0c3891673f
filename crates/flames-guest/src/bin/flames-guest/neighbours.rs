//! The table of link addresses, which a clone inherits from its source.
#![allow(unsafe_code, reason = "the table's ioctl has no safe wrapper")]

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// The only interface with neighbours.
const INTERFACE: &str = "eth0";

/// Forgets the link addresses of all neighbours but `fresh`, who was heard a moment ago.
pub(crate) fn flush(fresh: IpAddr) -> io::Result<()> {
    let table = std::fs::read_to_string("/proc/net/arp")?;
    let stale: Vec<Ipv4Addr> = neighbours(&table).filter(|address| IpAddr::V4(*address) != fresh).collect();
    if stale.is_empty() {
        return Ok(());
    }
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    stale.into_iter().try_for_each(|address| forget(&socket, address))
}

/// Addresses of `/proc/net/arp` on our interface: the first column, the last being the interface.
fn neighbours(table: &str) -> impl Iterator<Item = Ipv4Addr> {
    let lines = table.lines().filter(|line| line.split_whitespace().last() == Some(INTERFACE));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

fn forget(socket: &OwnedFd, address: Ipv4Addr) -> io::Result<()> {
    // SAFETY: all bytes zero is a valid arpreq: integers and arrays of them.
    let mut request: libc::arpreq = unsafe { std::mem::zeroed() };
    request.arp_pa = crate::boot::socket_address(address);
    for (to, from) in request.arp_dev.iter_mut().zip(INTERFACE.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // SAFETY: the descriptor is open, and `request` lives through the call, which only reads it.
    match Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCDARP, &request) }) {
        // Gone since the table was read.
        Ok(_) | Err(Errno::ENXIO | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_neighbours_of_our_interface_are_found() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     172.16.0.1       0x1         0x2         06:00:ac:10:00:01     *        eth0\n\
                     10.0.0.9         0x1         0x0         00:00:00:00:00:00     *        docker0\n";
        assert_eq!(neighbours(table).collect::<Vec<_>>(), [Ipv4Addr::new(172, 16, 0, 1)]);
        assert_eq!(neighbours("").count(), 0);
    }
}
