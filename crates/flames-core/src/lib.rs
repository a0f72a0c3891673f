//! The control plane: what a sandbox is, which states it may go through, and who brings it further.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod clock;
mod ids;
pub mod sandbox;

pub use ids::{InvalidName, SandboxId};
