//! Run ids: the sandbox's id and the number of the life, so that a run names its sandbox without a look-up.

use crate::SandboxId;
use flames_node::VmId;
use flames_provider::Error;

/// The run of a sandbox's first life.
pub(crate) fn first(id: &SandboxId) -> Result<VmId, Error> {
    VmId::parse(format!("{id}-1"))
}

/// The run of the life after this one.
pub(crate) fn next(run: &VmId) -> Result<VmId, Error> {
    let (id, life) = run.as_str().rsplit_once('-').unwrap_or((run.as_str(), "0"));
    let life: u32 = life.parse().unwrap_or(0);
    VmId::parse(format!("{id}-{}", life.saturating_add(1)))
}

/// The sandbox that a run belongs to; `None` for a run that the control plane did not name.
pub(crate) fn sandbox_of(run: &VmId) -> Option<SandboxId> {
    let (id, life) = run.as_str().rsplit_once('-')?;
    life.parse::<u32>().ok()?;
    SandboxId::parse(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_life_has_a_run_of_its_own() {
        let id = SandboxId::random();
        let second = next(&first(&id).unwrap()).unwrap();
        assert_eq!(second.as_str(), format!("{id}-2"));
        assert_eq!(sandbox_of(&second), Some(id));
    }

    #[test]
    fn a_run_names_its_sandbox_and_a_foreign_one_names_none() {
        let id = SandboxId::random();
        assert_eq!(sandbox_of(&first(&id).unwrap()), Some(id));
        for foreign in ["run-0a-x", "abc", "fl-"] {
            assert_eq!(sandbox_of(&VmId::parse(foreign).unwrap()), None, "{foreign}");
        }
    }
}
