//! What a VMM may open, whoever it is: the kernel's landlock, which needs no right to use.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope,
};
use std::io;
use std::path::PathBuf;

/// What may be opened; everything else may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openable {
    /// Files and folders to read and to run.
    pub read: Vec<PathBuf>,
    /// Files and devices to read and to write.
    pub write: Vec<PathBuf>,
    /// TCP port to listen on.
    pub listen: Option<u16>,
}

/// What the kernel makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// Only what was allowed can be opened. An older kernel may not know every kind of access.
    Enforced,
    /// This kernel has no landlock, or it is not switched on (`lsm=` on its command line).
    Lacking,
}

/// What is asked for; older kernels enforce what they know of it.
const NEWEST: ABI = ABI::V6;

/// Restricts this thread and what it starts. Paths that do not exist are passed over.
///
/// # Errors
/// When the kernel refuses.
pub fn restrict(openable: &Openable) -> io::Result<Enforcement> {
    let status: RestrictionStatus = try_restrict(openable).map_err(io::Error::other)?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => Enforcement::Lacking,
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Enforcement::Enforced,
    })
}

/// Tries it out, on a thread that ends with the trial. Blocks.
pub fn landlock_works() -> bool {
    let trial = std::thread::spawn(|| {
        rustix::thread::set_no_new_privs(true)?;
        restrict(&Openable::default())
    });
    matches!(trial.join(), Ok(Ok(Enforcement::Enforced)))
}

fn try_restrict(openable: &Openable) -> Result<RestrictionStatus, RulesetError> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let rules = allow(rules, &openable.read, AccessFs::from_read(NEWEST))?;
    let write = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let rules = allow(rules, &openable.write, write)?;
    let ports = openable.listen.map(|port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::BindTcp)));
    rules.add_rules(ports)?.restrict_self()
}

fn allow(
    rules: RulesetCreated,
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let opened = paths.iter().filter_map(|path| Some((path, PathFd::new(path).ok()?)));
    rules.add_rules(opened.map(|(path, file)| {
        // What is about folders means nothing for a file, and is refused there.
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
        Ok::<_, RulesetError>(PathBeneath::new(file, access))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    /// On a thread of its own, as there is no way back.
    fn restricted<T: Send + 'static>(
        openable: Openable,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let thread = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            (restrict(&openable).unwrap() == Enforcement::Enforced).then(look)
        });
        thread.join().unwrap()
    }

    #[test]
    fn only_what_is_allowed_can_be_opened_and_only_as_it_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let [read, write, neither] = ["read", "write", "neither"].map(|name| folder.path().join(name));
        for file in [&read, &write, &neither] {
            std::fs::write(file, "x").unwrap();
        }
        let openable = Openable { read: vec![read.clone()], write: vec![write.clone()], listen: None };
        let denied = |opened: io::Result<File>| {
            opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        let seen = restricted(openable, move || {
            let for_writing = |file: &PathBuf| File::options().write(true).open(file);
            let connected = std::net::TcpListener::bind("127.0.0.1:0");
            assert!(File::open(&read).is_ok() && for_writing(&write).is_ok());
            [denied(for_writing(&read)), denied(File::open(&neither)), connected.is_err()]
        });
        // None: this kernel has no landlock.
        assert!(seen.is_none_or(|denied| denied == [true, true, true]));
    }
}
