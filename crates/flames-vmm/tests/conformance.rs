//! The fake keeps the promises of a driver.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

flames_vmm::vmm_conformance!(Some(support::FakeFactory::new()));
