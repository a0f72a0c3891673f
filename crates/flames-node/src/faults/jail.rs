//! What a handler gives up: its root directory, its user, its capabilities, the right to open anything, and all system
//! calls but those that serving faults takes.

use super::uffd::REQUESTS;
use flames_vmm::faults::HandlerJail;
use flames_vmm::jail::{Openable, give_up_rights, leave_the_host, restrict};
use nix::libc;
use rustix::fs::{Gid, Uid};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::collections::BTreeMap;
use std::io;

pub(super) fn confine(jail: Option<&HandlerJail>) -> io::Result<()> {
    if let Some(jail) = jail {
        leave_the_host(&jail.over)?;
    }
    give_up_rights()?;
    if let Some(jail) = jail {
        become_nobody(jail.uid)?;
    }
    // Where the kernel lacks it, the empty root directory and the filter remain.
    let _enforced_or_lacking = restrict(&Openable::default())?;
    let program: BpfProgram = filter().and_then(TryInto::try_into).map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

/// Capabilities go with the user.
fn become_nobody(id: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    Ok(())
}

/// What a handler does after it is confined, and what the standard library does for it: memory, an orderly end, a panic's
/// last words. Nothing in it opens or makes anything, but for `accept4`, of the one socket that is there.
const ALLOWED: [i64; 28] = [
    libc::SYS_accept4,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_recvmsg,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_write,
];

fn filter() -> Result<SeccompFilter, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.into_iter().map(|call| (call, Vec::new())).collect();
    // An older call of the same meaning, which this processor has and others have not.
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_poll, Vec::new());
    let only = |request: u64| {
        let same = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?;
        SeccompRule::new(vec![same])
    };
    let requests = REQUESTS.into_iter().map(only).collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_ioctl, requests);
    let here = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, here)
}
