//! The store in memory, and every decorator around it, keep every promise.
#![allow(clippy::unwrap_used)]

use flames_provider::decorate::{CallMetrics, FaultPlan, RetryPolicy};
use flames_state::conformance::{Fixture, HISTORY};
use flames_state::decorate::{WithFaults, WithMetrics, WithRetry, WithTracing};
use flames_state::{MemoryStateStore, StateStore};
use prometheus_client::registry::Registry;
use std::sync::Arc;

fn memory() -> MemoryStateStore {
    MemoryStateStore::with_history(HISTORY)
}

fn fixture(store: impl StateStore) -> Option<Fixture> {
    Some(Fixture::new(Arc::new(store)))
}

mod memory_store {
    flames_state::state_conformance! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async || super::fixture(super::memory())
    }
}

mod with_metrics {
    use super::{CallMetrics, Registry, WithMetrics, fixture, memory};
    flames_state::state_conformance! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async || fixture(WithMetrics::new(memory(), CallMetrics::register(&mut Registry::default())))
    }
}

mod with_tracing {
    use super::{WithTracing, fixture, memory};
    flames_state::state_conformance! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async || fixture(WithTracing::new(memory()))
    }
}

mod with_retry {
    use super::{RetryPolicy, WithRetry, fixture, memory};
    flames_state::state_conformance! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async || fixture(WithRetry::new(memory(), RetryPolicy::default()))
    }
}

mod with_a_fault_plan_of_no_faults {
    use super::{Arc, FaultPlan, WithFaults, fixture, memory};
    flames_state::state_conformance! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async || fixture(WithFaults::new(memory(), Arc::new(FaultPlan::seeded(0))))
    }
}

/// A fifth of the calls fails before it is executed or is late, and a bounded retry hides it from every promise.
mod with_faults_behind_retry {
    use super::{Arc, FaultPlan, RetryPolicy, WithFaults, WithRetry, fixture, memory};
    use flames_provider::decorate::{Fault, When};
    use flames_state::ErrorKind;
    use std::num::NonZeroUsize;
    use std::time::Duration;

    fn plan() -> FaultPlan {
        FaultPlan::seeded(7).rule("*", When::Rate(0.1), Fault::Error(ErrorKind::Unavailable)).rule(
            "*",
            When::Rate(0.1),
            Fault::Delay(Duration::from_micros(100)),
        )
    }

    /// Twelve failures in a row at this rate happen once in 10^12 calls.
    fn policy() -> RetryPolicy {
        let delay = Duration::from_micros(10);
        RetryPolicy { attempts: NonZeroUsize::new(12).unwrap(), first_delay: delay, max_delay: delay }
    }

    flames_state::state_conformance! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async || fixture(WithRetry::new(WithFaults::new(memory(), Arc::new(plan())), policy()))
    }
}
