//! The Firecracker driver keeps the promises of a driver, with real guests in jails, wherever their memory comes from.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

mod memory_from_a_file {
    use crate::support::FirecrackerFactory;
    flames_vmm::vmm_conformance!(FirecrackerFactory::jailed().await);
}

mod snapshots_of_differences {
    use crate::support::FirecrackerFactory;
    flames_vmm::vmm_conformance!(FirecrackerFactory::with_tracked_pages().await);
}

mod memory_from_a_page_fault_handler {
    use crate::support::FirecrackerFactory;
    flames_vmm::vmm_conformance!(FirecrackerFactory::with_page_faults().await);
}
