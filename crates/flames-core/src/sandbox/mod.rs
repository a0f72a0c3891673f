//! Sandboxes: their states, their records and what can be done with them.
pub mod state;
