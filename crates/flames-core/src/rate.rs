//! How many requests a caller may send a minute. Counted in the cache, so that all daemons count together.

use crate::clock::Clock;
use flames_cache::{CacheKey, CacheStore, Ttl};
use flames_provider::Result;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Counts by caller in windows of a minute. Of two windows that meet, a caller may get the sum.
#[derive(Clone, Debug)]
pub struct RateLimit {
    cache: Arc<dyn CacheStore>,
    clock: Arc<dyn Clock>,
    per_minute: Option<NonZeroU32>,
}

/// A caller who has sent too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// When the next window begins.
    pub retry_after: Duration,
}

const WINDOW_S: i64 = 60;

impl RateLimit {
    /// A limit; `None` limits nobody.
    pub fn new(cache: Arc<dyn CacheStore>, clock: Arc<dyn Clock>, per_minute: Option<NonZeroU32>) -> Self {
        Self { cache, clock, per_minute }
    }

    /// Counts a request. A cache that is down limits nobody.
    ///
    /// # Errors
    /// [`TooMany`] with the time to wait.
    pub async fn take(&self, caller: &str) -> Result<(), TooMany> {
        let Some(limit) = self.per_minute else { return Ok(()) };
        let second = self.clock.now().as_second();
        match self.count(caller, second.div_euclid(WINDOW_S)).await {
            Ok(count) if count > i64::from(limit.get()) => {
                let left = WINDOW_S - second.rem_euclid(WINDOW_S);
                Err(TooMany { retry_after: Duration::from_secs(left.unsigned_abs()) })
            }
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "no rate limit: the cache does not answer");
                Ok(())
            }
        }
    }

    async fn count(&self, caller: &str, window: i64) -> Result<i64> {
        let key = CacheKey::parse(format!("rate/{caller}/{window}"))?;
        self.cache.increment(&key, 1, Ttl::new(Duration::from_secs(2 * WINDOW_S.unsigned_abs()))?).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use flames_cache::MemoryCacheStore;
    use jiff::Timestamp;

    #[derive(Debug)]
    struct At(i64);
    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp::from_second(self.0).unwrap()
        }
    }

    #[tokio::test]
    async fn a_caller_past_the_limit_waits_for_the_next_window_and_others_do_not() {
        let cache = Arc::new(MemoryCacheStore::new());
        let at = |second| RateLimit::new(cache.clone(), Arc::new(At(second)), NonZeroU32::new(2));
        assert_eq!(at(65).take("a").await, Ok(()));
        assert_eq!(at(66).take("a").await, Ok(()));
        assert_eq!(at(70).take("a").await, Err(TooMany { retry_after: Duration::from_secs(50) }));
        assert_eq!(at(70).take("b").await, Ok(()));
        assert_eq!(at(121).take("a").await, Ok(()));
    }
}
