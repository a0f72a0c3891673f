//! The promises of the warm pool's decisions.

#![allow(clippy::unwrap_used, missing_docs)]

mod choose;
mod config;
mod driven;
mod level;
mod plan;
mod scale;
mod sim;
mod support;
mod tally;
