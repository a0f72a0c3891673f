//! What the daemon itself uses, under the names that every Prometheus client uses for it.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// Memory that is resident, in bytes.
    pub resident_bytes: u64,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// Processor time in user and kernel mode.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Threads.
    pub threads: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Process(Mutex<Option<ProcessFigures>>);

impl Process {
    pub(crate) fn set(&self, figures: ProcessFigures) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(figures);
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(figures) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        let mut one = |name: &str, help: &str, unit: Option<&Unit>, metric: &dyn Encode| {
            metric.encode(&mut encoder, name, help, unit)
        };
        let (bytes, seconds) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
        let gauge = |value: u64| ConstGauge::new(value);
        one("process_resident_memory", "Resident memory", bytes, &gauge(figures.resident_bytes))?;
        one("process_virtual_memory", "Address space", bytes, &gauge(figures.virtual_bytes))?;
        one("process_cpu", "Processor time", seconds, &ConstCounter::new(figures.cpu_seconds))?;
        one("process_open_fds", "Open file descriptors", None, &gauge(figures.open_fds))?;
        one("process_threads", "Threads", None, &gauge(figures.threads))
    }
}

/// A metric without labels that writes itself under a name.
trait Encode {
    fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
    ) -> fmt::Result;
}

impl<M: EncodeMetric> Encode for M {
    fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
    ) -> fmt::Result {
        let metric = encoder.encode_descriptor(name, help, unit, self.metric_type())?;
        EncodeMetric::encode(self, metric)
    }
}
