//! A memory cache that breaks one promise of your choice.

use async_trait::async_trait;
use bytes::Bytes;
use flames_cache::{
    CacheKey, CacheStore, CacheValue, Error, ErrorKind, MemoryCacheStore, Result, SetIfAbsent, Ttl,
};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    LosesTheLastWrite,
    CutsValues,
    KeepsTextOnly,
    FoldsCase,
    IgnoresTtl,
    RoundsTtlUp,
    KeepsTheOldTtl,
    NeverDeletes,
    RefusesToDeleteNothing,
    GrantsEveryLock,
    ChecksThenLocks,
    ProlongsRefusedLocks,
    ReadsThenCounts,
    ProlongsCounters,
    WrapsAround,
    TakesTextForZero,
    SurvivesTheWipe,
}

#[derive(Debug)]
pub(crate) struct BrokenCacheStore {
    inner: MemoryCacheStore,
    fault: Option<Fault>,
}

impl BrokenCacheStore {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self { inner: MemoryCacheStore::new(), fault }
    }

    pub(crate) fn wipe(&self) {
        if self.fault != Some(Fault::SurvivesTheWipe) {
            self.inner.wipe();
        }
    }

    fn broken_key(&self, key: &CacheKey) -> CacheKey {
        match self.fault {
            Some(Fault::FoldsCase) => CacheKey::parse(key.as_str().to_lowercase()).unwrap(),
            _ => key.clone(),
        }
    }

    fn broken_ttl(&self, ttl: Ttl) -> Ttl {
        let longer = match self.fault {
            Some(Fault::IgnoresTtl) => flames_cache::MAX_TTL,
            Some(Fault::RoundsTtlUp) => ttl.get() + Duration::from_millis(1500),
            _ => return ttl,
        };
        Ttl::new(longer.min(flames_cache::MAX_TTL)).unwrap()
    }

    fn broken_value(&self, value: CacheValue) -> CacheValue {
        let bytes = value.into_bytes();
        CacheValue::new(match self.fault {
            Some(Fault::CutsValues) => bytes.slice(..bytes.len().min(65_535)),
            Some(Fault::KeepsTextOnly) => String::from_utf8_lossy(&bytes).into_owned().into(),
            _ => bytes,
        })
        .unwrap()
    }

    /// Forgets the new time when something is there.
    async fn set_value_only(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<()> {
        match self.inner.set_if_absent(key, value.clone(), ttl).await? {
            SetIfAbsent::Stored => Ok(()),
            SetIfAbsent::Taken => self.inner.set(key, value, Ttl::new(Duration::from_secs(3600))?).await,
        }
    }

    async fn number(&self, key: &CacheKey) -> Option<i64> {
        let bytes = self.inner.get(key).await.ok()??;
        std::str::from_utf8(&bytes).ok()?.parse().ok()
    }

    async fn set_number(&self, key: &CacheKey, number: i64, ttl: Ttl) -> Result<i64> {
        self.inner.set(key, CacheValue::new(number.to_string())?, ttl).await?;
        Ok(number)
    }
}

/// Long enough for another to come between.
async fn let_others_in() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

#[async_trait]
impl CacheStore for BrokenCacheStore {
    fn adapter(&self) -> &'static str {
        "broken"
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>> {
        self.inner.get(&self.broken_key(key)).await
    }

    async fn set(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<()> {
        let (key, value, ttl) = (self.broken_key(key), self.broken_value(value), self.broken_ttl(ttl));
        match self.fault {
            Some(Fault::LosesTheLastWrite) => self.inner.set_if_absent(&key, value, ttl).await.map(|_| ()),
            Some(Fault::KeepsTheOldTtl) => self.set_value_only(&key, value, ttl).await,
            _ => self.inner.set(&key, value, ttl).await,
        }
    }

    async fn set_if_absent(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<SetIfAbsent> {
        match self.fault {
            Some(Fault::GrantsEveryLock) => {
                self.inner.set(key, value, ttl).await?;
                Ok(SetIfAbsent::Stored)
            }
            Some(Fault::ChecksThenLocks) if self.inner.get(key).await?.is_none() => {
                let_others_in().await;
                self.inner.set(key, value, ttl).await?;
                Ok(SetIfAbsent::Stored)
            }
            Some(Fault::ProlongsRefusedLocks) => {
                let outcome = self.inner.set_if_absent(key, value.clone(), ttl).await?;
                self.inner.set(key, value, ttl).await?;
                Ok(outcome)
            }
            _ => self.inner.set_if_absent(&self.broken_key(key), value, self.broken_ttl(ttl)).await,
        }
    }

    async fn increment(&self, key: &CacheKey, by: i64, ttl: Ttl) -> Result<i64> {
        match self.fault {
            Some(Fault::ReadsThenCounts) => {
                let number = self.number(key).await.unwrap_or_default();
                let_others_in().await;
                self.set_number(key, number + by, ttl).await
            }
            Some(Fault::ProlongsCounters) => {
                let sum = self.inner.increment(key, by, ttl).await?;
                self.set_number(key, sum, ttl).await
            }
            Some(Fault::WrapsAround) => {
                let number = self.number(key).await.unwrap_or_default();
                self.set_number(key, number.wrapping_add(by), ttl).await
            }
            Some(Fault::TakesTextForZero) if self.number(key).await.is_none() => {
                self.set_number(key, by, ttl).await
            }
            _ => self.inner.increment(&self.broken_key(key), by, self.broken_ttl(ttl)).await,
        }
    }

    async fn delete(&self, key: &CacheKey) -> Result<()> {
        match self.fault {
            Some(Fault::NeverDeletes) => Ok(()),
            Some(Fault::RefusesToDeleteNothing) if self.inner.get(key).await?.is_none() => {
                Err(Error::new(ErrorKind::NotFound, "cache entry", key.as_str()))
            }
            _ => self.inner.delete(&self.broken_key(key)).await,
        }
    }
}
