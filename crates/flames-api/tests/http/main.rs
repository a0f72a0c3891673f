//! The HTTP surface, held to its promises over a node in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod agent;
mod auth;
// The same node as the control plane's own tests use; not all of it is needed here.
#[allow(dead_code)]
#[path = "../../../flames-core/tests/lifecycle/fake_node.rs"]
mod fake_node;
mod files;
mod house;
mod idle;
mod lists;
mod monitor;
mod network;
mod openapi;
mod pools;
mod refusals;
mod slow;
mod snapshots;
