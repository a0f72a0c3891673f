//! Memory and every decorator pass the suite.
#![allow(clippy::unwrap_used, missing_docs)]

use flames_cache::MemoryCacheStore;
use flames_cache::conformance::Subject;
use std::sync::Arc;

fn memory() -> Subject {
    let cache = Arc::new(MemoryCacheStore::new());
    let wiped = cache.clone();
    Subject::new(cache, move || {
        wiped.wipe();
        std::future::ready(())
    })
}

mod the_memory_cache {
    flames_cache::cache_conformance!(async { Some(super::memory()) });
}

mod decorated_with {
    use super::memory;
    use flames_cache::decorate::{WithFaults, WithMetrics, WithRetry, WithTracing};
    use flames_provider::decorate::{CallMetrics, Fault, FaultPlan, RetryPolicy, When};
    use std::sync::Arc;
    use std::time::Duration;

    mod retry {
        use super::*;
        flames_cache::cache_conformance!(async {
            Some(memory().wrapped(|cache| WithRetry::new(cache, RetryPolicy::default())))
        });
    }

    mod metrics {
        use super::*;
        flames_cache::cache_conformance!(async {
            let metrics = CallMetrics::register(&mut prometheus_client::registry::Registry::default());
            Some(memory().wrapped(|cache| WithMetrics::new(cache, metrics)))
        });
    }

    mod tracing {
        use super::*;
        flames_cache::cache_conformance!(async { Some(memory().wrapped(WithTracing::new)) });
    }

    /// Delays change nothing but the time.
    mod delays {
        use super::*;
        flames_cache::cache_conformance!(async {
            let delay = Fault::Delay(Duration::from_millis(3));
            let plan = FaultPlan::seeded(11).rule("*", When::Rate(0.2), delay);
            Some(memory().wrapped(|cache| WithFaults::new(cache, Arc::new(plan))))
        });
    }

    /// Retries hide faults of everything that may be repeated: the suite does not see them.
    mod retry_around_faults {
        use super::*;
        use flames_cache::ErrorKind;
        use std::num::NonZeroUsize;

        flames_cache::cache_conformance!(async {
            let down = Fault::Error(ErrorKind::Unavailable);
            let plan = ["get", "set", "delete"].into_iter().fold(FaultPlan::seeded(5), |plan, call| {
                plan.rule(call, When::Rate(0.2), down).rule(call, When::Rate(0.1), Fault::LostAck)
            });
            let quick = Duration::from_millis(1);
            let attempts = NonZeroUsize::MIN.saturating_add(14);
            let policy = RetryPolicy { attempts, first_delay: quick, max_delay: quick };
            Some(memory().wrapped(|cache| WithRetry::new(WithFaults::new(cache, Arc::new(plan)), policy)))
        });
    }
}

mod faults_that_are_not_hidden {
    use flames_cache::decorate::{WithFaults, WithRetry};
    use flames_cache::{CacheKey, CacheStore, CacheValue, ErrorKind, MemoryCacheStore, Ttl};
    use flames_provider::decorate::{Fault, FaultPlan, RetryPolicy, When};
    use std::sync::Arc;
    use std::time::Duration;

    fn minute() -> Ttl {
        Ttl::new(Duration::from_secs(60)).unwrap()
    }

    fn lossy(operation: &'static str) -> impl CacheStore {
        let plan = FaultPlan::seeded(1).rule(operation, When::Nth(1), Fault::LostAck);
        let faulty = WithFaults::new(MemoryCacheStore::new(), Arc::new(plan));
        WithRetry::new(faulty, RetryPolicy::default())
    }

    #[tokio::test]
    async fn a_lost_increment_is_not_repeated() {
        let (cache, key) = (lossy("increment"), CacheKey::parse("a").unwrap());
        assert_eq!(cache.increment(&key, 1, minute()).await.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(cache.get(&key).await.unwrap().unwrap(), "1");
    }

    #[tokio::test]
    async fn a_lost_lock_is_not_repeated() {
        let (cache, key) = (lossy("set_if_absent"), CacheKey::parse("a").unwrap());
        let value = CacheValue::new("holder").unwrap();
        let error = cache.set_if_absent(&key, value, minute()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(cache.get(&key).await.unwrap().unwrap(), "holder");
    }
}
