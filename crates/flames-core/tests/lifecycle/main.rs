//! The control plane, held to its promises over a node in memory: what is recorded, what runs, what is left.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod create;
mod destroy;
mod disk_only;
mod exits;
mod expiry;
mod fake_node;
mod fork;
mod idle;
mod network;
mod pause;
mod pause_crash;
mod pools;
mod query;
mod ready;
mod restart;
mod room;
mod snapshots;
mod world;
