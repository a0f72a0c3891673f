//! Blobs in S3 and what speaks its protocol.
//!
//! ```text
//! <prefix>/blobs/template/base/rootfs.erofs   the body alone; its SHA-256 is user metadata of the object
//! <prefix>/uploads/<random>                   a multipart upload that runs or died: what to abort
//! ```
//!
//! S3 takes metadata when an upload begins, and the hash of a stream is known when it ends. So a body that
//! fits one part is sent in one request; a larger one whose hash the caller knows goes straight into a
//! multipart upload, which is completed only if the hash was right; any other is first written to an unnamed
//! file in the spool folder. Memory stays the same in all three.
//!
//! `If-None-Match` on the put or on the completion makes create-only puts race safely.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod error;
mod store;
mod upload;

pub use config::{Credentials, S3Config};
pub use store::S3BlobStore;
