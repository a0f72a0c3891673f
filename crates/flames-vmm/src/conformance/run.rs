//! Guests that run and pause.

use super::{
    CONSOLE_LIMIT, Factory, Guest,
    support::{
        A_WHILE, boot, console_says_its_last_line_within_the_limit, kill, settled_ticks, ticks, ticks_after,
        within_patience,
    },
};
use crate::{CONSOLE_FILE, ErrorKind, StopDeadlines, VmState};

/// A VM boots, its agent reports, and it says of itself that it runs.
pub async fn boot_reaches_ready_and_the_vm_describes_itself_as_running(factory: &dyn Factory) {
    let (_, vm) = boot(factory, Guest::Ready).await;
    let description = vm.describe().await.unwrap();
    assert_eq!(description.state, VmState::Running);
    assert_eq!(description.pid, vm.handle().pid);
    assert_eq!(description.vmm_version, factory.driver().version().await.unwrap());
    kill(vm).await;
}

/// A paused guest does nothing; a resumed one goes on from there.
pub async fn pause_stops_the_guest_and_resume_lets_it_go_on(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Ready).await;
    let before = ticks_after(&spec, 0).await;
    vm.pause().await.unwrap();
    assert_eq!(vm.describe().await.unwrap().state, VmState::Paused);
    let paused_at = settled_ticks(&spec).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(paused_at >= before);
    assert_eq!(ticks(&spec).await, paused_at, "the guest ran while it was paused");
    vm.resume().await.unwrap();
    assert_eq!(vm.describe().await.unwrap().state, VmState::Running);
    ticks_after(&spec, paused_at).await;
    kill(vm).await;
}

/// The second call finds what the first one left.
pub async fn pausing_or_resuming_twice_changes_nothing(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Ready).await;
    vm.resume().await.unwrap();
    vm.pause().await.unwrap();
    vm.pause().await.unwrap();
    assert_eq!(vm.describe().await.unwrap().state, VmState::Paused);
    vm.resume().await.unwrap();
    vm.resume().await.unwrap();
    assert_eq!(vm.describe().await.unwrap().state, VmState::Running);
    ticks_after(&spec, ticks(&spec).await).await;
    kill(vm).await;
}

/// However much a guest prints, the file stays within its limit and holds the end.
pub async fn the_console_keeps_its_newest_bytes_within_the_limit(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Chatty).await;
    console_says_its_last_line_within_the_limit(&spec).await;
    kill(vm).await;
    let kept = tokio::fs::metadata(spec.run_dir.join(CONSOLE_FILE)).await.unwrap().len();
    assert!((CONSOLE_LIMIT / 4..=CONSOLE_LIMIT).contains(&kept), "{kept} bytes are kept");
}

/// Neither VM disturbs another.
pub async fn many_vms_boot_at_once(factory: &dyn Factory) {
    let booted = within_patience(async {
        tokio::join!(
            boot(factory, Guest::Ready),
            boot(factory, Guest::Ready),
            boot(factory, Guest::Ready),
            boot(factory, Guest::Ready),
        )
    })
    .await;
    let vms = [booted.0.1, booted.1.1, booted.2.1, booted.3.1];
    let pids: std::collections::HashSet<u32> = vms.iter().map(|vm| vm.handle().pid).collect();
    assert_eq!(pids.len(), vms.len());
    for vm in vms {
        kill(vm).await;
    }
}

/// What needs the VMM says that it is gone.
pub async fn a_vm_that_is_gone_answers_unavailable(factory: &dyn Factory) {
    let (_, vm) = boot(factory, Guest::Ready).await;
    vm.stop(StopDeadlines::KILL).await.unwrap();
    assert_eq!(vm.pause().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(vm.resume().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(vm.describe().await.unwrap_err().kind(), ErrorKind::Unavailable);
}
