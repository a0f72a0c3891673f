//! Promises of the rules, one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod decide;
mod policy;
mod ruleset;
mod some;
