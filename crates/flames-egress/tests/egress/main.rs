//! Promises of the rules, one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod decide;
mod dns;
mod policy;
mod ruleset;
mod server_name;
mod some;
