//! What a daemon counts and times, and when that is a reason to wake somebody.
//!
//! A crate of its own because the control plane, the HTTP surface and the binary all write to it, and because its
//! rules are checked without any of them.
//!
//! | module | what |
//! |---|---|
//! | [`Metrics`] | every family, how it is written, the OpenMetrics text |
//! | `labels` | label sets; each label has few values, and none names a sandbox |
//! | `pools` | pools as their status says, at a scrape |
//! | `sample` | the few numbers that alerts look at |
//! | [`alert`] | rules, their evaluation as a pure function, the same rules for Prometheus |
//!
//! No I/O and no clock: durations come in as arguments, text goes out as a string.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod alert;
mod buckets;
mod egress;
mod families;
mod labels;
mod metrics;
mod names;
mod pools;
mod process;
mod sample;

pub use egress::{EgressFigures, Moved};
pub use flames_pool::{BootLevel, BootPath, Execution, PoolStatus};
pub use labels::{Operation, Outcome};
pub use metrics::{Created, Metrics};
pub use pools::TIERS;
pub use process::ProcessFigures;
pub use sample::{Creates, Durations, PoolCounts, Sample};

/// The content type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
