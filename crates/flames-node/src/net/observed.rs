//! What the rules of a namespace hold that new ones take over: counts, the budget's use, addresses of names.

use super::firewall::TABLE;
use super::nfnetlink::{Family, Firewall, Kind, Message, attribute, attributes, number};
use flames_egress::{Admitted, Carried, Count, Mark};
use flames_vmm::{Error, ErrorKind, Result};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

// Numbers of attributes in linux/netfilter/nf_tables.h, by the message that has them.
const TABLE_NAME: u16 = 1; // and that of the table which anything else is in
const OF_TABLE: u16 = 1;
const NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
const COUNTER: u32 = 1;
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;
const QUOTA: u32 = 2;
const QUOTA_USED: u16 = 4;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_EXPIRATION: u16 = 5;
const KEY_VALUE: u16 = 1;

/// Whether the namespace of the calling thread has a table.
pub(super) fn has_table(family: Family, name: &str) -> Result<bool> {
    let ask = || Firewall::open()?.dump(Kind::GetTable, family, &[]);
    let tables = ask().map_err(|error| unreadable(name, error))?;
    let is_it = |table: &Message| table.family == family as u8 && table.name(TABLE_NAME) == Some(name);
    Ok(tables.iter().any(is_it))
}

/// What the policy's table of the calling thread's namespace holds.
///
/// # Errors
/// `Unavailable` when the table is not there, or the kernel does not tell.
pub(super) fn carried() -> Result<Carried> {
    read_policy_table().map_err(|error| unreadable(TABLE, error))
}

/// What both tables counted. Where they count the same, its sum.
pub(super) fn figures() -> Result<Carried> {
    let mut figures = carried()?;
    let guard = || objects(&Firewall::open()?, Family::Netdev);
    for object in guard().map_err(|error| unreadable(TABLE, error))? {
        if let Some((name, count)) = counter(&object) {
            let sum = figures.counters.entry(name).or_default();
            *sum = sum.plus(count);
        }
    }
    Ok(figures)
}

fn read_policy_table() -> io::Result<Carried> {
    let firewall = Firewall::open()?;
    let objects = objects(&firewall, Family::Inet)?;
    let counters = objects.iter().filter_map(counter).collect();
    let budget_used = objects.iter().find_map(quota).unwrap_or_default();
    let mut admitted = Vec::new();
    for set in firewall.dump(Kind::GetSet, Family::Inet, &[(OF_TABLE, TABLE)])? {
        let Some((rule, name)) = set.name(NAME).and_then(|name| Some((Mark::of_set(name)?, name))) else {
            continue;
        };
        for elements in firewall.dump(Kind::GetElements, Family::Inet, &[(OF_TABLE, TABLE), (NAME, name)])? {
            admitted.extend(held(rule, &elements));
        }
    }
    Ok(Carried { counters, budget_used, admitted })
}

fn objects(firewall: &Firewall, family: Family) -> io::Result<Vec<Message>> {
    firewall.dump(Kind::GetObject, family, &[(OF_TABLE, TABLE)])
}

fn counter(object: &Message) -> Option<(String, Count)> {
    let data = data_of(object, COUNTER)?;
    let of = |kind| attribute(data, kind).and_then(number);
    let count = Count { packets: of(COUNTER_PACKETS)?, bytes: of(COUNTER_BYTES)? };
    Some((object.name(NAME)?.to_owned(), count))
}

fn quota(object: &Message) -> Option<u64> {
    attribute(data_of(object, QUOTA)?, QUOTA_USED).and_then(number)
}

fn data_of(object: &Message, of: u32) -> Option<&[u8]> {
    let kind = object.attribute(OBJECT_TYPE)?.try_into().ok().map(u32::from_be_bytes)?;
    (kind == of).then(|| object.attribute(OBJECT_DATA)).flatten()
}

/// The addresses in a message about a set's elements.
fn held(rule: Mark, message: &Message) -> Vec<Admitted> {
    let list = message.attribute(ELEMENTS).unwrap_or_default();
    let one = |element| {
        let key = attribute(attribute(element, ELEMENT_KEY)?, KEY_VALUE)?;
        let left = attribute(element, ELEMENT_EXPIRATION).and_then(number)?;
        Some(Admitted { rule, address: address(key)?, for_: Duration::from_millis(left) })
    };
    attributes(list).filter_map(|(_, element)| one(element)).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn unreadable(table: &str, error: io::Error) -> Error {
    let detail = match error.kind() {
        io::ErrorKind::NotFound => "its rules are gone".to_owned(),
        _ => error.to_string(),
    };
    Error::new(ErrorKind::Unavailable, "firewall", table).operation("read").detail(detail).source(error)
}
