//! Loopback ports that no other test takes.

use rustix::rand::{GetRandomFlags, getrandom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Below the kernel's range for outgoing connections, so that nothing takes the port of a server while it
/// restarts.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A free port of 127.0.0.1, reserved among all processes that use this crate until it is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// A name in the abstract socket namespace: the kernel frees it with the process, and no file stays.
    _reservation: UnixListener,
}

impl Port {
    /// Finds a free one.
    ///
    /// # Panics
    /// When there is none.
    pub fn reserve() -> Self {
        let start = random();
        (0..COUNT)
            .map(|step| FIRST + (start % COUNT + step) % COUNT)
            .find_map(Self::try_reserve)
            .expect("a free port")
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn try_reserve(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("flames-testkit-port-{number}")).ok()?;
        let reservation = UnixListener::bind_addr(&name).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _reservation: reservation })
    }
}

fn random() -> u16 {
    let mut bytes = [0; 2];
    getrandom(&mut bytes[..], GetRandomFlags::empty()).expect("random bytes");
    // Twice COUNT stays below u16's end only when taken modulo first.
    u16::from_ne_bytes(bytes) % COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_out_again_and_can_be_bound() {
        let port = Port::reserve();
        assert!(Port::try_reserve(port.number()).is_none());
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).is_ok());
        let number = port.number();
        drop(port);
        assert!(Port::try_reserve(number).is_some());
    }
}
