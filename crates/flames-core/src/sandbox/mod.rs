//! Sandboxes: their states, their records, and what can be done with them.

pub mod admit;
mod create;
mod destroy;
pub mod error;
mod logs;
pub mod query;
pub mod record;
pub(crate) mod run;
pub mod state;
