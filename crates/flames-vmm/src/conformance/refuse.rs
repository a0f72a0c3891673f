//! What never runs, and why.

use super::{
    Factory, Guest,
    support::{fail_to_boot, nothing_lives_in, refusal},
};
use crate::{Disk, DiskAccess, ErrorKind, MiB, PrepareFor, VmSpec};

/// The error names the file.
pub async fn a_missing_kernel_is_refused_by_name(factory: &dyn Factory) {
    let mut spec = factory.spec(Guest::Ready).await;
    spec.kernel = spec.run_dir.join("no-such-kernel");
    let error = refusal(factory, spec).await;
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("no-such-kernel"), "{error}");
}

/// The error names the file.
pub async fn a_missing_disk_is_refused_by_name(factory: &dyn Factory) {
    let mut spec = factory.spec(Guest::Ready).await;
    let path = spec.run_dir.join("no-such-disk");
    spec.disks.push(Disk { path, access: DiskAccess::ReadWrite });
    let error = refusal(factory, spec).await;
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("no-such-disk"), "{error}");
}

/// No memory, too much memory, no CPU, too many CPUs.
pub async fn absurd_sizes_are_refused(factory: &dyn Factory) {
    let most = factory.driver().capabilities();
    let too_much = MiB(most.max_memory.0.saturating_add(1));
    for (memory, vcpus) in [(MiB(0), 1), (too_much, 1), (MiB(128), 0), (MiB(128), most.max_vcpus + 1)] {
        let spec = VmSpec { memory, vcpus, ..factory.spec(Guest::Ready).await };
        let error = refusal(factory, spec).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{memory} and {vcpus} CPUs: {error}");
    }
}

/// A kernel that is none: the VMM's own words are in the error, and its process is gone.
pub async fn a_vmm_that_cannot_start_says_why_and_leaves_nothing(factory: &dyn Factory) {
    let mut spec = factory.spec(Guest::Ready).await;
    spec.kernel = spec.run_dir.join("garbage");
    tokio::fs::write(&spec.kernel, kernel_in_name_only()).await.unwrap();
    let error = match factory.driver().prepare(spec.clone(), PrepareFor::Boot).await {
        Err(error) => error,
        Ok(prepared) => prepared.boot().await.expect_err("it boots what is no kernel"),
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.detail_text().is_some_and(|detail| detail.contains("kernel")), "{error}");
    nothing_lives_in(&spec.run_dir).await;
}

/// The header of a program of this host's, and nothing behind it.
fn kernel_in_name_only() -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    (header[16], header[18]) = (2, if cfg!(target_arch = "aarch64") { 183 } else { 62 });
    [header, b"not a kernel".to_vec()].concat()
}

/// The agent's reason reaches the caller.
pub async fn an_agent_that_refuses_is_quoted_and_its_vm_ends(factory: &dyn Factory) {
    let (spec, error) = fail_to_boot(factory, Guest::Refuses).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the test guest refuses"), "{error}");
    nothing_lives_in(&spec.run_dir).await;
}

/// `ready` does not wait for ever on a VMM that has gone.
pub async fn a_guest_that_dies_before_its_agent_reports_is_an_error(factory: &dyn Factory) {
    let (spec, error) = fail_to_boot(factory, Guest::Dies).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    nothing_lives_in(&spec.run_dir).await;
}
