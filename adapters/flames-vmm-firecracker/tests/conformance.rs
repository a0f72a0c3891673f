//! The Firecracker driver keeps the promises of a driver, with real guests in jails.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

flames_vmm::vmm_conformance!(support::FirecrackerFactory::jailed().await);
