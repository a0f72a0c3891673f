//! Loopback ports for VMs of a node without root.

use crate::paths::io_error;
use flames_vmm::Result;
use std::net::Ipv4Addr;

use rustix::net::{
    AddressFamily, SocketAddrV4, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};
use std::os::fd::OwnedFd;

/// A port on 127.0.0.1 that nobody else is given while the lease lives.
///
/// The port is held by a socket that is bound and does not listen, with address reuse allowed: the kernel
/// gives such a port to no one who asks for any free port, and the VMM, which allows reuse too, can still
/// listen on it. So there is no moment in which the port is free.
#[derive(Debug)]
pub(crate) struct PortLease {
    port: u16,
    _held: Option<OwnedFd>,
}

impl PortLease {
    /// Takes a free port.
    pub(crate) fn take() -> Result<Self> {
        let (port, held) = hold(0).map_err(|error| io_error("loopback port", "any", "bind", error.into()))?;
        Ok(Self { port, _held: Some(held) })
    }

    /// The lease of a VM that runs already, and so holds the port itself.
    pub(crate) fn resumed(port: u16) -> Self {
        Self { port, _held: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

fn hold(port: u16) -> rustix::io::Result<(u16, OwnedFd)> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    let bound = SocketAddrV4::try_from(getsockname(&socket)?)?;
    Ok((bound.port(), socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_leased_port_is_given_to_nobody_else_and_can_be_listened_on() {
        let leases: Vec<_> = (0..200).map(|_| PortLease::take().unwrap()).collect();
        let ports: HashSet<_> = leases.iter().map(PortLease::port).collect();
        assert_eq!(ports.len(), leases.len());
        // The standard library allows address reuse when it listens, as the VMM does.
        let listener = std::net::TcpListener::bind(("127.0.0.1", leases[0].port())).unwrap();
        assert_eq!(listener.local_addr().unwrap().port(), leases[0].port());
        for _ in 0..200 {
            let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            assert!(!ports.contains(&other.local_addr().unwrap().port()));
        }
    }
}
