//! The recorder and every decorator around it pass the suite, and the decorators do what they are for.
#![allow(clippy::unwrap_used)]

use flames_ingress::conformance::Fixture;
use flames_ingress::decorate::{WithFaults, WithMetrics, WithRetry, WithTracing};
use flames_ingress::{ErrorKind, IngressProvider, MemoryIngress, RouteSet, ingress_conformance};
use flames_provider::decorate::{Call, CallMetrics, Fault, FaultPlan, RetryPolicy, When};
use prometheus_client::registry::Registry;
use std::sync::Arc;

async fn memory() -> Option<Fixture> {
    fixture(MemoryIngress::new())
}

fn fixture(provider: impl IngressProvider) -> Option<Fixture> {
    Some(Fixture::without_data_path(Arc::new(provider)))
}

fn no_faults() -> Arc<FaultPlan> {
    Arc::new(FaultPlan::seeded(1))
}

fn metrics() -> CallMetrics {
    CallMetrics::register(&mut Registry::default())
}

mod recorder {
    flames_ingress::ingress_conformance!(super::memory);
}

mod with_everything {
    use super::*;
    async fn decorated() -> Option<Fixture> {
        // One call in three fails in a way that passes, and the retry hides it.
        let plan =
            Arc::new(FaultPlan::seeded(7).rule("*", When::Rate(0.3), Fault::Error(ErrorKind::Unavailable)));
        let attempts = std::num::NonZeroUsize::new(30).unwrap();
        let first_delay = std::time::Duration::from_millis(1);
        let policy = RetryPolicy { attempts, first_delay, max_delay: first_delay };
        let faulty = WithFaults::new(MemoryIngress::new(), plan);
        fixture(WithTracing::new(WithMetrics::new(WithRetry::new(faulty, policy), metrics())))
    }
    ingress_conformance!(decorated);
}

mod with_metrics {
    use super::*;
    async fn decorated() -> Option<Fixture> {
        fixture(WithMetrics::new(MemoryIngress::new(), metrics()))
    }
    ingress_conformance!(decorated);
}

mod with_tracing {
    use super::*;
    async fn decorated() -> Option<Fixture> {
        fixture(WithTracing::new(MemoryIngress::new()))
    }
    ingress_conformance!(decorated);
}

mod with_retry {
    use super::*;
    async fn decorated() -> Option<Fixture> {
        fixture(WithRetry::new(MemoryIngress::new(), RetryPolicy::default()))
    }
    ingress_conformance!(decorated);
}

mod with_faults {
    use super::*;
    async fn decorated() -> Option<Fixture> {
        fixture(WithFaults::new(MemoryIngress::new(), no_faults()))
    }
    ingress_conformance!(decorated);
}

#[tokio::test]
async fn a_retry_hides_a_lost_acknowledgement_of_apply() {
    let plan = Arc::new(FaultPlan::seeded(0).rule("apply", When::Nth(1), Fault::LostAck));
    let provider = WithRetry::new(WithFaults::new(MemoryIngress::new(), plan), RetryPolicy::default());
    assert!(provider.apply(&RouteSet::default()).await.unwrap().is_unchanged());
}

#[tokio::test]
async fn an_injected_error_leaves_the_routes_and_is_counted() {
    let plan =
        Arc::new(FaultPlan::seeded(0).rule("apply", When::Always, Fault::Error(ErrorKind::Unavailable)));
    let metrics = metrics();
    let provider = WithMetrics::new(WithFaults::new(MemoryIngress::new(), plan), metrics.clone());
    assert_eq!(provider.apply(&RouteSet::default()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let call = Call { interface: "ingress", adapter: "memory", operation: "apply" };
    assert_eq!(metrics.count(&call, "unavailable"), 1);
}
