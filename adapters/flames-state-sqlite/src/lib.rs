//! State in one SQLite file: durable when acknowledged, for one process at a time.
//!
//! ```text
//! callers ── Job ──> writer: BEGIN, every job that waits, COMMIT (one fsync), then all replies
//!                       └── wakes watches
//! callers ── reads ──> read-only connections, each statement on its own snapshot (WAL)
//! ```
//!
//! One writer thread gathers what waits into one transaction (group commit), so that many callers share the
//! cost of one fsync. Preconditions are checked before a job writes, so a refused job leaves nothing to undo.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod checkpoint;
mod config;
mod error;
mod lock;
mod open;
mod read;
mod sql;
mod store;
mod writer;

pub use config::SqliteConfig;
pub use store::SqliteStateStore;
