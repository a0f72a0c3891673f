//! Hosts in namespaces: an uplink that forwards, a world behind it, and a guest at the end of a slot's TAP.
//!
//! ```text
//! guest ── (frames copied) ── slot's tap0 … flv… ── uplink ── world
//!                                                   203.0.113.1   203.0.113.2 and what it plays: public, private,
//!                                                   192.168.77.1  and metadata addresses
//! ```
//!
//! No namespace has a name: all of it goes with the last descriptor.

use crate::net::slot::enter;
use crate::net::{GUEST_IP, GUEST_MAC, HOST_IP, PREFIX, Slot, SlotNames, TAP, UplinkConfig};
use flames_provider::conformance;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

/// The world's addresses that anybody may have.
pub(super) const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub(super) const OTHER_PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
/// Those that nobody should reach.
pub(super) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
pub(super) const PRIVATE: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 1, 2, 3), Ipv4Addr::new(172, 20, 0, 7), Ipv4Addr::new(192, 168, 99, 1)];
/// The uplink's own.
pub(super) const UPLINK: [Ipv4Addr; 3] =
    [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(192, 168, 77, 1), Ipv4Addr::new(127, 0, 0, 1)];
/// Where the slots of tests live in the uplink.
pub(super) const RANGE: &str = "100.127.64.0/24";

/// A network namespace.
#[derive(Clone, Debug)]
pub(super) struct Netns(Arc<File>);

impl Netns {
    pub(super) fn new() -> Self {
        let made = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let netns = Self(Arc::new(made.join().unwrap()));
        netns.ip("link set lo up");
        netns
    }

    pub(super) fn of(slot: &Slot) -> Self {
        Self(slot.namespace())
    }

    /// Does something inside, on a thread that ends with it.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(self.0.as_fd()).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// `ip ARGUMENTS`
    pub(super) fn ip(&self, arguments: &str) -> String {
        let output = self.run(|| Command::new("ip").args(arguments.split_whitespace()).output().unwrap());
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(super) fn nft(&self, arguments: &str) -> String {
        let output = self.run(|| Command::new("nft").args(arguments.split_whitespace()).output().unwrap());
        assert!(output.status.success(), "nft {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(super) fn forward(&self) {
        self.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    }

    /// A path that opens this namespace.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    pub(super) fn listen(&self, address: impl Into<SocketAddr>) -> tokio::net::TcpListener {
        let address = address.into();
        let listener = self.run(|| TcpListener::bind(address).unwrap());
        listener.set_nonblocking(true).unwrap();
        tokio::net::TcpListener::from_std(listener).unwrap()
    }

    pub(super) fn udp(&self, address: impl Into<SocketAddr>) -> tokio::net::UdpSocket {
        let address = address.into();
        let socket = self.run(|| UdpSocket::bind(address).unwrap());
        socket.set_nonblocking(true).unwrap();
        tokio::net::UdpSocket::from_std(socket).unwrap()
    }

    /// A TCP connection begun inside.
    pub(super) async fn connect(&self, to: impl Into<SocketAddr>) -> io::Result<tokio::net::TcpStream> {
        let socket = self.run(tokio::net::TcpSocket::new_v4)?;
        socket.connect(to.into()).await
    }
}

/// Everything that arrives at a namespace, on whatever link.
#[derive(Debug)]
pub(super) struct Sniffer(OwnedFd);

impl Sniffer {
    pub(super) fn of(netns: &Netns) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let every = SockProtocol::EthAll;
        Self(netns.run(|| socket(AddressFamily::Packet, SockType::Raw, flags, every).unwrap()))
    }

    /// The frames that came in since the last time, without what the host sent itself.
    pub(super) fn frames(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0u8; 65_536];
        let mut frames = Vec::new();
        while let Ok(length) = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }
}

/// An uplink and a world.
#[derive(Debug)]
pub(super) struct Testbed {
    pub(super) uplink: Netns,
    pub(super) world: Netns,
    pub(super) names: SlotNames,
    _data: tempfile::TempDir,
}

impl Testbed {
    /// `None`, loudly, without root.
    pub(super) fn new() -> Option<Self> {
        Self::on(RANGE)
    }

    /// With addresses for thousands.
    pub(super) fn wide() -> Option<Self> {
        Self::on("100.127.0.0/16")
    }

    fn on(range: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            conformance::skip("root", "run as root");
            return None;
        }
        let (uplink, world) = (Netns::new(), Netns::new());
        uplink.forward();
        let peer = world.path();
        uplink.ip(&format!("link add wan type veth peer name eth0 netns {}", peer.display()));
        uplink.ip("link set wan up");
        uplink.ip("address add 203.0.113.1/24 dev wan");
        uplink.ip("address add 192.168.77.1/24 dev wan");
        world.ip("link set eth0 up");
        world.ip("address add 203.0.113.2/24 dev eth0");
        for address in [PUBLIC, OTHER_PUBLIC, RESOLVER, METADATA].into_iter().chain(PRIVATE) {
            world.ip(&format!("address add {address}/32 dev lo"));
        }
        uplink.ip("route add default via 203.0.113.2");
        let data = tempfile::tempdir().unwrap();
        let names = SlotNames::with_uplink(data.path(), &config(&uplink, range)).unwrap();
        Some(Self { uplink, world, names, _data: data })
    }

    /// What must hold at a test's end: nothing of ours is left anywhere.
    pub(super) async fn assert_nothing_left(&self) {
        self.names.tidy_uplink().await.unwrap();
        assert!(self.names.existing().unwrap().is_empty(), "slots are left");
        let links = self.uplink.ip("-o link");
        assert!(!links.contains("flv"), "{links}");
        assert_eq!(self.uplink.nft("list tables"), "", "tables are left");
        let routes = self.uplink.ip("route show table all");
        assert!(!routes.contains("100.127."), "{routes}");
    }
}

pub(super) fn config(uplink: &Netns, range: &str) -> UplinkConfig {
    UplinkConfig { range: range.parse().unwrap(), namespace: Some(uplink.path()) }
}

/// The address that a connected slot has in the uplink.
pub(super) fn uplink_address(slot: &Slot) -> Ipv4Addr {
    let told = Netns::of(slot).ip("-4 -o address show dev up0");
    let net = told.split_whitespace().nth(3).unwrap();
    net.split('/').next().unwrap().parse().unwrap()
}

/// A guest: Linux in a namespace of its own, whose frames go through the slot's TAP as a VMM's would; and beside it
/// whatever frames a test makes up.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) netns: Netns,
    tap: Arc<AsyncFd<File>>,
    pumps: [JoinHandle<()>; 2],
}

/// What the slot's TAP has before each frame.
const VNET_HEADER: usize = 10;

impl Guest {
    /// Plugs a guest into a slot.
    pub(super) fn plug_in(slot: &Slot) -> Self {
        let tap = Arc::new(open_tap(&Netns::of(slot), TAP, libc::IFF_VNET_HDR));
        let netns = Netns::new();
        let own = Arc::new(open_tap(&netns, "eth0", 0));
        let mac = GUEST_MAC.0.map(|byte| format!("{byte:02x}")).join(":");
        netns.ip(&format!("link set eth0 address {mac} up"));
        netns.ip(&format!("address add {GUEST_IP}/{PREFIX} dev eth0"));
        netns.ip(&format!("route add default via {HOST_IP}"));
        let pumps = [
            tokio::spawn(pump(Arc::clone(&own), Arc::clone(&tap), 0)),
            tokio::spawn(pump(Arc::clone(&tap), own, VNET_HEADER)),
        ];
        Self { netns, tap, pumps }
    }

    /// Puts a frame on the wire, as it is.
    pub(super) async fn send(&self, frame: &[u8]) {
        let bytes = [&[0; VNET_HEADER][..], frame].concat();
        self.tap.async_io(tokio::io::Interest::WRITABLE, |mut tap| tap.write(&bytes)).await.unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.pumps.iter().for_each(JoinHandle::abort);
    }
}

/// Copies frames from one TAP to another; one has a header that the other has not.
async fn pump(from: Arc<AsyncFd<File>>, to: Arc<AsyncFd<File>>, from_header: usize) {
    let mut buffer = [0u8; 65_536];
    let header = [0; VNET_HEADER];
    let to_header = VNET_HEADER - from_header;
    loop {
        let read = from.async_io(tokio::io::Interest::READABLE, |mut tap| tap.read(&mut buffer)).await;
        let Ok(length) = read else { return };
        let bytes = [&header[..to_header], &buffer[from_header..length]].concat();
        // A full queue drops frames, as wires do.
        let _ = to.async_io(tokio::io::Interest::WRITABLE, |mut tap| tap.write(&bytes)).await;
    }
}

#[allow(unsafe_code)]
fn open_tap(netns: &Netns, name: &str, header: libc::c_int) -> AsyncFd<File> {
    let tap = netns.run(|| {
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
        let device = options.read(true).write(true).open("/dev/net/tun").unwrap();
        // SAFETY: ifreq is plain data, and all zero is a valid value of it.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags =
            libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI | header).unwrap();
        // SAFETY: the descriptor is open, and `request` is a whole ifreq that outlives the call.
        unsafe { crate::net::link::tun_set_iff(device.as_raw_fd(), &raw const request) }.unwrap();
        device
    });
    // SAFETY: a file owns its descriptor and keeps it open for as long as it is there.
    unsafe { AsyncFd::register(tap) }.unwrap()
}
