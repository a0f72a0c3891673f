//! What a VMM must not have of the daemon's rights, and what the daemon needs for a jail.

use rustix::thread::CapabilitySet;
use std::io;

/// What making a jail takes: namespaces and mounts, the root directory, device nodes, files and ids of another
/// user, and a process of another user's to limit and to end.
const NEEDED: [(CapabilitySet, &str); 7] = [
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
    (CapabilitySet::MKNOD, "CAP_MKNOD"),
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::KILL, "CAP_KILL"),
];

/// Why this process cannot make jails, with the mend.
pub fn impediment() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("the daemon is not root; run it as root".to_owned());
    }
    let Ok(sets) = rustix::thread::capabilities(None) else {
        return Some("its capabilities cannot be read".to_owned());
    };
    let lacking = NEEDED.iter().filter(|(capability, _)| !sets.effective.contains(*capability));
    let lacking: Vec<&str> = lacking.map(|(_, name)| *name).collect();
    (!lacking.is_empty()).then(|| format!("the daemon lacks {}; give it these", lacking.join(", ")))
}

/// Gives up, for this thread and what it starts, what root could do, and every way to get it back.
///
/// # Errors
/// When the kernel refuses.
pub fn give_up_rights() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    if rustix::process::geteuid().is_root() {
        // Where this daemon is root without the right to do so (a container), there is nothing to give up.
        for capability in CapabilitySet::all() {
            let _ = rustix::thread::remove_capability_from_bounding_set(capability);
        }
    }
    Ok(())
}
