//! Blobs as files of a directory, for one machine.
//!
//! ```text
//! <root>/blobs/template/base/rootfs.erofs+blob    body, then 48 bytes: magic, size, SHA-256
//! <root>/incoming/<random>                        a put that runs (locked) or died (not locked)
//! ```
//!
//! A put writes to `incoming`, syncs, renames into place and syncs the folder: what is visible is whole and
//! survives a power cut. The hash travels as a trailer of the same file, because one rename then publishes
//! both: a sidecar file can be seen without its blob, an extended attribute is lost by `cp`, `tar` and some
//! file systems, and a header is not known yet when the first byte is written. The suffix `+blob`, which no
//! key can hold, lets a blob `a` lie beside a folder `a`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod error;
mod incoming;
mod layout;
mod store;
mod trailer;
mod walk;

pub use config::FsConfig;
pub use store::FsBlobStore;
