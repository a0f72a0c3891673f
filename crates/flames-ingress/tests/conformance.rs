//! The recorder passes the suite.

use flames_ingress::conformance::Fixture;
use flames_ingress::{MemoryIngress, ingress_conformance};
use std::sync::Arc;

async fn memory() -> Option<Fixture> {
    Some(Fixture::without_data_path(Arc::new(MemoryIngress::new())))
}

ingress_conformance!(memory);
