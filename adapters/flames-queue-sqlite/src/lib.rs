//! A work queue in a SQLite file: the queue of one machine.
//!
//! One thread owns the one connection (`writer.rs`) and commits the requests that came in meanwhile together, so
//! that sixteen callers wait for one write to the disk, not for sixteen. A call returns after that write.
//!
//! Waiting consumers are woken inside the process; give a file to one process at a time.

#![forbid(unsafe_code)]

mod config;
mod error;
mod queue;
mod statements;
mod writer;

pub use config::SqliteQueueConfig;
pub use queue::SqliteQueue;
