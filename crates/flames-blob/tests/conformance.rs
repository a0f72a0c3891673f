//! Memory and every decorator pass the suite.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used, missing_docs)]

use flames_blob::MemoryBlobStore;
use flames_blob::conformance::Subject;
use std::sync::Arc;

fn memory() -> Subject {
    let store = Arc::new(MemoryBlobStore::new());
    let damaged = store.clone();
    Subject::new(store, move |key| damaged.rot(key))
}

mod the_memory_store {
    flames_blob::blob_conformance!(async { Some(super::memory()) });
    flames_blob::blob_name_conformance!(async { Some(super::memory()) });
}

mod decorated_with {
    use super::memory;
    use flames_blob::decorate::{WithFaults, WithMetrics, WithRetry, WithTracing};
    use flames_provider::decorate::{CallMetrics, Fault, FaultPlan, RetryPolicy, When};
    use std::sync::Arc;
    use std::time::Duration;

    mod retry {
        use super::*;
        flames_blob::blob_conformance!(async {
            Some(memory().wrapped(|store| WithRetry::new(store, RetryPolicy::default())))
        });
    }

    mod metrics {
        use super::*;
        flames_blob::blob_conformance!(async {
            let metrics = CallMetrics::register(&mut prometheus_client::registry::Registry::default());
            Some(memory().wrapped(|store| WithMetrics::new(store, metrics)))
        });
    }

    mod tracing {
        use super::*;
        flames_blob::blob_conformance!(async { Some(memory().wrapped(WithTracing::new)) });
    }

    /// Delays change nothing but the time.
    mod delays {
        use super::*;
        flames_blob::blob_conformance!(async {
            let delay = Fault::Delay(Duration::from_millis(3));
            let plan = FaultPlan::seeded(11).rule("*", When::Rate(0.2), delay);
            Some(memory().wrapped(|store| WithFaults::new(store, Arc::new(plan))))
        });
    }

    /// Retries hide faults of everything that may be repeated: the suite does not see them.
    mod retry_around_faults {
        use super::*;
        use flames_blob::ErrorKind;
        use std::num::NonZeroUsize;

        flames_blob::blob_conformance!(async {
            let down = Fault::Error(ErrorKind::Unavailable);
            let plan =
                ["get", "head", "list", "delete"].into_iter().fold(FaultPlan::seeded(5), |plan, call| {
                    plan.rule(call, When::Rate(0.2), down).rule(call, When::Rate(0.1), Fault::LostAck)
                });
            let quick = Duration::from_millis(1);
            let attempts = NonZeroUsize::MIN.saturating_add(14);
            let policy = RetryPolicy { attempts, first_delay: quick, max_delay: quick };
            Some(memory().wrapped(|store| WithRetry::new(WithFaults::new(store, Arc::new(plan)), policy)))
        });
    }
}
