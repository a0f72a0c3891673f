//! A user and group id for each VM, from a range that is the VMs' alone.
//!
//! An id in use is a file of its name that says which process uses it. So a restarted daemon and a second one
//! on the same host know it too, and an id whose process is gone is free again, whoever forgot to say so.

use super::config::JailConfig;
use crate::process::start_ticks_of;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// An id that is nobody else's. Given back when dropped, unless a VMM's process has it.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) uid: u32,
    file: PathBuf,
    handed_over: bool,
}

/// Why there is no id.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The range is used up.
    #[error("all {uids} user ids from {first} on are in use; make the range larger")]
    UsedUp {
        /// First of the range.
        first: u32,
        /// How many there are.
        uids: u32,
    },
    /// It cannot be noted.
    #[error("cannot note a user id in {}: {source}", .folder.display())]
    Io {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Claim {
    /// The first id of the range that no living process has.
    pub(crate) fn take(config: &JailConfig) -> Result<Self, ClaimError> {
        let (first, uids) = (config.first_uid, config.uids);
        let broken = |source| ClaimError::Io { folder: config.claims.clone(), source };
        let _lock = lock(&config.claims).map_err(broken)?;
        for uid in first..first.saturating_add(uids) {
            let file = config.claims.join(uid.to_string());
            if is_free(&file) {
                write_owner(&file, std::process::id()).map_err(broken)?;
                return Ok(Self { uid, file, handed_over: false });
            }
        }
        Err(ClaimError::UsedUp { first, uids })
    }

    /// From now on the id is in use for as long as that process lives. It is to be given back after it.
    pub(crate) fn hand_over(&mut self, pid: u32) -> io::Result<Owned> {
        let owner = write_owner(&self.file, pid)?;
        self.handed_over = true;
        Ok(Owned { file: self.file.clone(), owner })
    }
}

/// An id that a process has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    file: PathBuf,
    owner: String,
}

impl Owned {
    /// Makes the id free, after `clear` has removed what belongs to it. Somebody else may have found it free by itself,
    /// because its process is gone: then it is his, and so is what belongs to it.
    pub(super) fn give_back(&self, clear: impl FnOnce()) {
        let _lock = self.file.parent().map(lock);
        if std::fs::read_to_string(&self.file).is_ok_and(|owner| owner == self.owner) {
            clear();
            let _gone_already = std::fs::remove_file(&self.file);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.handed_over {
            let _forgotten = std::fs::remove_file(&self.file); // what stays names this process, and ends with it
        }
    }
}

/// Calls `clear` with each of these ids that nobody has, while nobody can get one.
pub(super) fn for_free_ones(
    config: &JailConfig,
    uids: impl Iterator<Item = u32>,
    clear: impl Fn(u32),
) -> io::Result<()> {
    let _lock = lock(&config.claims)?;
    uids.filter(|uid| is_free(&config.claims.join(uid.to_string()))).for_each(clear);
    Ok(())
}

/// Between looking and writing nobody else may.
fn lock(folder: &Path) -> io::Result<File> {
    std::fs::create_dir_all(folder)?;
    let lock = File::create(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

fn is_free(file: &Path) -> bool {
    let Ok(owner) = std::fs::read_to_string(file) else { return true };
    !lives(&owner)
}

/// `<pid> <start time>` of a process that still is that one.
fn lives(owner: &str) -> bool {
    let mut words = owner.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(started))) = (words.next(), words.next()) else { return false };
    u32::try_from(pid).is_ok_and(|pid| start_ticks_of(pid).is_ok_and(|now| now == started))
}

fn write_owner(file: &Path, pid: u32) -> io::Result<String> {
    let owner = format!("{pid} {}", start_ticks_of(pid)?);
    let unfinished = file.with_extension("new");
    std::fs::write(&unfinished, &owner)?;
    std::fs::rename(unfinished, file)?;
    Ok(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(folder: &Path, uids: u32) -> JailConfig {
        JailConfig { first_uid: 7000, uids, claims: folder.join("uids"), ..JailConfig::default() }
    }

    #[test]
    fn each_gets_another_id_until_the_range_is_used_up_and_a_dropped_one_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let config = range(folder.path(), 2);
        let (first, second) = (Claim::take(&config).unwrap(), Claim::take(&config).unwrap());
        assert_eq!((first.uid, second.uid), (7000, 7001));
        let error = Claim::take(&config).unwrap_err();
        assert!(error.to_string().contains("2 user ids from 7000"), "{error}");
        drop(first);
        assert_eq!(Claim::take(&config).unwrap().uid, 7000);
    }

    #[test]
    fn an_id_belongs_to_its_process_and_to_nobody_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = range(folder.path(), 1);
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let mut claim = Claim::take(&config).unwrap();
        let owned = claim.hand_over(child.id()).unwrap();
        drop(claim);
        assert!(Claim::take(&config).is_err(), "its process lives");
        drop(child.stdin.take());
        child.wait().unwrap();
        let next = Claim::take(&config).unwrap();
        assert_eq!(next.uid, 7000);
        owned.give_back(|| panic!("what belongs to it is the next one's"));
        assert!(Claim::take(&config).is_err(), "and so is the id");
    }
}
