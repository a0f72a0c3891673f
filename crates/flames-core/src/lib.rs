//! The control plane: what a sandbox is, which states it may go through, and who brings it further.
//!
//! [`ControlPlane`] is the one thing that the API calls. It knows interfaces only: a [`flames_node::Node`]
//! that runs microVMs and a [`flames_state::StateStore`] that holds the records.
//!
//! Read in this order: [`sandbox::state`] (which events are legal), `sandbox/create.rs` (the longest
//! story), `sandbox/destroy.rs`, `reconcile.rs` (what happens without being asked).

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod clock;
mod deadlines;
mod ids;
pub mod keys;
mod plane;
mod reconcile;
pub mod sandbox;
mod token;

pub use ids::{InvalidName, SandboxId};
pub use keys::{ApiKey, ApiKeyInfo, ApiKeys};
pub use plane::ControlPlane;
pub use reconcile::SWEEP_EVERY;
pub use token::TokenKey;
