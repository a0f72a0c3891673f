//! Which snapshots somebody in this process is at work with: taking, creating from, removing.
//!
//! What is in use is not removed, and what is being removed is not used.

use flames_node::SnapshotId;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The snapshots in use. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct InUse {
    users: Arc<Mutex<HashMap<SnapshotId, Users>>>,
}

#[derive(Debug)]
enum Users {
    /// This many that may not be disturbed.
    Shared(usize),
    /// One that removes it.
    Removing,
}

/// The right to use a snapshot, until it is dropped.
#[derive(Debug)]
pub(crate) struct Use {
    all: InUse,
    id: SnapshotId,
}

impl InUse {
    /// `None` while it is being removed.
    pub(crate) fn take(&self, id: &SnapshotId) -> Option<Use> {
        match self.users().entry(id.clone()).or_insert(Users::Shared(0)) {
            Users::Shared(count) => *count += 1,
            Users::Removing => return None,
        }
        Some(Use { all: self.clone(), id: id.clone() })
    }

    /// `None` while anybody uses or removes it.
    pub(crate) fn take_alone(&self, id: &SnapshotId) -> Option<Use> {
        let mut users = self.users();
        if users.contains_key(id) {
            return None;
        }
        users.insert(id.clone(), Users::Removing);
        Some(Use { all: self.clone(), id: id.clone() })
    }

    /// Those in use at this moment.
    pub(crate) fn ids(&self) -> HashSet<SnapshotId> {
        self.users().keys().cloned().collect()
    }

    fn users(&self) -> MutexGuard<'_, HashMap<SnapshotId, Users>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut users = self.all.users();
        match users.get_mut(&self.id) {
            Some(Users::Shared(count)) if *count > 1 => *count -= 1,
            _ => drop(users.remove(&self.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_not_removed_and_what_is_removed_is_not_used() {
        let (all, id) = (InUse::default(), SnapshotId::parse("s1").unwrap());
        let (one, two) = (all.take(&id), all.take(&id));
        assert!(all.take_alone(&id).is_none());
        drop(one);
        assert!(all.take_alone(&id).is_none());
        drop(two);
        let alone = all.take_alone(&id);
        assert!(alone.is_some() && all.take(&id).is_none() && all.take_alone(&id).is_none());
        drop(alone);
        assert!(all.take(&id).is_some() && all.ids().is_empty());
    }
}
