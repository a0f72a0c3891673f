//! The QEMU driver keeps the promises of a driver, with real guests.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

flames_vmm::vmm_conformance!(support::QemuFactory::find());
