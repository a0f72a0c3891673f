//! When a guest has come to rest.

use flames_vmm::process::cpu_ticks_of;
use flames_vmm::{Result, RunningVm};
use std::time::Duration;

/// How long a guest is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// It rests if its VMM ran for no more than this many hundredths of a second meanwhile: timers go on.
const REST: u64 = 1;
/// A guest whose image starts services never rests: its snapshot is taken all the same.
const LOOKS: usize = 20;

/// Waits until a guest has done what its last commands left behind: processes that ended are cleaned up,
/// connections closed, timers set, all of it in the background. A snapshot from before that makes each of its
/// clones do it again, ahead of the clone's own first request. No guest says when it is idle, so its VMM is watched.
///
/// # Errors
/// When the VM does not answer for itself.
pub(super) async fn settle(vm: &dyn RunningVm) -> Result<()> {
    let pid = vm.describe().await?.pid;
    for _ in 0..LOOKS {
        // A VMM that is gone, or none at all as the fake has it, does nothing.
        let Ok(before) = cpu_ticks_of(pid) else { return Ok(()) };
        tokio::time::sleep(LOOK).await;
        let Ok(after) = cpu_ticks_of(pid) else { return Ok(()) };
        if after.saturating_sub(before) <= REST {
            return Ok(());
        }
    }
    tracing::debug!(pid, "a guest does not come to rest");
    Ok(())
}
