//! The values a store takes and gives, and the pure rules that every store applies to them.

use crate::Key;
use bytes::Bytes;
use flames_provider::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;

/// Largest value, in bytes (1 MiB).
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Most writes in one commit.
pub const MAX_WRITES: usize = 64;
/// Most records in one page.
pub const MAX_PAGE_RECORDS: usize = 1000;

/// The number of a commit. The store's first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first commit.
    pub const ZERO: Self = Self(0);

    /// The number of the commit after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value with its name and the commit that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub key: Key,
    /// At most [`MAX_VALUE_BYTES`].
    pub value: Bytes,
    /// The commit that wrote this value.
    pub revision: Revision,
}

/// What must be true of a record for the commit to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// The record does not exist.
    Absent,
    /// The record exists and was last written by this commit.
    Revision(Revision),
}

impl Precondition {
    /// The rule every store applies: `current` is the record's revision, if it exists.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` or `Conflict`, each naming `key`.
    pub fn check(self, key: &Key, current: Option<Revision>) -> Result<()> {
        match (self, current) {
            (Self::None, _) | (Self::Absent, None) => Ok(()),
            (Self::Revision(wanted), Some(found)) if wanted == found => Ok(()),
            (Self::Absent, Some(found)) => {
                Err(failed(ErrorKind::AlreadyExists, key, format!("at revision {found}")))
            }
            (Self::Revision(wanted), None) => {
                Err(failed(ErrorKind::NotFound, key, format!("expected revision {wanted}")))
            }
            (Self::Revision(wanted), Some(found)) => {
                Err(failed(ErrorKind::Conflict, key, format!("expected revision {wanted}, found {found}")))
            }
        }
    }
}

fn failed(kind: ErrorKind, key: &Key, detail: String) -> Error {
    Error::new(kind, "record", key.as_str()).operation("commit").detail(detail)
}

/// One part of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces a record.
    Put {
        /// Which record.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// What must be true of it before.
        precondition: Precondition,
    },
    /// Removes a record; removing a missing one changes nothing.
    Delete {
        /// Which record.
        key: Key,
        /// What must be true of it before.
        precondition: Precondition,
    },
    /// Changes nothing, but the commit happens only if this holds.
    Check {
        /// Which record.
        key: Key,
        /// What must be true of it.
        precondition: Precondition,
    },
}

impl Write {
    /// The record it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } | Self::Check { key, .. } => key,
        }
    }

    /// What must be true of the record.
    pub fn precondition(&self) -> Precondition {
        match self {
            Self::Put { precondition, .. }
            | Self::Delete { precondition, .. }
            | Self::Check { precondition, .. } => *precondition,
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::Delete { .. } | Self::Check { .. } => 0,
        }
    }
}

/// What can be said of a commit without looking at the store. Every store calls it first.
///
/// # Errors
/// `InvalidInput`: see [`StateStore::commit`](crate::StateStore::commit).
pub fn validate_commit(writes: &[Write]) -> Result<()> {
    if writes.is_empty() || writes.len() > MAX_WRITES {
        return Err(Error::new(ErrorKind::InvalidInput, "commit", format!("{} writes", writes.len()))
            .operation("commit")
            .detail(format!("a commit has 1 to {MAX_WRITES} writes")));
    }
    let mut seen = HashSet::with_capacity(writes.len());
    for write in writes {
        if write.value_bytes() > MAX_VALUE_BYTES {
            let detail =
                format!("a value has at most {MAX_VALUE_BYTES} bytes, this one has {}", write.value_bytes());
            return Err(failed(ErrorKind::InvalidInput, write.key(), detail));
        }
        if !seen.insert(write.key()) {
            return Err(failed(ErrorKind::InvalidInput, write.key(), "named twice in one commit".to_owned()));
        }
    }
    Ok(())
}

/// Checks the limit of a page. Every store calls it first.
///
/// # Errors
/// `InvalidInput` for 0 or more than [`MAX_PAGE_RECORDS`].
pub fn validate_page_limit(limit: usize) -> Result<()> {
    match limit {
        1..=MAX_PAGE_RECORDS => Ok(()),
        _ => Err(Error::new(ErrorKind::InvalidInput, "page limit", limit.to_string())
            .operation("list")
            .detail(format!("a page has 1 to {MAX_PAGE_RECORDS} records"))),
    }
}

/// Part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Ordered by key.
    pub records: Vec<Record>,
    /// When more records may follow: the key to list behind.
    pub next: Option<Key>,
}

/// What one commit did, as far as a watch's prefix sees it. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The commit. Watch from here to continue after this event.
    pub revision: Revision,
    /// In the order of the commit's writes.
    pub changes: Vec<Change>,
}

/// What happened to one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which record.
    pub key: Key,
    /// What happened.
    pub kind: ChangeKind,
}

/// What happens to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was created or replaced.
    Put(Bytes),
    /// It was removed.
    Delete,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, bytes: usize) -> Write {
        let key = Key::parse(key).unwrap();
        Write::Put { key, value: vec![0; bytes].into(), precondition: Precondition::None }
    }

    #[test]
    fn a_commit_past_a_limit_is_invalid_and_names_the_key() {
        assert!(validate_commit(&[put("a", MAX_VALUE_BYTES), put("b", 0)]).is_ok());
        for (writes, id) in [
            (vec![], "0 writes"),
            (vec![put("a", MAX_VALUE_BYTES + 1)], "a"),
            (vec![put("a", 0), put("b", 0), put("a", 0)], "a"),
            ((0..65).map(|n| put(&n.to_string(), 0)).collect(), "65 writes"),
        ] {
            let error = validate_commit(&writes).unwrap_err();
            assert_eq!((error.kind(), error.id()), (ErrorKind::InvalidInput, id));
        }
    }

    #[test]
    fn a_precondition_holds_only_for_the_state_it_names() {
        let key = Key::parse("k").unwrap();
        let seven = Revision(7);
        let kind =
            |precondition: Precondition, current| precondition.check(&key, current).err().map(|e| e.kind());
        assert_eq!(kind(Precondition::None, Some(seven)), None);
        assert_eq!(kind(Precondition::Absent, None), None);
        assert_eq!(kind(Precondition::Absent, Some(seven)), Some(ErrorKind::AlreadyExists));
        assert_eq!(kind(Precondition::Revision(seven), Some(seven)), None);
        assert_eq!(kind(Precondition::Revision(seven), Some(Revision(8))), Some(ErrorKind::Conflict));
        assert_eq!(kind(Precondition::Revision(seven), None), Some(ErrorKind::NotFound));
    }
}
