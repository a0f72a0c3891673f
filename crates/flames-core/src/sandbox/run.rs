//! Run ids: the sandbox's id and the number of the life, so that a run names its sandbox without a look-up.

use crate::SandboxId;
use flames_node::VmId;
use flames_provider::Error;

/// The run of a sandbox's first life.
pub(crate) fn first(id: &SandboxId) -> Result<VmId, Error> {
    VmId::parse(format!("{id}-1"))
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
    fn a_run_names_its_sandbox_and_a_foreign_one_names_none() {
        let id = SandboxId::random();
        assert_eq!(sandbox_of(&first(&id).unwrap()), Some(id));
        for foreign in ["run-0a-x", "abc", "fl-"] {
            assert_eq!(sandbox_of(&VmId::parse(foreign).unwrap()), None, "{foreign}");
        }
    }
}
