//! Addresses that are not the public internet, and whether a rule can open them.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is, as far as rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// An address of the public internet. Those set aside for documentation count too: nobody has them.
    Public,
    /// Private, shared, link-local or translated: closed unless an allow rule lies wholly within the range.
    Special(IpNet),
    /// Loopback, multicast, broadcast, unspecified, reserved: no rule opens it.
    Never(IpNet),
}

/// Private and shared ranges, link-local ones with the clouds' metadata services, and prefixes that embed another
/// address (6to4, Teredo, NAT64 for local use).
pub(crate) const SPECIAL_4: [Ipv4Net; 8] = [
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
];
pub(crate) const SPECIAL_6: [Ipv6Net; 5] =
    [v6(0x2001, 0, 32), v6(0x2002, 0, 16), v6(0xfc00, 0, 7), v6(0xfe80, 0, 10), v6(0xfec0, 0, 10)];

pub(crate) const NEVER_4: [Ipv4Net; 4] =
    [v4(0, 0, 0, 0, 8), v4(127, 0, 0, 0, 8), v4(224, 0, 0, 0, 4), v4(240, 0, 0, 0, 4)];
/// Everything outside 2000::/3 that is not special: loopback, mapped addresses, multicast, what is not given out.
pub(crate) const NEVER_6: [Ipv6Net; 9] = [
    v6(0, 0, 3),
    v6(0x4000, 0, 2),
    v6(0x8000, 0, 2),
    v6(0xc000, 0, 3),
    v6(0xe000, 0, 4),
    v6(0xf000, 0, 5),
    v6(0xf800, 0, 6),
    v6(0xfe00, 0, 9),
    v6(0xff00, 0, 8),
];

impl Scope {
    /// What an address is.
    pub fn of(address: IpAddr) -> Self {
        Self::within(IpNet::from(address)).unwrap_or(Self::Public)
    }

    /// The special range that a network lies wholly within.
    pub(crate) fn within(net: IpNet) -> Option<Self> {
        let never = nets(&NEVER_4, &NEVER_6).find(|range| range.contains(&net)).map(Self::Never);
        never.or_else(|| nets(&SPECIAL_4, &SPECIAL_6).find(|range| range.contains(&net)).map(Self::Special))
    }
}

fn nets<'a>(four: &'a [Ipv4Net], six: &'a [Ipv6Net]) -> impl Iterator<Item = IpNet> + 'a {
    let four = four.iter().copied().map(IpNet::V4);
    four.chain(six.iter().copied().map(IpNet::V6))
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: u16, second: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(address: &str) -> Scope {
        Scope::of(address.parse().unwrap())
    }

    #[test]
    fn what_is_not_the_public_internet_is_told_apart() {
        for public in ["1.1.1.1", "203.0.113.9", "172.32.0.1", "2606:4700::1", "2001:db8::1"] {
            assert_eq!(scope(public), Scope::Public, "{public}");
        }
        for special in [
            "10.1.2.3",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "fd00::1",
            "fe80::1",
            "2002:a00::",
        ] {
            assert!(matches!(scope(special), Scope::Special(_)), "{special}");
        }
        for never in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "ff02::1",
            "64:ff9b::a",
        ] {
            assert!(matches!(scope(never), Scope::Never(_)), "{never}");
        }
    }

    #[test]
    fn no_two_ranges_overlap() {
        let all: Vec<IpNet> = nets(&NEVER_4, &NEVER_6).chain(nets(&SPECIAL_4, &SPECIAL_6)).collect();
        for (index, one) in all.iter().enumerate() {
            for other in &all[index + 1..] {
                assert!(!one.contains(other) && !other.contains(one), "{one} and {other}");
            }
        }
    }
}
