//! Names of machines: a run directory, a VMM process and its sockets go by one.
//!
//! A machine that was made ahead keeps its name when it becomes somebody's run: paths of a living VMM do not change.

use flames_vmm::{Error, ErrorKind, Result, VmId};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The names in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Machines(Arc<Mutex<HashSet<VmId>>>);

/// A name in use; free again when dropped.
#[derive(Debug)]
pub(super) struct MachineName {
    id: VmId,
    all: Machines,
}

impl Machines {
    /// # Errors
    /// `AlreadyExists`.
    pub(super) fn claim(&self, id: VmId) -> Result<MachineName> {
        if self.names().insert(id.clone()) {
            return Ok(MachineName { id, all: self.clone() });
        }
        Err(Error::new(ErrorKind::AlreadyExists, "machine", id.as_str()))
    }

    pub(super) fn has(&self, id: &VmId) -> bool {
        self.names().contains(id)
    }

    fn names(&self) -> MutexGuard<'_, HashSet<VmId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MachineName {
    pub(super) fn id(&self) -> &VmId {
        &self.id
    }
}

impl Drop for MachineName {
    fn drop(&mut self) {
        self.all.names().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_one_machine_until_it_is_gone() {
        let machines = Machines::default();
        let id = VmId::parse("m1").unwrap();
        let first = machines.claim(id.clone()).unwrap();
        assert_eq!(machines.claim(id.clone()).unwrap_err().kind(), ErrorKind::AlreadyExists);
        drop(first);
        assert!(!machines.has(&id));
        machines.claim(id).unwrap();
    }
}
