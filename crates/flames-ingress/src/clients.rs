//! How many connections each client has: for listeners that close those beyond a bound.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whoever shares an address. One of IPv6 has a whole /64, so that is taken for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    /// Whoever is at an address; one of IPv4 in the form of IPv6 is the same as that.
    pub fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

/// The clients that are connected, each with the number of its connections. Clones are the same.
#[derive(Clone, Debug)]
pub struct Clients {
    most: Option<NonZeroU32>,
    connected: Arc<Mutex<HashMap<Client, u32>>>,
}

/// The place of a connection, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    clients: Clients,
    client: Client,
}

impl Clients {
    /// With at most so many connections each.
    pub fn new(most: Option<NonZeroU32>) -> Self {
        Self { most, connected: Arc::default() }
    }

    /// A place for one more connection, if the client may have it.
    pub fn seat(&self, client: Client) -> Option<Seat> {
        let mut connected = self.lock();
        let has = connected.get(&client).copied().unwrap_or(0);
        if self.most.is_some_and(|most| has >= most.get()) {
            return None;
        }
        connected.insert(client, has + 1);
        Some(Seat { clients: self.clone(), client })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Client, u32>> {
        // A panic cannot leave a count half-changed.
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut connected = self.clients.lock();
        match connected.get_mut(&self.client) {
            Some(has) if *has > 1 => *has -= 1,
            _ => drop(connected.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        Client::at(address.parse().unwrap())
    }

    #[test]
    fn a_client_has_as_many_places_as_it_may_and_gets_them_back() {
        let clients = Clients::new(NonZeroU32::new(2));
        let (one, two) = (clients.seat(client("10.0.0.1")).unwrap(), clients.seat(client("10.0.0.1")));
        assert!(two.is_some() && clients.seat(client("10.0.0.1")).is_none());
        assert!(clients.seat(client("10.0.0.2")).is_some(), "another is not concerned");
        drop(one);
        assert!(clients.seat(client("10.0.0.1")).is_some());
        drop(two);
        assert!(clients.lock().is_empty(), "nothing is remembered of those who left");
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_are_one_client() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
    }
}
