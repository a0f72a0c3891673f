//! Alerts: rules over samples, decided by pure functions.
//!
//! ```text
//!   Quiet ── condition holds ──> Pending ── held for `hold` ──> Firing ── gone for `keep_firing` ──> Resolved
//!     ^                             │                                                                   │
//!     └──────── condition gone ─────┘                 Resolved counts as Quiet, and is shown for an hour
//! ```
//!
//! `keep_firing` is the hysteresis: a value that dances around its threshold makes one alert, not many. It means the
//! same as `keep_firing_for` of Prometheus, so that both say the same of the same rule.

mod board;
mod measure;
mod phase;
mod prometheus;
mod rule;

pub use board::{Alert, AlertState, Board, Turn};
pub use measure::{Reading, measure};
pub use phase::{Phase, Timing, step};
pub use prometheus::rule_file;
pub use rule::{Bound, Rule, Severity, Signal, defaults};

/// How often rules are evaluated unless the configuration says otherwise.
pub const EVERY: std::time::Duration = std::time::Duration::from_secs(15);
