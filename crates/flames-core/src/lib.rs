//! The control plane: what a sandbox is, which states it may go through, and who brings it further.
//!
//! [`ControlPlane`] is the one thing that the API calls. It knows interfaces only: a [`flames_node::Node`]
//! that runs microVMs, and the five [`Providers`] of infrastructure.
//!
//! Read in this order: [`sandbox::state`] (which events are legal), `sandbox/create.rs` (the longest
//! story), `sandbox/destroy.rs`, `reconcile.rs` (what happens without being asked).

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod activity;
pub mod clock;
mod deadlines;
pub mod events;
mod idempotency;
mod ids;
mod jobs;
pub mod keys;
mod late;
pub mod monitor;
mod plane;
pub mod pools;
mod ports;
mod providers;
pub mod rate;
mod reconcile;
pub mod sandbox;
pub mod snapshot;
mod template_settings;
mod templates;
mod token;

pub use idempotency::IdempotencyKey;
pub use ids::{InvalidName, SandboxId};
pub use keys::{ApiKey, ApiKeyInfo, ApiKeys};
pub use plane::ControlPlane;
pub use providers::Providers;
pub use reconcile::SWEEP_EVERY;
pub use template_settings::TemplateSettings;
pub use templates::StoredTemplate;
pub use token::TokenKey;
