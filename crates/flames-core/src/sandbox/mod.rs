//! Sandboxes: their states, their records, and what can be done with them.

pub mod admit;
mod create;
mod destroy;
pub mod error;
pub mod fork;
pub mod guest;
pub mod identity;
mod logs;
pub mod network;
pub mod pause;
pub mod query;
mod ready;
pub mod record;
pub mod resume;
pub mod room;
pub(crate) mod run;
pub(crate) mod settle;
pub mod state;
