//! The suite over the memory queue and over each decorator around it.
#![allow(clippy::unwrap_used, missing_docs)]

use flames_provider::decorate::{CallMetrics, Fault, FaultPlan, RetryPolicy, When};
use flames_queue::WorkQueue;
use flames_queue::conformance::Fixture;
use flames_queue::decorators::{Faulty, Metered, Retried, Traced};
use flames_queue::memory::MemoryQueue;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

fn memory() -> Arc<dyn WorkQueue> {
    Arc::new(MemoryQueue::new(Fixture::short_dedup_window()))
}

mod memory_queue {
    use super::*;
    flames_queue::queue_conformance! {
        #[tokio::test(start_paused = true)]
        async || Some(Fixture::new(memory()))
    }
}

mod metered {
    use super::*;
    flames_queue::queue_conformance! {
        #[tokio::test(start_paused = true)]
        async || Some(Fixture::new(Arc::new(Metered::new(memory(), CallMetrics::register(&mut Registry::default())))))
    }
}

mod traced {
    use super::*;
    flames_queue::queue_conformance! {
        #[tokio::test(start_paused = true)]
        async || Some(Fixture::new(Arc::new(Traced::new(memory()))))
    }
}

mod retried {
    use super::*;
    flames_queue::queue_conformance! {
        #[tokio::test(start_paused = true)]
        async || Some(Fixture::new(Arc::new(Retried::new(memory(), RetryPolicy::default()))))
    }
}

/// Without a fault to inject, and with answers that now and then come a little late.
mod faulty {
    use super::*;
    flames_queue::queue_conformance! {
        #[tokio::test(start_paused = true)]
        async || {
            let late = Fault::Delay(Duration::from_millis(1));
            let plan = FaultPlan::seeded(1).rule("*", When::Rate(0.1), late);
            Some(Fixture::new(Arc::new(Faulty::new(memory(), plan))))
        }
    }
}

/// A backend whose reads fail now and then keeps every promise behind retries.
mod retried_over_faulty_reads {
    use super::*;
    flames_queue::queue_conformance! {
        #[tokio::test(start_paused = true)]
        async || {
            let fails = Fault::Error(flames_queue::ErrorKind::Unavailable);
            let plan = FaultPlan::seeded(2)
                .rule("depth", When::Nth(1), fails)
                .rule("dead_letters", When::Nth(1), Fault::LostAck);
            let faulty = Arc::new(Faulty::new(memory(), plan));
            Some(Fixture::new(Arc::new(Retried::new(faulty, RetryPolicy::default()))))
        }
    }
}
