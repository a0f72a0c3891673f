//! A cache in the process: the backend of one machine.

use crate::{CacheKey, CacheStore, CacheValue, SetIfAbsent, Ttl};
use async_trait::async_trait;
use bytes::Bytes;
use flames_provider::{Error, ErrorKind, Result};
use moka::Expiry;
use moka::future::Cache;
use moka::ops::compute::{CompResult, Op};
use std::fmt;
use std::time::{Duration, Instant};

const ADAPTER: &str = "memory";

/// What all keys and values together may take without [`MemoryCacheStore::with_capacity`]: 256 MiB.
const DEFAULT_CAPACITY_BYTES: u64 = 256 << 20;

/// The reference implementation of [`CacheStore`]. When it is full it drops what is used least.
pub struct MemoryCacheStore {
    entries: Cache<CacheKey, Entry>,
}

#[derive(Clone)]
struct Entry {
    value: Value,
    expires: Instant,
}

#[derive(Clone)]
enum Value {
    Bytes(Bytes),
    Counter(i64),
}

impl MemoryCacheStore {
    /// An empty cache for 256 MiB.
    pub fn new() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY_BYTES)
    }

    /// An empty cache for so many bytes of keys and values.
    pub fn with_capacity(bytes: u64) -> Self {
        let entries = Cache::builder().max_capacity(bytes).weigher(weight).expire_after(EndOfEntry).build();
        Self { entries }
    }

    /// Loses everything, as a cache may at any time: for tests of what follows from it.
    pub fn wipe(&self) {
        self.entries.invalidate_all();
    }
}

#[async_trait]
impl CacheStore for MemoryCacheStore {
    fn adapter(&self) -> &'static str {
        ADAPTER
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>> {
        Ok(self.entries.get(key).await.map(|entry| entry.value.into_bytes()))
    }

    async fn set(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<()> {
        self.entries.insert(key.clone(), Entry::new(value, ttl)).await;
        Ok(())
    }

    async fn set_if_absent(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<SetIfAbsent> {
        let slot = self.entries.entry_by_ref(key);
        let outcome = slot.and_compute_with(async |there| match there {
            Some(_) => Op::Nop,
            None => Op::Put(Entry::new(value, ttl)),
        });
        Ok(match outcome.await {
            CompResult::Inserted(_) => SetIfAbsent::Stored,
            _ => SetIfAbsent::Taken,
        })
    }

    async fn increment(&self, key: &CacheKey, by: i64, ttl: Ttl) -> Result<i64> {
        let slot = self.entries.entry_by_ref(key);
        let outcome = slot.and_try_compute_with(async |there| {
            let entry = match there {
                Some(entry) => entry.into_value(),
                None => Entry { value: Value::Counter(0), expires: Instant::now() + ttl.get() },
            };
            let sum = entry.value.plus(by).ok_or_else(|| no_number(key))?;
            Ok::<_, Error>(Op::Put(Entry { value: Value::Counter(sum), ..entry }))
        });
        match outcome.await? {
            CompResult::Inserted(entry) | CompResult::ReplacedWith(entry) => match entry.into_value().value {
                Value::Counter(sum) => Ok(sum),
                Value::Bytes(_) => Err(no_number(key)),
            },
            _ => Err(no_number(key)),
        }
    }

    async fn delete(&self, key: &CacheKey) -> Result<()> {
        self.entries.invalidate(key).await;
        Ok(())
    }
}

impl Entry {
    fn new(value: CacheValue, ttl: Ttl) -> Self {
        Self { value: Value::Bytes(value.into_bytes()), expires: Instant::now() + ttl.get() }
    }
}

impl Value {
    fn into_bytes(self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Counter(number) => number.to_string().into(),
        }
    }

    /// `None` when this is no number or the sum does not fit.
    fn plus(&self, by: i64) -> Option<i64> {
        let number = match self {
            Self::Counter(number) => *number,
            Self::Bytes(bytes) => parse_counter(bytes)?,
        };
        number.checked_add(by)
    }

    fn size(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Counter(_) => size_of::<i64>(),
        }
    }
}

/// Decimal digits as [`Value::into_bytes`] writes them, and in no other form.
fn parse_counter(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.parse().ok().filter(|number: &i64| number.to_string() == text)
}

fn weight(key: &CacheKey, entry: &Entry) -> u32 {
    u32::try_from(key.as_str().len() + entry.value.size()).unwrap_or(u32::MAX)
}

fn no_number(key: &CacheKey) -> Error {
    let error = Error::new(ErrorKind::InvalidInput, "cache entry", key.as_str());
    error
        .operation("increment")
        .adapter(ADAPTER)
        .detail("the value is no number, or the sum does not fit 64 bits")
}

/// An entry knows itself when it ends.
struct EndOfEntry;

impl Expiry<CacheKey, Entry> for EndOfEntry {
    fn expire_after_create(&self, _key: &CacheKey, entry: &Entry, now: Instant) -> Option<Duration> {
        Some(entry.expires.saturating_duration_since(now))
    }

    fn expire_after_update(
        &self,
        _key: &CacheKey,
        entry: &Entry,
        now: Instant,
        _remaining: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.expires.saturating_duration_since(now))
    }
}

impl Default for MemoryCacheStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryCacheStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCacheStore").field("entries", &self.entries.entry_count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_cache_drops_entries_and_goes_on() {
        let cache = MemoryCacheStore::with_capacity(10_000);
        let ttl = Ttl::new(Duration::from_secs(60)).unwrap();
        for n in 0..1000 {
            let key = CacheKey::parse(format!("key-{n}")).unwrap();
            cache.set(&key, CacheValue::new(vec![0; 100]).unwrap(), ttl).await.unwrap();
        }
        cache.entries.run_pending_tasks().await;
        assert!(cache.entries.weighted_size() <= 10_000);
        assert!(cache.entries.entry_count() > 50);
    }

    #[test]
    fn only_what_a_counter_would_print_is_a_number() {
        for good in ["0", "-1", "9223372036854775807"] {
            assert_eq!(parse_counter(good.as_bytes()).unwrap().to_string(), good);
        }
        for bad in ["", "+1", "01", " 1", "1.0", "9223372036854775808", "ä"] {
            assert_eq!(parse_counter(bad.as_bytes()), None, "{bad}");
        }
    }
}
