//! State in PostgreSQL (15 or newer), shared by many nodes.
//!
//! ```text
//! commit:  BEGIN; UPDATE meta SET revision = revision + 1   <- the row's lock orders all commits
//!          check every precondition; write records and events; NOTIFY; COMMIT
//! watch:   wait for a NOTIFY (or a while); read events after the last revision seen
//! ```
//!
//! A notification only wakes: what a watch gives comes from the events table, so a lost notification costs
//! time and never an event. Tables live in the schema `flames_state`, beside whatever else the database holds.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod bell;
mod commit;
mod config;
mod connect;
mod error;
mod lease;
mod read;
mod row;
mod store;

pub use config::PostgresConfig;
pub use store::PostgresStateStore;
