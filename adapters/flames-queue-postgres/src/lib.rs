//! A work queue in PostgreSQL: for fleets that have a database anyway.
//!
//! Consumers take jobs with `FOR UPDATE SKIP LOCKED`, so they never wait for each other; whoever changes a
//! queue notifies the channel `flames_queue`, and one connection per process listens to it and wakes the
//! consumers that wait. All tables are in the schema `flames_queue`.

#![forbid(unsafe_code)]

mod bells;
mod config;
mod error;
mod queue;
mod rows;
mod statements;

pub use config::PostgresQueueConfig;
pub use queue::PostgresQueue;
