//! Firecracker's API: typed values, and a client for its unix socket.

mod client;
#[cfg(test)]
mod published;
mod values;

pub(crate) use client::{Api, ApiError};
pub(crate) use values::*;
pub use values::{CacheType, CpuTemplate, HugePages, IoEngine};
