//! `process.Process`: starting processes, following them, talking to them.
//!
//! ```text
//! Start ── spawn ──> running ── reaped, pipes closed ──> ended ── 30 s ──> forgotten
//!                       │                                  │
//!            events go to all subscribers;      Connect still gets `start` and `end`
//!            with none, output is dropped
//! ```
//!
//! A client that goes away does not end its process; the deadline of `Start` does. A subscriber that does not
//! read stops the process's output like a full pipe would: nothing is held in memory beyond a few chunks.

mod call;
mod events;
mod spawn;
mod supervise;
mod table;
mod terminal;

pub(crate) use call::call;
pub(crate) use spawn::is_variable;
pub(crate) use supervise::reap;
pub(crate) use table::Table;
