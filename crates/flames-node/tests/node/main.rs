//! The local node, held to its promises: with the fake VMM always, with QEMU where assets are built.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod clones;
mod create;
mod disk_only;
mod failure;
mod fake_agent;
mod guest;
mod harness;
mod pools;
mod real;
mod restart;
mod template;
