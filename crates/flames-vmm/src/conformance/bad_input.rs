//! What drivers refuse that know their VMM's files and their host, each with a set-up of its own.

use super::outside::nothing_is_held_after_the_end;
use super::{Factory, Guest};
use crate::{Error, ErrorKind, PrepareFor, VmSpec, VmmDriver};
use std::path::Path;

/// Asserts that a start is refused in these words, and that nothing was begun.
pub async fn is_refused_and_nothing_started(
    driver: &dyn VmmDriver,
    spec: VmSpec,
    kind: ErrorKind,
    words: &[&str],
) -> Error {
    let error = driver.prepare(spec.clone(), PrepareFor::Boot).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    assert_eq!(std::fs::read_dir(&spec.run_dir).unwrap().count(), 0);
    error
}

/// A compressed kernel and a script, each with its own mend. They are written to `folder`.
pub async fn refuses_a_kernel_that_is_no_elf(factory: &dyn Factory, folder: &Path) {
    let mut compressed = vec![0; 4096];
    compressed[0x202..0x206].copy_from_slice(b"HdrS");
    for (content, mend) in [(compressed, "extract-vmlinux"), (b"#!/bin/sh".to_vec(), "vmlinux")] {
        let mut spec = factory.spec(Guest::Ready).await;
        spec.kernel = folder.join("bzImage");
        std::fs::write(&spec.kernel, content).unwrap();
        let driver = factory.driver();
        is_refused_and_nothing_started(driver.as_ref(), spec, ErrorKind::InvalidInput, &["bzImage", mend])
            .await;
    }
}

/// The last of the disks of `spec` disappears between prepare and boot: the VM keeps it, no other VM gets it.
pub async fn keeps_a_disk_that_disappears(factory: &dyn Factory, spec: VmSpec) {
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    std::fs::remove_file(&spec.disks.last().unwrap().path).unwrap();
    let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    nothing_is_held_after_the_end(factory, &spec, vm).await;
    let next = VmSpec { disks: spec.disks, ..factory.spec(Guest::Ready).await };
    let driver = factory.driver();
    is_refused_and_nothing_started(driver.as_ref(), next, ErrorKind::InvalidInput, &["disk"]).await;
}
