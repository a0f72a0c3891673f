//! The addresses that sandboxes with egress have on the host: which ranges will do, and which are taken.

use flames_vmm::{Error, ErrorKind, Result};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// What a range may lie in: addresses that no host on the internet has.
const NOBODYS: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
];

/// Routes that mean "everything else", whole or as a VPN's two halves: no range could avoid them.
const LONGEST_DEFAULT: u8 = 1;

/// Addresses that a node may give, one for each sandbox that may reach something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressRange(Ipv4Net);

/// A destination that a host knows, and through which link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) net: Ipv4Net,
    pub(crate) link: String,
}

impl AddressRange {
    /// Takes a range that lies in private or shared address space and leaves the guests' own network alone.
    ///
    /// # Errors
    /// `InvalidInput` with the reason.
    pub(crate) fn new(net: Ipv4Net) -> Result<Self> {
        let invalid = |why: String| Err(invalid(net, why));
        let inside: Ipv4Net = guests();
        if !NOBODYS.iter().any(|&(address, prefix)| contains(address, prefix, net)) {
            return invalid("is not private: take one inside 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 or 198.18.0.0/15".into());
        }
        if overlap(inside, net) {
            return invalid(format!("overlaps {inside}, which every sandbox has inside: take another"));
        }
        Ok(Self(net.trunc()))
    }

    /// How many addresses there are.
    pub(crate) fn size(&self) -> u32 {
        1u32.checked_shl(u32::from(32 - self.0.prefix_len())).unwrap_or(u32::MAX)
    }

    /// Every address once, from one that a seed chooses: two daemons on one host should not try the same first.
    pub(crate) fn addresses(&self, seed: u32) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let (first, size) = (self.0.network().to_bits(), self.size());
        (0..size).map(move |step| Ipv4Addr::from_bits(first + (seed % size + step) % size))
    }

    /// Refuses a range of which the host knows a part already.
    ///
    /// # Errors
    /// `Conflict` that names the other.
    pub(crate) fn check_free(&self, taken: &[Taken]) -> Result<()> {
        let other =
            taken.iter().find(|other| other.net.prefix_len() > LONGEST_DEFAULT && overlap(other.net, self.0));
        match other {
            None => Ok(()),
            Some(Taken { net, link }) => Err(Error::new(ErrorKind::Conflict, "address range", self.to_string())
                .operation("check")
                .detail(format!(
                    "overlaps {net}, which this host reaches through `{link}`: set `network.range` to addresses that nobody near this host has"
                ))),
        }
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The network that every guest is in.
fn guests() -> Ipv4Net {
    Ipv4Net::new_assert(super::HOST_IP, super::PREFIX).trunc()
}

fn contains(address: Ipv4Addr, prefix: u8, net: Ipv4Net) -> bool {
    Ipv4Net::new_assert(address, prefix).contains(&net)
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn invalid(net: Ipv4Net, why: String) -> Error {
    Error::new(ErrorKind::InvalidInput, "address range", net.to_string()).operation("check").detail(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn range(text: &str) -> Result<AddressRange> {
        AddressRange::new(text.parse().unwrap())
    }

    fn taken(net: &str) -> Vec<Taken> {
        vec![Taken { net: net.parse().unwrap(), link: "eth0".into() }]
    }

    #[test]
    fn public_ranges_and_the_guests_own_are_refused() {
        for bad in
            ["8.8.8.0/24", "0.0.0.0/0", "100.0.0.0/8", "172.16.0.0/16", "172.16.0.128/25", "10.0.0.0/7"]
        {
            assert_eq!(range(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
        }
        for good in ["10.0.0.0/8", "100.126.0.0/16", "172.17.0.0/16", "192.168.7.0/30", "198.18.0.1/32"] {
            assert!(range(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_range_that_the_lan_has_is_refused_by_name_whichever_is_larger() {
        let range = range("10.9.0.0/16").unwrap();
        for lan in ["10.9.3.0/24", "10.0.0.0/8", "10.9.255.255/32", "10.9.0.0/16"] {
            let told = range.check_free(&taken(lan)).unwrap_err().to_string();
            assert!(told.contains(lan) && told.contains("eth0") && told.contains("network.range"), "{told}");
        }
        for other in ["10.8.0.0/16", "10.10.0.0/16", "0.0.0.0/0", "0.0.0.0/1", "192.168.0.0/16"] {
            assert!(range.check_free(&taken(other)).is_ok(), "{other}");
        }
    }

    #[test]
    fn every_address_comes_once_from_wherever_it_starts() {
        let range = range("10.9.0.0/29").unwrap();
        for seed in [0, 5, u32::MAX] {
            let addresses: HashSet<_> = range.addresses(seed).collect();
            assert_eq!(addresses.len(), 8);
            assert!(
                addresses
                    .iter()
                    .all(|address| address.octets()[..3] == [10, 9, 0] && address.octets()[3] < 8)
            );
        }
        assert_ne!(range.addresses(1).next(), range.addresses(2).next());
    }
}
