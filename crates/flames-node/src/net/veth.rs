//! The pair of links between a slot and the uplink's namespace, by netlink.
//!
//! Neither end has a network of its own: the slot's end has one address, the other end none, and each knows
//! the other's hardware address for good. Both are deaf to ARP, so nothing can be claimed over the pair.
//! The route to the slot's address is what makes an address taken: the kernel refuses a second one, also to
//! another daemon on the same host.

use super::range::{AddressRange, Taken};
use flames_vmm::{Error, ErrorKind, Result};
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use nix::libc;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteScope};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The slot's end of the pair, in every slot.
pub(super) const UPLINK: &str = "up0";
/// The next hop out of every slot: an address that only this pair knows.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const SLOT_MAC: [u8; 6] = [0x06, 0x00, 0x64, 0x7e, 0x00, 0x02];
const HOST_MAC: [u8; 6] = [0x06, 0x00, 0x64, 0x7e, 0x00, 0x01];

/// Runs work over a netlink socket of the namespace that the calling thread is in.
pub(super) fn with_netlink<T>(work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.map_err(|error| failed("open netlink", error))?.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| failed("open netlink", error))?;
        let connection = tokio::spawn(connection);
        let outcome = work(handle).await;
        connection.abort();
        outcome
    })
}

/// Makes the pair, both ends down, the slot's end in its namespace.
pub(super) async fn make(handle: &Handle, name: &str, slot: BorrowedFd<'_>) -> Result<()> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(UPLINK)
        .address(SLOT_MAC.to_vec())
        .arp(false)
        .setns_by_fd(slot.as_raw_fd())
        .build();
    let pair = LinkVeth::new(name, UPLINK)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .address(HOST_MAC.to_vec())
        .arp(false)
        .build();
    handle.link().add(pair).execute().await.map_err(netlink("make the pair"))
}

/// Sets the host's end up, and gives the slot the first address of the range that is free.
pub(super) async fn lead_in(
    handle: &Handle,
    name: &str,
    range: &AddressRange,
    seed: u32,
) -> Result<Ipv4Addr> {
    let index = index_of(name)?;
    let up = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
    handle.link().set(up).execute().await.map_err(netlink("set the host's end up"))?;
    let address = claim(handle, index, range, seed).await?;
    let neighbour = handle.neighbours().add(index, IpAddr::V4(address)).link_layer_address(&SLOT_MAC);
    neighbour
        .state(NeighbourState::Permanent)
        .execute()
        .await
        .map_err(netlink("add the slot as neighbour"))?;
    Ok(address)
}

async fn claim(handle: &Handle, index: u32, range: &AddressRange, seed: u32) -> Result<Ipv4Addr> {
    for address in range.addresses(seed) {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        match handle.route().add(route).execute().await {
            Ok(()) => return Ok(address),
            Err(error) if is(&error, libc::EEXIST) => {}
            Err(error) => return Err(failed("add the route to the slot", error)),
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "address range", range.to_string())
        .operation("give an address")
        .detail("all of its addresses are in use: set `network.range` to a larger one"))
}

/// Sets the slot's end up, with its address and the way out.
pub(super) async fn lead_out(handle: &Handle, address: Ipv4Addr) -> Result<()> {
    let index = index_of(UPLINK)?;
    let up = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
    handle.link().set(up).execute().await.map_err(netlink("set the slot's end up"))?;
    let address = handle.address().add(index, IpAddr::V4(address), 32);
    address.execute().await.map_err(netlink("add the slot's address"))?;
    let neighbour = handle.neighbours().add(index, IpAddr::V4(NEXT_HOP)).link_layer_address(&HOST_MAC);
    neighbour
        .state(NeighbourState::Permanent)
        .execute()
        .await
        .map_err(netlink("add the host as neighbour"))?;
    let route =
        RouteMessageBuilder::<Ipv4Addr>::new().gateway(NEXT_HOP).output_interface(index).onlink().build();
    handle.route().add(route).execute().await.map_err(netlink("add the way out"))
}

/// Removes a pair by the name of its host's end. Idempotent.
pub(super) async fn remove(handle: &Handle, name: &str) -> Result<()> {
    let Ok(index) = nix::net::if_::if_nametoindex(name) else { return Ok(()) };
    match handle.link().del(index).execute().await {
        Err(error) if !is(&error, libc::ENODEV) => Err(failed("remove the pair", error)),
        _ => Ok(()),
    }
}

/// The names of the links in a namespace, by index.
pub(super) async fn links(handle: &Handle) -> Result<HashMap<u32, String>> {
    let mut links = handle.link().get().execute();
    let mut names = HashMap::new();
    while let Some(link) = links.try_next().await.map_err(netlink("list the links"))? {
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        names.extend(name.map(|name| (link.header.index, name)));
    }
    Ok(names)
}

/// What a namespace knows a way to, its own addresses included.
pub(super) async fn destinations(handle: &Handle) -> Result<Vec<Taken>> {
    let links = links(handle).await?;
    let mut routes = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    let mut taken = Vec::new();
    while let Some(route) = routes.try_next().await.map_err(netlink("list the routes"))? {
        let prefix = route.header.destination_prefix_length;
        let to = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Ipv4Net::new(*address, prefix).ok(),
            _ => None,
        });
        let link = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => links.get(index).cloned(),
            _ => None,
        });
        taken.extend(to.map(|net| Taken { net, link: link.unwrap_or_else(|| "no link".into()) }));
    }
    Ok(taken)
}

fn index_of(name: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(name).map_err(|error| failed("find the link", error))
}

fn is(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

fn netlink(what: &'static str) -> impl Fn(rtnetlink::Error) -> Error {
    move |error| failed(what, error)
}

fn failed(what: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let error = error.into();
    let detail = format!("could not {what}: {error}");
    Error::new(ErrorKind::Unavailable, "uplink", UPLINK).operation("configure").detail(detail).source(error)
}
