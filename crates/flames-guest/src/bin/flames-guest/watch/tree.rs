//! One watched directory, with everything below it if asked: from inotify's events to those of the wire.
//!
//! inotify watches single directories. A new one below is watched as soon as its event is read; what was made in
//! it before that is found by reading it, and told as if its events had come. What was found and told in this
//! way may still be reported by inotify: each such `CREATE` is dropped once.

use crate::files::entry;
use crate::users::Names;
use flames_guest::filesystem::{EventType, FilesystemEvent};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A watched directory.
#[derive(Debug)]
pub(super) struct Tree {
    inotify: OwnedFd,
    base: PathBuf,
    depth: Depth,
    /// Directories by inotify's number for them, relative to the base.
    dirs: BTreeMap<i32, PathBuf>,
    /// What was told without an event, and may still have one.
    guessed: HashSet<PathBuf>,
}

/// What of a directory is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// What is directly in it.
    Flat,
    /// Everything below it.
    Recursive,
}

/// Changes that were there to be read.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) events: Vec<FilesystemEvent>,
    /// There may be more at once.
    pub(super) more: bool,
    /// The kernel dropped some: they came faster than they were read.
    pub(super) lost: bool,
}

/// Events that are read before any is worked on. More wait for the next time.
const BATCH: usize = 4096;
/// Bytes of the kernel's events that are read at a time.
const BUFFER: usize = 64 << 10;
/// A moved directory may hold much more than this; what is past it is not told.
const MAX_GUESSES: usize = 20_000;

/// An event as the kernel tells it.
#[derive(Debug)]
struct Raw {
    watch: i32,
    flags: ReadFlags,
    name: Option<PathBuf>,
}

/// How a directory came to be where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// It was there when the watching began.
    Before,
    Made,
    Moved,
}

impl Tree {
    /// Watches from now on.
    ///
    /// # Errors
    /// `StorageFull` when the kernel watches as many directories as it is allowed to.
    pub(super) fn open(base: PathBuf, depth: Depth) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut tree = Self { inotify, base, depth, dirs: BTreeMap::new(), guessed: HashSet::new() };
        tree.begin()?;
        Ok(tree)
    }

    /// Watches everything that is there, whatever was watched before.
    fn begin(&mut self) -> io::Result<()> {
        self.dirs.clear();
        self.watch(Path::new(""))?;
        self.look_into(PathBuf::new(), Origin::Before, &mut |_| {})
    }

    /// Becomes readable when there are changes.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.inotify.try_clone()
    }

    /// Takes what happened. `names` describes entries, if they are asked for.
    ///
    /// # Errors
    /// When a new directory cannot be watched.
    pub(super) fn take(&mut self, names: Option<&Names>) -> io::Result<Changes> {
        let (raw, more) = self.read()?;
        let mut changes = Changes { more, ..Changes::default() };
        // Events of what was guessed before were in the queue by then, so they are in this batch, or in the next.
        let mut guessed = std::mem::take(&mut self.guessed);
        for event in raw {
            if event.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                changes.lost = true;
                self.begin()?;
            } else if event.flags.contains(ReadFlags::IGNORED) {
                self.dirs.remove(&event.watch);
            } else {
                self.work_on(event, &mut guessed, &mut changes.events)?;
            }
        }
        if more {
            self.guessed.extend(guessed);
        }
        if let Some(names) = names {
            changes.events.iter_mut().for_each(|event| self.describe(event, names));
        }
        Ok(changes)
    }

    fn read(&self) -> io::Result<(Vec<Raw>, bool)> {
        let mut raw = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        // A buffer that was read is used up, whatever the batch.
        while raw.len() < BATCH || !reader.is_buffer_empty() {
            match reader.next() {
                Ok(event) => raw.push(Raw {
                    watch: event.wd(),
                    flags: event.events(),
                    name: event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).into()),
                }),
                Err(Errno::AGAIN) => return Ok((raw, false)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((raw, true))
    }

    fn work_on(
        &mut self,
        event: Raw,
        guessed: &mut HashSet<PathBuf>,
        events: &mut Vec<FilesystemEvent>,
    ) -> io::Result<()> {
        let Some(dir) = self.dirs.get(&event.watch) else { return Ok(()) };
        let Some(name) = event.name else {
            // Of a directory below, the one above it tells.
            if dir.as_os_str().is_empty() {
                events.extend(types_of(event.flags).map(|kind| told(Path::new("."), kind)));
            }
            return Ok(());
        };
        let path = dir.join(name);
        let was_told = guessed.remove(&path) && event.flags.contains(ReadFlags::CREATE);
        if !was_told {
            events.extend(types_of(event.flags).map(|kind| told(&path, kind)));
        }
        if self.depth == Depth::Flat || !event.flags.contains(ReadFlags::ISDIR) {
            return Ok(());
        }
        match event.flags {
            flags if flags.contains(ReadFlags::CREATE) => self.add(path, Origin::Made, events),
            flags if flags.contains(ReadFlags::MOVED_TO) => self.add(path, Origin::Moved, events),
            flags if flags.contains(ReadFlags::MOVED_FROM) => {
                self.leave(&path);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Watches a directory that is new here, and tells what is in it already.
    fn add(&mut self, dir: PathBuf, origin: Origin, events: &mut Vec<FilesystemEvent>) -> io::Result<()> {
        if !self.watch(&dir)? {
            return Ok(());
        }
        let mut found = Vec::new();
        self.look_into(dir, origin, &mut |entry| found.push(entry))?;
        for (path, has_content) in found.into_iter().take(MAX_GUESSES) {
            events.push(told(&path, EventType::Create));
            if has_content && origin == Origin::Made {
                events.push(told(&path, EventType::Write));
            }
            self.guessed.insert(path);
        }
        Ok(())
    }

    /// Watches what is below a directory that is watched, and tells of every entry and whether it is a file
    /// with content.
    fn look_into(
        &mut self,
        dir: PathBuf,
        origin: Origin,
        tell: &mut dyn FnMut((PathBuf, bool)),
    ) -> io::Result<()> {
        if self.depth == Depth::Flat {
            return Ok(());
        }
        let mut waiting = vec![dir];
        while let Some(dir) = waiting.pop() {
            let entries = match fs::read_dir(self.base.join(&dir)) {
                Ok(entries) => entries,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            for entry in entries.flatten() {
                let path = dir.join(entry.file_name());
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                // Whether it is new: one that was watched before was told before.
                let is_new = !is_dir || self.watch(&path)?;
                if is_new && origin != Origin::Before {
                    tell((path.clone(), has_content(&entry)));
                }
                if is_dir && is_new {
                    waiting.push(path);
                }
            }
        }
        Ok(())
    }

    /// Watches one directory; false if it is watched already or gone.
    fn watch(&mut self, dir: &Path) -> io::Result<bool> {
        let mut flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        if !dir.as_os_str().is_empty() {
            flags |= WatchFlags::DONT_FOLLOW;
        }
        match inotify::add_watch(&self.inotify, self.base.join(dir), flags) {
            Ok(number) => Ok(self.dirs.insert(number, dir.to_owned()).as_deref() != Some(dir)),
            Err(error) => match io::Error::from(error) {
                error if is_gone(&error) && !dir.as_os_str().is_empty() => Ok(false),
                error => Err(error),
            },
        }
    }

    /// A directory was moved away: what is below it is no longer ours, or comes back under another name.
    fn leave(&mut self, dir: &Path) {
        let inotify = &self.inotify;
        self.dirs.retain(|number, path| {
            let stays = !path.starts_with(dir);
            if !stays {
                // It may be gone by now.
                let _gone = inotify::remove_watch(inotify, *number);
            }
            stays
        });
    }

    fn describe(&self, event: &mut FilesystemEvent, names: &Names) {
        let is_there = matches!(event.event_type, EventType::Create | EventType::Write | EventType::Chmod);
        event.entry = is_there.then(|| entry(&self.base.join(&event.name), names).ok()).flatten();
    }
}

fn told(path: &Path, kind: EventType) -> FilesystemEvent {
    FilesystemEvent { name: path.to_string_lossy().into_owned(), event_type: kind, entry: None }
}

/// What the kernel's flags are on the wire.
fn types_of(flags: ReadFlags) -> impl Iterator<Item = EventType> {
    [
        (ReadFlags::CREATE | ReadFlags::MOVED_TO, EventType::Create),
        (ReadFlags::MOVED_FROM | ReadFlags::MOVE_SELF, EventType::Rename),
        (ReadFlags::ATTRIB, EventType::Chmod),
        (ReadFlags::MODIFY, EventType::Write),
        (ReadFlags::DELETE | ReadFlags::DELETE_SELF, EventType::Remove),
    ]
    .into_iter()
    .filter(move |(wanted, _)| flags.intersects(*wanted))
    .map(|(_, kind)| kind)
}

fn has_content(entry: &DirEntry) -> bool {
    entry.metadata().is_ok_and(|found| found.is_file() && found.len() > 0)
}

/// Removed, or replaced by something else, since it was seen.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(changes: &Changes, kind: EventType) -> Vec<&str> {
        let mut names: Vec<&str> = changes
            .events
            .iter()
            .filter(|event| event.event_type == kind)
            .map(|event| &*event.name)
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_was_made_in_a_new_directory_before_it_was_watched_is_told_once() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(root.path().into(), Depth::Recursive).unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/b/early"), "x").unwrap();
        let first = tree.take(None).unwrap();
        assert_eq!(names(&first, EventType::Create), ["a", "a/b", "a/b/early"]);
        assert_eq!(names(&first, EventType::Write), ["a/b/early"]);
        fs::write(root.path().join("a/b/late"), "x").unwrap();
        let second = tree.take(None).unwrap();
        assert_eq!(names(&second, EventType::Create), ["a/b/late"]);
    }

    #[test]
    fn a_directory_that_is_moved_away_is_left_and_one_that_comes_is_entered() {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("in"), root.path().join("out"));
        fs::create_dir_all(inside.join("old/deep")).unwrap();
        let mut tree = Tree::open(inside.clone(), Depth::Recursive).unwrap();
        fs::rename(inside.join("old"), &outside).unwrap();
        assert_eq!(names(&tree.take(None).unwrap(), EventType::Rename), ["old"]);
        fs::write(outside.join("deep/unseen"), "x").unwrap();
        assert_eq!(tree.take(None).unwrap().events, []);
        fs::rename(&outside, inside.join("new")).unwrap();
        let back = tree.take(None).unwrap();
        assert_eq!(names(&back, EventType::Create), ["new", "new/deep", "new/deep/unseen"]);
        fs::write(inside.join("new/deep/seen"), "x").unwrap();
        assert_eq!(names(&tree.take(None).unwrap(), EventType::Create), ["new/deep/seen"]);
    }

    #[test]
    fn a_flat_watch_does_not_look_below() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("below")).unwrap();
        let mut tree = Tree::open(root.path().into(), Depth::Flat).unwrap();
        fs::write(root.path().join("below/unseen"), "x").unwrap();
        fs::write(root.path().join("seen"), "x").unwrap();
        assert_eq!(names(&tree.take(None).unwrap(), EventType::Create), ["seen"]);
    }

    #[test]
    fn more_than_a_batch_is_read_in_parts_and_whole() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(root.path().into(), Depth::Recursive).unwrap();
        for number in 0..3000 {
            fs::write(root.path().join(number.to_string()), "x").unwrap();
        }
        let (mut made, mut more) = (0, true);
        while more {
            let changes = tree.take(None).unwrap();
            more = changes.more;
            made += names(&changes, EventType::Create).len();
        }
        assert_eq!(made, 3000);
    }

    #[test]
    fn the_end_of_the_watched_directory_is_told() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join("base");
        fs::create_dir(&base).unwrap();
        let mut tree = Tree::open(base.clone(), Depth::Recursive).unwrap();
        fs::remove_dir(&base).unwrap();
        assert_eq!(names(&tree.take(None).unwrap(), EventType::Remove), ["."]);
    }
}
