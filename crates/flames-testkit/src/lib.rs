//! Private instances of real servers for tests: PostgreSQL, Redis, NATS with JetStream, Caddy,
//! and an S3 server in process (feature `s3`). And a strict reader of OpenMetrics text ([`Exposition`]), and the kernel
//! for tests of real Firecracker ([`TestKernel`]).
//!
//! ```no_run
//! # async fn test() {
//! use flames_testkit::Postgres;
//! let Some(postgres) = Postgres::start().await else { return }; // not installed: said so, loudly
//! let url = postgres.url();
//! postgres.server().kill9();
//! postgres.server().restart().await; // same port, same data
//! # }
//! ```
//!
//! Each server is a child process on a free loopback port, with its data in a temporary folder. It ends
//! when its value is dropped, and also when the test process is killed: the kernel signals it
//! (`setpriv --pdeathsig`), and a guard process removes the folder. What is written survives
//! [`Server::kill9`], except in Redis, which keeps nothing.
//!
//! A server that is not installed is reported by `flames_provider::conformance::skip`, so `FLAMES_REQUIRE`
//! makes it a failure. One that does not start fails the test with its log.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![allow(clippy::expect_used, reason = "a test fails by panicking, and this crate is for tests alone")]

mod caddy;
mod kernel;
mod nats;
mod openmetrics;
mod port;
mod postgres;
mod probe;
mod redis;
#[cfg(feature = "s3")]
mod s3;
mod scratch;
mod server;
mod spawner;

pub use caddy::Caddy;
pub use kernel::TestKernel;
pub use nats::Nats;
pub use openmetrics::{Exposition, Series};
pub use port::Port;
pub use postgres::{Durability, Postgres};
pub use probe::Probe;
pub use redis::Redis;
#[cfg(feature = "s3")]
pub use s3::S3;
pub use scratch::Scratch;
pub use server::{Server, ServerSpec, StopSignal};
