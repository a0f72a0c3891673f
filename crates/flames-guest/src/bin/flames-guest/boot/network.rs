//! Network interfaces by ioctl: four calls, no netlink library in the agent.
#![allow(unsafe_code, reason = "interface ioctls have no safe wrapper")]

use super::BootError;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Address of the guest and of its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) guest: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) gateway: Ipv4Addr,
}

impl Address {
    /// Reads `172.16.0.2/24,172.16.0.1`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts = || {
            let (guest, gateway) = text.split_once(',')?;
            let (guest, prefix) = guest.split_once('/')?;
            let prefix = prefix.parse().ok().filter(|bits| (1..=32).contains(bits))?;
            Some(Self { guest: guest.parse().ok()?, prefix, gateway: gateway.parse().ok()? })
        };
        parts().ok_or_else(|| format!("flames.net={text}: expected ADDRESS/PREFIX,GATEWAY"))
    }

    pub(super) fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX << (32 - u32::from(self.prefix)))
    }
}

/// Brings up loopback, and eth0 if it has an address.
pub(super) fn up(address: Option<Address>) -> Result<(), BootError> {
    let failed = |step: &'static str| move |error: Errno| BootError::new(step, error);
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(failed("open a socket for the network's configuration"))?;
    set_up(&socket, "lo").map_err(failed("bring up lo"))?;
    let Some(address) = address else { return Ok(()) };
    set_address(&socket, "eth0", libc::SIOCSIFADDR, address.guest)
        .map_err(failed("set the address of eth0"))?;
    set_address(&socket, "eth0", libc::SIOCSIFNETMASK, address.mask())
        .map_err(failed("set the mask of eth0"))?;
    without_ipv6("eth0")?;
    set_up(&socket, "eth0").map_err(failed("bring up eth0"))?;
    add_default_route(&socket, address.gateway).map_err(failed("add the default route"))
}

/// Leaves IPv6 to the loopback: nothing of it gets past the interface's other end. A link-local address would be
/// checked for duplicates and announced for the first twelve seconds, in every clone of that age again.
fn without_ipv6(name: &str) -> Result<(), BootError> {
    let setting = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    match std::fs::write(&setting, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BootError::new(format!("write {setting}"), error))
        }
        _written_or_no_ipv6_at_all => Ok(()),
    }
}

fn set_up(socket: &OwnedFd, name: &str) -> nix::Result<()> {
    let mut request = named(name);
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(|_| Errno::EINVAL)?;
    interface_ioctl(socket, libc::SIOCSIFFLAGS, &request)
}

fn set_address(socket: &OwnedFd, name: &str, call: libc::Ioctl, address: Ipv4Addr) -> nix::Result<()> {
    let mut request = named(name);
    request.ifr_ifru.ifru_addr = socket_address(address);
    interface_ioctl(socket, call, &request)
}

fn interface_ioctl(socket: &OwnedFd, call: libc::Ioctl, request: &libc::ifreq) -> nix::Result<()> {
    // SAFETY: the descriptor is open, and `request` is a whole ifreq that lives through the call, which only
    // reads it for the SIOCS* calls used here.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), call, request) }).map(drop)
}

fn add_default_route(socket: &OwnedFd, gateway: Ipv4Addr) -> nix::Result<()> {
    // SAFETY: all bytes zero is a valid rtentry: integers and null pointers.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the descriptor is open, and `route` lives through the call, which only reads it.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &route) }).map(drop)
}

fn named(name: &str) -> libc::ifreq {
    // SAFETY: all bytes zero is a valid ifreq: integers, arrays and unions of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

/// An address as ioctls want it.
pub(crate) fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let [a, b, c, d] = address.octets().map(|byte| libc::c_char::from_ne_bytes([byte]));
    // sockaddr_in: two bytes of port, four of address, eight of padding.
    let sa_data = [0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0];
    libc::sockaddr { sa_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(), sa_data }
}
