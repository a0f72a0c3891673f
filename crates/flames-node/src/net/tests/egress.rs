//! Policies in force: what is allowed arrives, nothing else does, and a change finds the connections that are open.

use super::frames::{self, Ip};
use super::slots::forbidden;
use super::testbed::{
    Guest, METADATA, Netns, OTHER_PUBLIC, PRIVATE, PUBLIC, RESOLVER, Sniffer, Testbed, UPLINK, uplink_address,
};
use crate::net::{Dialer, Egress, GUEST_IP, HOST_IP, Slot};
use flames_egress::{EgressPolicy, PolicySpec, counter};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Long enough for everything that happens at once, on any machine.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// What does not come within this time does not come.
const NEVER: Duration = Duration::from_millis(500);

/// A guest with a policy.
pub(super) struct Room {
    pub(super) bed: Testbed,
    slot: Slot,
    egress: Egress,
    pub(super) guest: Guest,
    cut: CancellationToken,
}

impl Room {
    pub(super) async fn with(spec: PolicySpec) -> Option<Self> {
        let bed = Testbed::new()?;
        let slot = bed.names.create().await.unwrap();
        let cut = CancellationToken::new();
        let egress = Egress::new(slot.clone(), Dialer::start().unwrap(), cut.clone());
        egress.change(policy(&spec)).await.unwrap();
        let guest = Guest::plug_in(&slot);
        Some(Self { bed, slot, egress, guest, cut })
    }

    async fn change(&self, spec: PolicySpec) {
        self.egress.change(policy(&spec)).await.unwrap();
    }

    pub(super) async fn connect(&self, to: (Ipv4Addr, u16)) -> io::Result<TcpStream> {
        tokio::time::timeout(NEVER.max(SOON), self.guest.netns.connect(SocketAddr::from(to))).await?
    }

    async fn packets(&self, name: &str) -> u64 {
        self.egress.figures().await.unwrap().counters.get(name).map_or(0, |count| count.packets)
    }

    pub(super) async fn close(self) {
        self.cut.cancel();
        drop(self.guest);
        self.slot.remove().unwrap();
        self.bed.assert_nothing_left().await;
    }
}

fn policy(spec: &PolicySpec) -> EgressPolicy {
    EgressPolicy::new(spec).unwrap()
}

fn allow(rules: &[&str]) -> PolicySpec {
    PolicySpec { allow: rules.iter().map(|&rule| rule.to_owned()).collect(), ..PolicySpec::default() }
}

pub(super) fn by_name(rules: &[&str]) -> PolicySpec {
    PolicySpec { dns: vec![RESOLVER.to_string()], ..allow(rules) }
}

fn internet() -> PolicySpec {
    PolicySpec { internet: true, dns: vec![RESOLVER.to_string()], ..PolicySpec::default() }
}

/// A server that sends back what it gets, and who it was that sent it first.
fn echo(netns: &Netns, address: Ipv4Addr, port: u16) {
    let listener = netns.listen((address, port));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
}

/// Says something and hears it again.
pub(super) async fn converse(stream: &mut TcpStream, words: &[u8]) -> io::Result<()> {
    stream.write_all(words).await?;
    let mut heard = vec![0; words.len()];
    tokio::time::timeout(SOON, stream.read_exact(&mut heard)).await??;
    assert_eq!(heard, words);
    Ok(())
}

/// A DNS server that says one address for every name.
pub(super) fn dns(netns: &Netns, says: Ipv4Addr) -> Arc<std::sync::Mutex<Vec<String>>> {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (datagrams, streams) = (netns.udp((RESOLVER, 53)), netns.listen((RESOLVER, 53)));
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer).await {
            let reply = answer(&buffer[..length], says, &log);
            datagrams.send_to(&reply, from).await.unwrap();
        }
    });
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = streams.accept().await {
            let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut question).await.unwrap();
            let reply = answer(&question, says, &log);
            stream.write_u16(reply.len() as u16).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    asked
}

fn answer(question: &[u8], says: Ipv4Addr, log: &std::sync::Mutex<Vec<String>>) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|&byte| byte == 0).unwrap() + 5;
    log.lock().unwrap().push(name_in(&question[12..]));
    let mut reply = question[..end].to_vec();
    reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    reply.extend(says.octets());
    reply
}

fn name_in(mut bytes: &[u8]) -> String {
    let mut labels = Vec::new();
    while bytes[0] != 0 {
        let (label, rest) = bytes[1..].split_at(usize::from(bytes[0]));
        labels.push(String::from_utf8(label.to_vec()).unwrap());
        bytes = rest;
    }
    labels.join(".")
}

fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Asks as a guest does, and tells the address, or the code of the refusal.
pub(super) async fn ask(guest: &Guest, server: Ipv4Addr, name: &str) -> Result<Ipv4Addr, u8> {
    let socket = guest.netns.udp((GUEST_IP, 0));
    socket.send_to(&question(name), (server, 53)).await.unwrap();
    let mut reply = [0; 512];
    let (length, from) = tokio::time::timeout(SOON, socket.recv_from(&mut reply)).await.unwrap().unwrap();
    assert_eq!(from.ip(), server, "the reply comes from whom it was asked of");
    told(&reply[..length])
}

fn told(reply: &[u8]) -> Result<Ipv4Addr, u8> {
    assert_eq!(reply[..2], [0xab, 0xcd]);
    if reply[7] == 0 {
        return Err(reply[3] & 0xf);
    }
    Ok(Ipv4Addr::from(<[u8; 4]>::try_from(&reply[reply.len() - 4..]).unwrap()))
}

/// The first bytes of a TLS connection to a server of this name.
fn client_hello(name: &str) -> Vec<u8> {
    let roots = rustls::RootCertStore::empty();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_allows_arrives_and_what_is_beside_it_does_not() {
    let Some(room) = Room::with(allow(&["198.51.100.10:8080/tcp", "198.51.100.20:7/udp"])).await else {
        return;
    };
    for (address, port) in [(PUBLIC, 8080), (PUBLIC, 8081), (OTHER_PUBLIC, 8080)] {
        echo(&room.bed.world, address, port);
    }
    let mut stream = room.connect((PUBLIC, 8080)).await.unwrap();
    converse(&mut stream, b"allowed").await.unwrap();
    for beside in [(PUBLIC, 8081), (OTHER_PUBLIC, 8080), (METADATA, 80), (UPLINK[0], 8080)] {
        let error = room.connect(beside).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{beside:?}: told at once");
    }
    let (heard, unheard) = (room.bed.world.udp((OTHER_PUBLIC, 7)), room.bed.world.udp((OTHER_PUBLIC, 8)));
    let socket = room.guest.netns.udp((GUEST_IP, 0));
    let _ = socket.send_to(b"beside", (OTHER_PUBLIC, 8)).await;
    let _ = socket.send_to(b"beside", (OTHER_PUBLIC, 8)).await; // the first was answered: not allowed
    while socket.send_to(b"allowed", (OTHER_PUBLIC, 7)).await.is_err() {}
    let mut buffer = [0; 64];
    let (length, from) = tokio::time::timeout(SOON, heard.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"allowed"[..], UPLINK[0].into()));
    assert!(unheard.try_recv(&mut buffer).is_err());
    room.close().await;
}

/// The widest policy there is, and everything that a hostile guest can still try.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_whole_internet_no_trick_arrives_anywhere() {
    let Some(room) = Room::with(internet()).await else { return };
    let (uplink, world) = (Sniffer::of(&room.bed.uplink), Sniffer::of(&room.bed.world));
    for (name, frame) in forbidden() {
        room.guest.send(&frame).await;
        assert_eq!((uplink.frames(), world.frames()), (vec![], vec![]), "{name}");
    }
    for target in PRIVATE.into_iter().chain(UPLINK).chain([METADATA, HOST_IP, uplink_address(&room.slot)]) {
        let syn = Ip { protocol: 6, payload: frames::syn(GUEST_IP, target, 22), ..Ip::to(target) };
        let ping = Ip { protocol: 1, payload: frames::ping(), ..Ip::to(target) };
        for frame in [syn.frame(), ping.frame(), Ip::to(target).frame()] {
            room.guest.send(&frame).await;
            // The uplink's public address alone may be asked for: there the host's end of the pair says no.
            let reached = uplink.frames().len();
            assert!(reached == 0 || target == UPLINK[0], "{target}");
            assert_eq!(world.frames(), Vec::<Vec<u8>>::new(), "{target}");
        }
    }
    room.guest.send(&Ip::to(PUBLIC).frame()).await;
    let arrived = tokio::time::timeout(SOON, async {
        loop {
            let frames = world.frames();
            if let Some(frame) = frames.into_iter().find(|frame| frame[12..14] == [8, 0]) {
                return frame;
            }
            tokio::task::yield_now().await;
        }
    });
    let frame = arrived.await.unwrap();
    assert_eq!(frame[26..30], UPLINK[0].octets(), "an honest packet arrives, as the uplink's");
    for (counter, least) in
        [(counter::SPOOFED, 6), ("drop_arp", 5), ("drop_fragments", 4), ("drop_options", 3)]
    {
        assert!(room.packets(counter).await >= least, "{counter}");
    }
    room.close().await;
}

/// Services of the host listen on every address it has; siblings are allowed everything, too.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_whole_internet_neither_services_of_the_host_nor_siblings_answer() {
    let Some(room) = Room::with(internet()).await else { return };
    echo(&room.bed.uplink, Ipv4Addr::UNSPECIFIED, 22);
    let sibling = room.bed.names.create().await.unwrap();
    let other = Egress::new(sibling.clone(), Dialer::start().unwrap(), room.cut.clone());
    other.change(policy(&internet())).await.unwrap();
    echo(&Netns::of(&sibling), Ipv4Addr::UNSPECIFIED, 22);
    let targets = UPLINK.into_iter().chain([HOST_IP, uplink_address(&sibling), uplink_address(&room.slot)]);
    for target in targets.chain([Ipv4Addr::new(203, 0, 113, 255)]) {
        let attempt = tokio::time::timeout(NEVER, room.guest.netns.connect((target, 22))).await;
        assert!(!matches!(attempt, Ok(Ok(_))), "{target} answered");
    }
    sibling.remove().unwrap();
    room.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_allowed_is_resolved_and_reached_and_no_other() {
    let Some(room) = Room::with(by_name(&["api.example.com"])).await else { return };
    let asked = dns(&room.bed.world, PUBLIC);
    echo(&room.bed.world, PUBLIC, 443);
    echo(&room.bed.world, PUBLIC, 5432);
    assert!(room.connect((PUBLIC, 443)).await.is_err(), "before it was asked for");
    assert_eq!(ask(&room.guest, HOST_IP, "other.example.com").await, Err(5));
    assert_eq!(ask(&room.guest, HOST_IP, "api.example.com").await, Ok(PUBLIC));
    // Whatever server is asked, it is ours that answers.
    assert_eq!(ask(&room.guest, Ipv4Addr::new(8, 8, 8, 8), "api.example.com").await, Ok(PUBLIC));
    assert_eq!(
        *asked.lock().unwrap(),
        ["api.example.com", "api.example.com"],
        "nobody was asked for the other"
    );
    let mut tls = room.connect((PUBLIC, 443)).await.unwrap();
    converse(&mut tls, &client_hello("api.example.com")).await.unwrap();
    let mut database = room.connect((PUBLIC, 5432)).await.unwrap();
    converse(&mut database, b"a port where nobody says a name").await.unwrap();
    assert!(room.connect((OTHER_PUBLIC, 443)).await.is_err(), "an address that no answer had");
    assert!(room.packets(counter::DNS).await >= 1);
    room.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_over_tcp_is_answered_alike() {
    let Some(room) = Room::with(by_name(&["*.example.com"])).await else { return };
    dns(&room.bed.world, PUBLIC);
    let mut stream = room.connect((HOST_IP, 53)).await.unwrap();
    for name in ["a.example.com", "b.a.example.com"] {
        let question = question(name);
        stream.write_u16(question.len() as u16).await.unwrap();
        stream.write_all(&question).await.unwrap();
        let mut reply = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(told(&reply), Ok(PUBLIC));
    }
    room.close().await;
}

/// An address that an allowed name has is no way to the other names on the same server.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_name_or_host_that_is_not_allowed_is_cut_before_a_byte_arrives() {
    let Some(room) = Room::with(by_name(&["api.example.com"])).await else { return };
    dns(&room.bed.world, PUBLIC);
    echo(&room.bed.world, PUBLIC, 443);
    echo(&room.bed.world, PUBLIC, 80);
    let world = Sniffer::of(&room.bed.world);
    ask(&room.guest, HOST_IP, "api.example.com").await.unwrap();
    world.frames();
    let request = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let bad: [(u16, Vec<u8>); 6] = [
        (443, client_hello("evil.example.net")),
        (443, client_hello("api.example.com.evil.example.net")),
        (443, b"SSH-2.0-no TLS at all\r\n".to_vec()),
        (80, request("evil.example.net")),
        (80, request("198.51.100.10")),
        (80, b"GET http://evil.example.net/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n".to_vec()),
    ];
    for (port, head) in &bad {
        let mut stream = room.connect((PUBLIC, *port)).await.unwrap();
        let error = converse(&mut stream, head).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{port} {head:?}");
    }
    assert_eq!(world.frames().into_iter().filter(|frame| frame[12..14] == [8, 0]).count(), 0);
    assert_eq!(room.packets(counter::NAME).await, bad.len() as u64);
    let mut good = room.connect((PUBLIC, 80)).await.unwrap();
    good.write_all(&request("API.example.com:80")).await.unwrap();
    let passed = b"GET / HTTP/1.1\r\nHost: API.example.com:80\r\nConnection: close\r\n\r\n";
    let mut heard = vec![0; passed.len()];
    tokio::time::timeout(SOON, good.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, passed);
    room.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_leaves_allowed_connections_alone_and_cuts_the_others() {
    let before = allow(&["198.51.100.10:8080/tcp", "198.51.100.20:8080/tcp"]);
    let Some(room) = Room::with(before).await else { return };
    echo(&room.bed.world, PUBLIC, 8080);
    echo(&room.bed.world, OTHER_PUBLIC, 8080);
    let mut kept = room.connect((PUBLIC, 8080)).await.unwrap();
    let mut withdrawn = room.connect((OTHER_PUBLIC, 8080)).await.unwrap();
    converse(&mut kept, b"one").await.unwrap();
    converse(&mut withdrawn, b"one").await.unwrap();
    let start = Instant::now();
    room.change(allow(&["198.51.100.0/27:8080/tcp"])).await;
    eprintln!("a change of rules: {:?}", start.elapsed());
    converse(&mut kept, b"still, by another rule").await.unwrap();
    converse(&mut withdrawn, b"still").await.unwrap();
    room.change(allow(&["198.51.100.10:8080/tcp"])).await;
    converse(&mut kept, b"still").await.unwrap();
    assert_eq!(converse(&mut withdrawn, b"gone").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    room.change(PolicySpec::default()).await;
    assert!(converse(&mut kept, b"gone").await.is_err());
    assert!(room.connect((PUBLIC, 8080)).await.is_err());
    room.change(allow(&["198.51.100.10:8080/tcp"])).await;
    converse(&mut room.connect((PUBLIC, 8080)).await.unwrap(), b"again").await.unwrap();
    room.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_cuts_connections_by_name_that_it_forbids_and_keeps_the_others() {
    let Some(room) = Room::with(by_name(&["a.example.com", "b.example.com"])).await else { return };
    dns(&room.bed.world, PUBLIC);
    echo(&room.bed.world, PUBLIC, 443);
    let mut streams = Vec::new();
    for name in ["a.example.com", "b.example.com"] {
        ask(&room.guest, HOST_IP, name).await.unwrap();
        let mut stream = room.connect((PUBLIC, 443)).await.unwrap();
        converse(&mut stream, &client_hello(name)).await.unwrap();
        streams.push(stream);
    }
    room.change(by_name(&["a.example.com"])).await;
    converse(&mut streams[0], b"still").await.unwrap();
    assert!(converse(&mut streams[1], b"gone").await.is_err());
    // What was looked up before the change need not be looked up again.
    let mut again = room.connect((PUBLIC, 443)).await.unwrap();
    converse(&mut again, &client_hello("a.example.com")).await.unwrap();
    room.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_ends_everything_and_its_use_survives_a_change() {
    let budget = |bytes| PolicySpec { budget_bytes: Some(bytes), ..allow(&["198.51.100.10:8080/tcp"]) };
    let Some(room) = Room::with(budget(400_000)).await else { return };
    echo(&room.bed.world, PUBLIC, 8080);
    let mut stream = room.connect((PUBLIC, 8080)).await.unwrap();
    let words = vec![7; 50_000];
    converse(&mut stream, &words).await.unwrap();
    room.change(budget(300_000)).await;
    let used = room.egress.figures().await.unwrap().budget_used;
    assert!((100_000..150_000).contains(&used), "50 kB each way: {used}");
    let mut rounds = 0;
    while tokio::time::timeout(Duration::from_secs(2), converse(&mut stream, &words))
        .await
        .is_ok_and(|said| said.is_ok())
    {
        rounds += 1;
        assert!(rounds < 4, "the budget does not end");
    }
    assert!(room.packets(counter::BUDGET).await > 0);
    assert_eq!(rounds, 1, "another 100 kB fit, and no third");
    room.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept_in_both_directions() {
    let spec = PolicySpec {
        out_bytes_per_second: Some(1_000_000),
        in_bytes_per_second: Some(500_000),
        ..allow(&["198.51.100.10:8080/tcp"])
    };
    let Some(room) = Room::with(spec).await else { return };
    let listener = room.bed.world.listen((PUBLIC, 8080));
    let mut client = room.connect((PUBLIC, 8080)).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let sent = rate_of(&mut client, &mut server, 1_000_000).await;
    let received = rate_of(&mut server, &mut client, 500_000).await;
    eprintln!("sent {sent:.0}, received {received:.0} bytes/s");
    assert!((0.4..1.3).contains(&(sent / 1e6)), "sent {sent:.0} bytes/s");
    assert!((0.4..1.3).contains(&(received / 5e5)), "received {received:.0} bytes/s");
    room.close().await;
}

/// Bytes per second from one end to the other, after what may pass at once: a second's worth and a burst.
async fn rate_of(from: &mut TcpStream, to: &mut TcpStream, limit: usize) -> f64 {
    let (at_once, measured) = (limit * 2, limit * 2);
    let send = async { from.write_all(&vec![1; at_once + measured]).await.unwrap() };
    let receive = async {
        to.read_exact(&mut vec![0; at_once]).await.unwrap();
        let start = Instant::now();
        to.read_exact(&mut vec![0; measured]).await.unwrap();
        measured as f64 / start.elapsed().as_secs_f64()
    };
    tokio::join!(send, receive).1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_and_what_is_dropped_is_counted_and_survives_a_change() {
    let Some(room) = Room::with(allow(&["198.51.100.10:8080/tcp"])).await else { return };
    echo(&room.bed.world, PUBLIC, 8080);
    let mut stream = room.connect((PUBLIC, 8080)).await.unwrap();
    converse(&mut stream, &[1; 10_000]).await.unwrap();
    let _ = room.connect((OTHER_PUBLIC, 8080)).await;
    let figures = room.egress.figures().await.unwrap();
    for direction in [counter::OUT, counter::IN] {
        let bytes = figures.counters[direction].bytes;
        assert!((10_000..13_000).contains(&bytes), "{direction}: {bytes}");
    }
    assert_eq!(figures.counters[counter::DEFAULT].packets, 1);
    room.change(allow(&["198.51.100.10:8080/tcp", "10.1.2.3"])).await;
    assert!(room.egress.figures().await.unwrap().counters[counter::OUT].bytes >= 10_000);
    room.close().await;
}

/// What a restarted daemon finds: the rules went on alone, and it takes over what was counted and let in.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_daemon_takes_over_and_open_connections_do_not_notice() {
    let spec = by_name(&["api.example.com", "198.51.100.20:8080"]);
    let Some(mut room) = Room::with(spec.clone()).await else { return };
    dns(&room.bed.world, PUBLIC);
    echo(&room.bed.world, PUBLIC, 443);
    echo(&room.bed.world, OTHER_PUBLIC, 8080);
    ask(&room.guest, HOST_IP, "api.example.com").await.unwrap();
    let mut stream = room.connect((OTHER_PUBLIC, 8080)).await.unwrap();
    converse(&mut stream, b"before").await.unwrap();
    room.cut.cancel();
    let names = room.bed.names.forgotten();
    let slot = names.open(room.slot.name()).unwrap();
    room.cut = CancellationToken::new();
    converse(&mut stream, b"without a daemon").await.unwrap();
    // The listeners of the one before go when its tasks have seen the end.
    let taken_up = async {
        loop {
            let egress = Egress::new(slot.clone(), Dialer::start().unwrap(), room.cut.clone());
            match egress.change(policy(&spec)).await {
                Ok(()) => return egress,
                Err(error) => assert!(error.to_string().contains("in use"), "{error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    room.egress = tokio::time::timeout(SOON, taken_up).await.unwrap();
    room.slot = slot;
    converse(&mut stream, b"after").await.unwrap();
    let mut tls = room.connect((PUBLIC, 443)).await.unwrap();
    converse(&mut tls, &client_hello("api.example.com")).await.unwrap();
    assert!(room.packets(counter::OUT).await > 0);
    room.close().await;
}

/// A VMM shares its guest's namespace. Without the right to mark packets it gets nowhere from there.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_in_the_namespace_that_is_not_the_daemon_reaches_nothing() {
    let Some(room) = Room::with(internet()).await else { return };
    echo(&room.bed.world, PUBLIC, 8080);
    let inside = Netns::of(&room.slot);
    let attempt = tokio::time::timeout(NEVER, inside.connect((PUBLIC, 8080))).await;
    assert!(!matches!(attempt, Ok(Ok(_))));
    let mut guest = room.connect((PUBLIC, 8080)).await.unwrap();
    converse(&mut guest, b"the guest itself does").await.unwrap();
    room.close().await;
}
