//! One file per kind of resource.

pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod monitor;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod pools;
pub(crate) mod ports;
pub(crate) mod processes;
pub(crate) mod sandboxes;
pub(crate) mod snapshots;
pub(crate) mod templates;
