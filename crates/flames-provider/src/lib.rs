//! What every provider interface shares: one error type, and the helpers of the conformance suites.
//!
//! A provider is an interface to infrastructure (state, blobs, cache, queue, ingress, VMM). Callers branch
//! on [`ErrorKind`] and never on message text; adapters say what went wrong with [`Error`].

#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod decorate;
mod error;

pub use error::{Error, ErrorKind, Retry};

/// The result of every provider call.
pub type Result<T, E = Error> = std::result::Result<T, E>;
