//! The agent as its clients see it: the real binary in plain mode, over HTTP.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, missing_debug_implementations)]

mod access;
mod bounds;
mod downloads;
mod files;
mod filesystem;
mod process;
mod pty;
mod support;
mod watch;
