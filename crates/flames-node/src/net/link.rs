//! Links, addresses and neighbours of a namespace, from a thread that is in it.

use super::{GUEST_IP, GUEST_MAC, HOST_IP, HOST_MAC, PREFIX, TAP};
use flames_vmm::{Error, ErrorKind, Result};
use nix::libc;
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};
use std::fs::{File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;

/// In a new namespace loopback is always the first link.
const LOOPBACK_INDEX: u32 = 1;

/// `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR` of linux/if_tun.h, in the width that an interface request has.
const TAP_FLAGS: libc::c_short = 0x0002 | 0x1000 | 0x4000;

/// Switches that make the namespace a dead end, set before there is a link they could apply to. A kernel
/// without IPv6 does not have its switches, and needs none.
const SWITCHES: [(&str, &str); 4] = [
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];

/// Sets up the namespace of the calling thread.
pub(super) fn configure() -> Result<()> {
    for (switch, value) in SWITCHES {
        set_switch(switch, value)?;
    }
    make_tap().map_err(|error| link_error("make the TAP", error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.map_err(|error| link_error("open netlink", error))?.block_on(set_up_links())
}

/// Sets a kernel switch of the namespace that the calling thread is in.
pub(super) fn set_switch(switch: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(switch);
    match std::fs::write(&path, value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(crate::paths::io_error("kernel switch", path, "write", error))
        }
        _ => Ok(()),
    }
}

async fn set_up_links() -> Result<()> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|error| link_error("open netlink", error))?;
    let connection = tokio::spawn(connection);
    let outcome = links_and_addresses(&handle).await;
    connection.abort();
    outcome
}

async fn links_and_addresses(handle: &Handle) -> Result<()> {
    let netlink = |what| move |error| link_error(what, error);
    let tap = nix::net::if_::if_nametoindex(TAP).map_err(netlink_errno)?;
    let up = |index| LinkMessageBuilder::<LinkUnspec>::new().index(index).up();
    handle.link().set(up(LOOPBACK_INDEX).build()).execute().await.map_err(netlink("set lo up"))?;
    let address = HOST_MAC.0.to_vec();
    handle.link().set(up(tap).address(address).build()).execute().await.map_err(netlink("set the TAP up"))?;
    handle
        .address()
        .add(tap, IpAddr::V4(HOST_IP), PREFIX)
        .execute()
        .await
        .map_err(netlink("add the address"))?;
    // Permanent: the host never has to ask a guest who it is, and no guest can claim to be another.
    let neighbour = handle.neighbours().add(tap, IpAddr::V4(GUEST_IP)).link_layer_address(&GUEST_MAC.0);
    neighbour.state(NeighbourState::Permanent).execute().await.map_err(netlink("add the neighbour"))
}

fn netlink_errno(error: nix::errno::Errno) -> Error {
    link_error("find the TAP", error)
}

fn link_error(what: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let error = error.into();
    let detail = format!("could not {what}: {error}");
    Error::new(ErrorKind::Unavailable, "network link", TAP)
        .operation("configure")
        .detail(detail)
        .source(error)
}

// The request numbers are those of linux/if_tun.h: both are declared there as taking an int.
nix::ioctl_write_ptr_bad!(
    tun_set_iff,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);
nix::ioctl_write_int_bad!(tun_set_persist, nix::request_code_write!(b'T', 203, size_of::<libc::c_int>()));

/// Makes a TAP that lives until its namespace does, so that the VMM can open it by name.
#[allow(unsafe_code)]
fn make_tap() -> io::Result<()> {
    let device: File = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let request = tap_request();
    // SAFETY: the descriptor is open, and `request` is a whole ifreq that outlives the call.
    unsafe { tun_set_iff(device.as_raw_fd(), &raw const request) }?;
    // SAFETY: the descriptor is open and the argument is a plain number.
    unsafe { tun_set_persist(device.as_raw_fd(), 1) }?;
    Ok(())
}

#[allow(unsafe_code)]
fn tap_request() -> libc::ifreq {
    // SAFETY: ifreq is plain data, and all zero is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(TAP.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = TAP_FLAGS;
    request
}
