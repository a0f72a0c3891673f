//! The cache on Redis 7.
//!
//! One connection carries all calls; it is made anew when it breaks. A call that finds no server, or one that
//! does not answer, fails within a bounded time, and the next one tries again. Several daemons may share a
//! server: every key gets the prefix of the configuration.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod error;
mod store;

pub use config::RedisConfig;
pub use store::RedisCacheStore;
