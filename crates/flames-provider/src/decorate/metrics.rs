//! How often and how long providers are called, in Prometheus' terms.

use crate::Result;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::future::Future;
use std::time::Instant;

/// `flames_provider_calls_total{interface,adapter,operation,outcome}` and
/// `flames_provider_call_seconds{interface,adapter,operation}`. Clones share their numbers: one is made per
/// process and given to every decorator.
#[derive(Clone, Debug)]
pub struct CallMetrics {
    calls: Family<Outcome, Counter>,
    seconds: Family<Call, Histogram, fn() -> Histogram>,
}

/// Which call, as labels: interface (`blob`), adapter (`s3`), operation as the trait names it (`put`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// For example `blob`.
    pub interface: &'static str,
    /// For example `s3`.
    pub adapter: &'static str,
    /// For example `put`.
    pub operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    interface: &'static str,
    adapter: &'static str,
    operation: &'static str,
    /// `ok`, or the error's kind in words.
    outcome: &'static str,
}

impl CallMetrics {
    /// Metrics that `registry` exports.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics =
            Self { calls: Family::default(), seconds: Family::new_with_constructor(call_histogram) };
        registry.register("flames_provider_calls", "Calls to providers by outcome", metrics.calls.clone());
        registry.register(
            "flames_provider_call_seconds",
            "Time of calls to providers",
            metrics.seconds.clone(),
        );
        metrics
    }

    /// Makes the call and records how it went.
    ///
    /// # Errors
    /// The call's.
    pub async fn observe<T>(&self, call: Call, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let started = Instant::now();
        let result = work.await;
        self.seconds.get_or_create(&call).observe(started.elapsed().as_secs_f64());
        let outcome = result.as_ref().map_or_else(|error| error.kind().as_str(), |_| "ok");
        self.calls.get_or_create(&call.with(outcome)).inc();
        result
    }

    /// Calls so far with this outcome: `ok`, or a kind in words.
    pub fn count(&self, call: &Call, outcome: &'static str) -> u64 {
        self.calls.get_or_create(&call.with(outcome)).get()
    }
}

impl Call {
    fn with(&self, outcome: &'static str) -> Outcome {
        Outcome { interface: self.interface, adapter: self.adapter, operation: self.operation, outcome }
    }
}

/// 0.1 ms to about 27 s: from a call in memory to an upload.
fn call_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind};

    #[tokio::test]
    async fn each_call_is_counted_under_its_outcome_and_exported() {
        let mut registry = Registry::default();
        let metrics = CallMetrics::register(&mut registry);
        let call = Call { interface: "blob", adapter: "memory", operation: "put" };
        metrics.observe(call.clone(), async { Ok(()) }).await.unwrap();
        let failed = async { Err::<(), _>(Error::new(ErrorKind::Timeout, "blob", "a")) };
        metrics.observe(call.clone(), failed).await.unwrap_err();
        assert_eq!((metrics.count(&call, "ok"), metrics.count(&call, "timed out")), (1, 1));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("outcome=\"timed out\""), "{text}");
    }
}
