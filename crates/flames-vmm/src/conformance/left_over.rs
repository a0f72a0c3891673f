//! What a test that failed leaves.

use crate::jail::Held;
use crate::process::Identity;
use crate::{HANDLE_FILE, VmHandle};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::Deserialize;
use std::path::Path;

/// As much as drivers have in common of what they leave beside the handle.
#[derive(Deserialize)]
struct Left {
    #[serde(flatten)]
    handle: VmHandle,
    #[serde(default)]
    held: Held,
}

/// Ends the VMs whose run directories are in `folder`: they outlive their daemon, as they should.
pub fn end_vms_below(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(stored) = std::fs::read(entry.path().join(HANDLE_FILE)) else { continue };
        let Ok(Left { handle, held }) = serde_json::from_slice(&stored) else { continue };
        let still_that_one = Identity::read(handle.pid)
            .is_ok_and(|now| (now.start_ticks, now.executable) == (handle.start_ticks, handle.executable));
        let Some(pid) = i32::try_from(handle.pid).ok().and_then(Pid::from_raw) else { continue };
        if still_that_one {
            let _gone = kill_process(pid, Signal::KILL);
            let _not_a_child = waitpid(Some(pid), WaitOptions::empty());
        }
        held.give_back();
    }
}
