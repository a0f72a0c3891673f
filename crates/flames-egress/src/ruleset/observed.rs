//! What a namespace's table says: to carry it over, and to tell its figures.

use super::{Admitted, Carried, Count, Mark};
use serde::Deserialize;
use std::net::IpAddr;
use std::time::Duration;

/// What `nft -j list table inet flames` printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Everything that a new table takes over.
    pub carried: Carried,
}

/// Output of `nft` that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("nft printed what could not be read")]
pub struct Unreadable(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Object>,
}

/// Those objects that matter; of all others nothing is read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    counter: Option<NamedCount>,
    quota: Option<Quota>,
    set: Option<Set>,
}

#[derive(Deserialize)]
struct NamedCount {
    name: String,
    packets: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Quota {
    #[serde(default)]
    used: u64,
}

#[derive(Deserialize)]
struct Set {
    name: String,
    #[serde(default)]
    elem: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Timed {
    elem: Held,
}

#[derive(Deserialize)]
struct Held {
    val: IpAddr,
    expires: u64,
}

impl Observed {
    /// Reads what `nft -j list table inet flames` printed.
    ///
    /// # Errors
    /// Output that is not such a listing.
    pub fn read(printed: &[u8]) -> Result<Self, Unreadable> {
        let listing: Listing = serde_json::from_slice(printed)?;
        let mut carried = Carried::default();
        for object in listing.nftables {
            if let Some(NamedCount { name, packets, bytes }) = object.counter {
                carried.counters.insert(name, Count { packets, bytes });
            }
            if let Some(quota) = object.quota {
                carried.budget_used = quota.used;
            }
            if let Some(set) = object.set {
                carried.admitted.extend(admitted(set));
            }
        }
        Ok(Self { carried })
    }
}

fn admitted(set: Set) -> impl Iterator<Item = Admitted> {
    let name = set.name.strip_prefix("names4_").or_else(|| set.name.strip_prefix("names6_"));
    let rule = name.and_then(Mark::from_hex);
    set.elem.into_iter().filter_map(move |element| {
        let Timed { elem } = serde_json::from_value(element).ok()?;
        Some(Admitted { rule: rule?, address: elem.val, for_: Duration::from_secs(elem.expires) })
    })
}
