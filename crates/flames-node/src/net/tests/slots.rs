//! Slots and their way out, before any policy: what is made, what is refused, and that it all goes.

use super::frames::{self, BROADCAST, Ip};
use super::testbed::{
    Guest, METADATA, Netns, OTHER_PUBLIC, PRIVATE, PUBLIC, RANGE, Sniffer, Testbed, UPLINK, config,
    uplink_address,
};
use crate::net::{GUEST_IP, GUEST_MAC, HOST_IP, HOST_MAC, SlotNames};
use flames_vmm::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Instant;

#[tokio::test]
async fn a_connected_slot_has_one_pair_and_leaves_nothing() {
    let Some(bed) = Testbed::new() else { return };
    let slot = bed.names.create().await.unwrap();
    let start = Instant::now();
    slot.connect().await.unwrap();
    eprintln!("a slot's pair: {:?}", start.elapsed());
    slot.connect().await.unwrap();
    assert!(uplink_address(&slot).octets().starts_with(&[100, 127, 64]));
    let probe = bed.names.probe_uplink().await.unwrap().unwrap();
    assert_eq!((probe.links.len(), probe.firewall), (1, true));
    slot.remove().unwrap();
    slot.remove().unwrap();
    bed.assert_nothing_left().await;
}

#[tokio::test]
async fn a_range_that_the_lan_has_is_refused_at_startup_and_names_the_link() {
    let Some(bed) = Testbed::new() else { return };
    let open = |range| SlotNames::with_uplink(std::path::Path::new("/nowhere"), &config(&bed.uplink, range));
    for lan in ["192.168.77.128/25", "192.168.0.0/16", "192.168.77.1/32"] {
        let error = open(lan).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{lan}");
        assert!(error.to_string().contains("wan"), "{error}");
    }
    assert!(open("192.168.78.0/24").is_ok());
}

#[tokio::test]
async fn an_uplink_that_forwards_nothing_refuses_and_leaves_nothing() {
    let Some(bed) = Testbed::new() else { return };
    bed.uplink.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap());
    let slot = bed.names.create().await.unwrap();
    let error = slot.connect().await.unwrap_err();
    assert!(error.to_string().contains("net.ipv4.ip_forward=1"), "{error}");
    slot.remove().unwrap();
    bed.assert_nothing_left().await;
}

#[tokio::test]
async fn a_range_that_is_used_up_refuses_the_next_slot_alone() {
    let Some(bed) = Testbed::new() else { return };
    let data = tempfile::tempdir().unwrap();
    let names = SlotNames::with_uplink(data.path(), &config(&bed.uplink, "100.127.65.0/31")).unwrap();
    let mut slots = Vec::new();
    for _ in 0..2 {
        let slot = names.create().await.unwrap();
        slot.connect().await.unwrap();
        slots.push(slot);
    }
    let last = names.create().await.unwrap();
    let error = last.connect().await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    slots.remove(0).remove().unwrap();
    last.connect().await.unwrap();
    slots.push(last);
    slots.iter().try_for_each(crate::net::Slot::remove).unwrap();
    names.tidy_uplink().await.unwrap();
    bed.assert_nothing_left().await;
}

/// Two daemons whose ranges overlap share the kernel, which gives each address once.
#[tokio::test]
async fn two_nodes_on_one_range_never_give_the_same_address() {
    let Some(bed) = Testbed::new() else { return };
    let data = tempfile::tempdir().unwrap();
    let other = SlotNames::with_uplink(data.path(), &config(&bed.uplink, RANGE)).unwrap();
    let mut addresses = std::collections::HashSet::new();
    let mut slots = Vec::new();
    for number in 0..8 {
        let slot = if number % 2 == 0 { &other } else { &bed.names }.create().await.unwrap();
        slot.connect().await.unwrap();
        assert!(addresses.insert(uplink_address(&slot)));
        slots.push(slot);
    }
    slots.iter().try_for_each(crate::net::Slot::remove).unwrap();
    other.tidy_uplink().await.unwrap();
    bed.assert_nothing_left().await;
}

#[tokio::test]
async fn a_flushed_firewall_of_the_uplink_is_made_again() {
    let Some(bed) = Testbed::new() else { return };
    let slot = bed.names.create().await.unwrap();
    slot.connect().await.unwrap();
    bed.uplink.nft("flush ruleset");
    bed.names.tidy_uplink().await.unwrap();
    assert!(bed.names.probe_uplink().await.unwrap().unwrap().firewall);
    slot.remove().unwrap();
    bed.assert_nothing_left().await;
}

/// Frames that no slot may pass on, each with the place that a guest might hope to reach by it.
pub(super) fn forbidden() -> Vec<(&'static str, Vec<u8>)> {
    let (guest, gateway) = ((GUEST_MAC.0, GUEST_IP), (HOST_MAC.0, HOST_IP));
    let stranger = [0x06, 0, 0xac, 0x10, 0, 0x66];
    let public = Ip::to(PUBLIC);
    let fragment = |flags: u16, payload: Vec<u8>| Ip { fragment: flags, payload, ..public.clone() }.frame();
    let mut frames = vec![
        ("spoofed source address", Ip { source: OTHER_PUBLIC, ..public.clone() }.frame()),
        ("the gateway's address", Ip { source: HOST_IP, ..public.clone() }.frame()),
        ("a sibling's place", Ip { source: Ipv4Addr::new(100, 127, 64, 9), ..public.clone() }.frame()),
        ("spoofed MAC", Ip { source_mac: stranger, ..public.clone() }.frame()),
        ("the gateway's MAC", Ip { source_mac: HOST_MAC.0, ..public.clone() }.frame()),
        ("another target MAC", Ip { target_mac: stranger, ..public.clone() }.frame()),
        ("all MACs", Ip { target_mac: BROADCAST, ..public.clone() }.frame()),
        ("gratuitous ARP", frames::arp(2, guest, (BROADCAST, GUEST_IP), BROADCAST)),
        ("claimed gateway", frames::arp(2, (GUEST_MAC.0, HOST_IP), guest, BROADCAST)),
        ("poisoned gateway", frames::arp(2, (stranger, GUEST_IP), gateway, HOST_MAC.0)),
        ("question for another", frames::arp(1, guest, ([0; 6], Ipv4Addr::new(172, 16, 0, 9)), BROADCAST)),
        (
            "question about the uplink",
            frames::arp(1, guest, ([0; 6], Ipv4Addr::new(169, 254, 1, 1)), BROADCAST),
        ),
        ("IPv6", frames::ipv6(HOST_MAC.0)),
        ("IPv6 to all", frames::ipv6([0x33, 0x33, 0, 0, 0, 1])),
        ("first fragment", fragment(0x2000, frames::udp(4000, 9))),
        ("tiny fragment", fragment(0x2000, vec![0x0f, 0xa0, 0, 9, 0, 20, 0, 0])),
        ("overlapping fragment", fragment(0x0001, frames::udp(4000, 9))),
        ("last fragment", fragment(0x1fff, vec![0; 8])),
        (
            "VLAN",
            frames::ethernet(
                HOST_MAC.0,
                GUEST_MAC.0,
                [0x81, 0x00],
                &[&[0, 1, 8, 0][..], &public.frame()[14..]].concat(),
            ),
        ),
        ("STP", frames::ethernet([1, 0x80, 0xc2, 0, 0, 0], GUEST_MAC.0, [0, 38], &[0x42; 38])),
        ("LLDP", frames::ethernet([1, 0x80, 0xc2, 0, 0, 0x0e], GUEST_MAC.0, [0x88, 0xcc], &[2; 46])),
        (
            "DHCP",
            Ip { target_mac: BROADCAST, payload: frames::udp(68, 67), ..Ip::to(Ipv4Addr::BROADCAST) }.frame(),
        ),
        ("too short", vec![0; 15]),
        ("half a header", frames::ethernet(HOST_MAC.0, GUEST_MAC.0, [8, 0], &[0x45, 0, 0, 60])),
    ];
    for (name, options) in
        [("loose source route", 0x83), ("strict source route", 0x89), ("record route", 0x07)]
    {
        let options = [&[options, 7, 4][..], &OTHER_PUBLIC.octets(), &[0]].concat();
        frames.push((name, Ip { options, ..public.clone() }.frame()));
    }
    for (name, protocol) in
        [("GRE", 47), ("SCTP", 132), ("IP in IP", 4), ("ESP", 50), ("IGMP", 2), ("OSPF", 89), ("raw", 255)]
    {
        frames.push((name, Ip { protocol, payload: vec![0; 32], ..public.clone() }.frame()));
    }
    for target in [
        Ipv4Addr::new(224, 0, 0, 251),
        Ipv4Addr::new(239, 1, 1, 1),
        Ipv4Addr::new(172, 16, 0, 255),
        Ipv4Addr::UNSPECIFIED,
    ] {
        frames.push(("to all", Ip::to(target).frame()));
    }
    frames
}

/// Packets that are well made, to where a guest without a policy has no business.
fn honest() -> Vec<(String, Vec<u8>)> {
    let targets = [PUBLIC, OTHER_PUBLIC, METADATA, Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(172, 16, 0, 3)];
    let targets = targets.into_iter().chain(PRIVATE).chain(UPLINK).chain([HOST_IP]);
    let packets = targets.flat_map(|target| {
        let tcp =
            |port| Ip { protocol: 6, payload: frames::syn(GUEST_IP, target, port), ..Ip::to(target) }.frame();
        let icmp = Ip { protocol: 1, payload: frames::ping(), ..Ip::to(target) }.frame();
        let udp = |port| Ip { payload: frames::udp(4000, port), ..Ip::to(target) }.frame();
        let kinds = [
            ("TCP 22", tcp(22)),
            ("TCP 443", tcp(443)),
            ("UDP 53", udp(53)),
            ("UDP 9", udp(9)),
            ("ping", icmp),
        ];
        kinds.map(|(kind, frame)| (format!("{kind} to {target}"), frame))
    });
    packets.collect()
}

/// Without a pair there is nothing but the slot; and with one that nobody has opened a policy for, nothing leaves.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_guest_without_policy_sends_arrives_anywhere() {
    let Some(bed) = Testbed::new() else { return };
    let slot = bed.names.create().await.unwrap();
    slot.connect().await.unwrap();
    let guest = Guest::plug_in(&slot);
    let (uplink, world) = (Sniffer::of(&bed.uplink), Sniffer::of(&bed.world));
    guest.send(&frames::honest_arp()).await;
    for (name, frame) in forbidden().into_iter().map(|(name, frame)| (name.to_owned(), frame)).chain(honest())
    {
        guest.send(&frame).await;
        // A TAP hands a frame to the stack before the write returns, and veth runs in softirq on the way back.
        assert_eq!((uplink.frames(), world.frames()), (vec![], vec![]), "{name}");
    }
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!((uplink.frames(), world.frames()), (vec![], vec![]));
    drop(guest);
    slot.remove().unwrap();
    bed.assert_nothing_left().await;
}

/// The neighbour table of the namespace after everything that ARP can claim.
#[tokio::test(flavor = "multi_thread")]
async fn no_arp_game_changes_who_the_guest_is() {
    let Some(bed) = Testbed::new() else { return };
    let slot = bed.names.create().await.unwrap();
    let guest = Guest::plug_in(&slot);
    let inside = Netns::of(&slot);
    let before = inside.ip("neighbour show dev tap0");
    assert!(before.contains("172.16.0.2") && before.contains("PERMANENT"), "{before}");
    for (_, frame) in forbidden() {
        guest.send(&frame).await;
    }
    let thief = ([0x06, 0, 0xac, 0x10, 0, 0x66], GUEST_IP);
    guest.send(&frames::arp(1, thief, ([0; 6], HOST_IP), BROADCAST)).await;
    assert_eq!(inside.ip("neighbour show dev tap0"), before);
    slot.remove().unwrap();
}

/// What the host's end catches when the rules of a slot are gone: a slot that was taken over.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_without_rules_reaches_neither_host_nor_sibling_and_lies_about_no_address() {
    let Some(bed) = Testbed::new() else { return };
    let (slot, sibling) = (bed.names.create().await.unwrap(), bed.names.create().await.unwrap());
    slot.connect().await.unwrap();
    sibling.connect().await.unwrap();
    let (own, others) = (uplink_address(&slot), uplink_address(&sibling));
    let inside = Netns::of(&slot);
    inside.nft("flush ruleset");
    Netns::of(&sibling).nft("flush ruleset");
    let heard = Sniffer::of(&Netns::of(&sibling));
    let world = Sniffer::of(&bed.world);
    let services: Vec<_> = [UPLINK[0], UPLINK[1], Ipv4Addr::UNSPECIFIED]
        .into_iter()
        .enumerate()
        .map(|(index, address)| bed.uplink.udp((address, 900 + index as u16)))
        .collect();
    let loud = inside.udp((Ipv4Addr::UNSPECIFIED, 4000));
    loud.set_broadcast(true).unwrap();
    for target in UPLINK.into_iter().chain([
        others,
        Ipv4Addr::new(203, 0, 113, 255),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
    ]) {
        for port in [900, 901, 902, 9] {
            let _ = loud.send_to(b"let me in", (target, port)).await;
        }
    }
    // From an address that is not the slot's.
    inside.ip("address add 100.127.64.200/32 dev lo");
    inside.ip("address add 198.51.100.77/32 dev lo");
    for liar in [Ipv4Addr::new(100, 127, 64, 200), Ipv4Addr::new(198, 51, 100, 77), others] {
        if liar == others {
            inside.ip(&format!("address add {others}/32 dev lo"));
        }
        let _ = inside.udp((liar, 0)).send_to(b"who am I", (PUBLIC, 9)).await;
    }
    // The way itself is open: an honest packet arrives, with the uplink's address, after all others were sent.
    let echo = bed.world.udp((PUBLIC, 9));
    inside.udp((own, 0)).send_to(b"honest", (PUBLIC, 9)).await.unwrap();
    let mut buffer = [0; 64];
    let (length, from) = echo.recv_from(&mut buffer).await.unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"honest"[..], UPLINK[0].into()));
    let arrived =
        world.frames().into_iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == 17).count();
    assert_eq!(arrived, 1, "of all UDP packets only the honest one arrived");
    assert!(heard.frames().is_empty(), "the sibling heard something");
    for service in services {
        assert!(service.try_recv(&mut buffer).is_err(), "a service of the host heard something");
    }
    slot.remove().unwrap();
    sibling.remove().unwrap();
    bed.assert_nothing_left().await;
}
