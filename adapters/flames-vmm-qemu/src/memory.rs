//! A guest's memory, read from outside while its VMM holds still.
//!
//! QEMU keeps one file open and mapped: the memory. A booted guest's is shared, so the file is the memory. A
//! restored guest's is a private view of its snapshot's file: what the guest wrote since is in pages of the process
//! alone, and `/proc/<pid>/pagemap` tells which. Either way the file and the pages are found through `/proc`, so
//! nothing needs to be remembered over a restart of the daemon, and the file may have lost its name.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where to find the memory of a guest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GuestMemory {
    /// `/proc/<pid>` of the VMM.
    process: PathBuf,
    /// The file, as an open descriptor of the VMM's.
    file: PathBuf,
    /// Private views of it.
    private: Vec<Mapping>,
}

/// Why a memory was not copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("cannot read the memory of the VMM's process: {0}")]
    Read(#[source] io::Error),
    #[error("the VMM's process has no file of memory")]
    NoMemory,
    #[error("{0}")]
    Write(#[source] io::Error),
}

/// A part of a file in a process' address space.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    addresses: Range<u64>,
    offset: u64,
    view: View,
    path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Shared,
    Private,
}

/// Of the only architecture this machine exists for.
const PAGE: u64 = 4096;
/// Pages looked at and copied at once: 1 MiB of memory.
const PAGES_AT_ONCE: u64 = 256;

impl GuestMemory {
    /// Finds the one file that the process has open and mapped for writing.
    pub(crate) fn find(pid: u32) -> Result<Self, CopyError> {
        let process = Path::new("/proc").join(pid.to_string());
        let maps = std::fs::read(process.join("maps")).map_err(CopyError::Read)?;
        let mut mappings = writable_files(&String::from_utf8_lossy(&maps));
        let (file, path) = open_and_mapped(&process, &mappings).map_err(CopyError::Read)?;
        mappings.retain(|mapping| mapping.path == path && mapping.view == View::Private);
        Ok(Self { process, file: file.ok_or(CopyError::NoMemory)?, private: mappings })
    }

    /// Writes the memory into `target`, an empty file, which becomes sparse. Blocks.
    pub(crate) fn copy_to(&self, target: &File) -> Result<(), CopyError> {
        let file = File::open(&self.file).map_err(CopyError::Read)?;
        let length = file.metadata().map_err(CopyError::Read)?.len();
        target.set_len(length).map_err(CopyError::Write)?;
        copy_data(&file, target).map_err(CopyError::Write)?;
        if self.private.is_empty() {
            return Ok(());
        }
        let open = |name: &str| File::open(self.process.join(name)).map_err(CopyError::Read);
        let pages = PrivatePages { pagemap: open("pagemap")?, memory: open("mem")? };
        self.private.iter().try_for_each(|mapping| pages.copy(mapping, target))
    }
}

/// Copies what is no hole, inside the kernel where it can.
fn copy_data(mut source: &File, mut target: &File) -> io::Result<()> {
    let mut at = 0;
    while let Some(start) = seek(source, rustix::fs::SeekFrom::Data(at))? {
        let end = seek(source, rustix::fs::SeekFrom::Hole(start))?.unwrap_or(start);
        source.seek(SeekFrom::Start(start))?;
        target.seek(SeekFrom::Start(start))?;
        let copied = io::copy(&mut io::Read::take(source, end - start), &mut target)?;
        if copied != end - start {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at = end;
    }
    Ok(())
}

/// `None` if there is no data behind that position.
fn seek(file: &File, to: rustix::fs::SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(position) => Ok(Some(position)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a process wrote over its private view of a file.
struct PrivatePages {
    pagemap: File,
    memory: File,
}

impl PrivatePages {
    fn copy(&self, mapping: &Mapping, target: &File) -> Result<(), CopyError> {
        let Range { start, end } = mapping.addresses;
        for address in (start..end).step_by(usize_of(PAGES_AT_ONCE * PAGE)) {
            let until = end.min(address + PAGES_AT_ONCE * PAGE);
            let entries = self.entries(address..until).map_err(CopyError::Read)?;
            for run in private_runs(&entries) {
                let from = address + run.start * PAGE;
                let mut content = vec![0; usize_of((run.end - run.start) * PAGE)];
                self.memory.read_exact_at(&mut content, from).map_err(CopyError::Read)?;
                target.write_all_at(&content, mapping.offset + (from - start)).map_err(CopyError::Write)?;
            }
        }
        Ok(())
    }

    /// One 64-bit entry per page.
    fn entries(&self, addresses: Range<u64>) -> io::Result<Vec<u64>> {
        let mut bytes = vec![0; usize_of((addresses.end - addresses.start) / PAGE * 8)];
        self.pagemap.read_exact_at(&mut bytes, addresses.start / PAGE * 8)?;
        let (entries, _) = bytes.as_chunks::<8>();
        Ok(entries.iter().map(|entry| u64::from_ne_bytes(*entry)).collect())
    }
}

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// The page is the file's, as it was when nobody had written to this view of it.
const OF_FILE: u64 = 1 << 61;

/// Runs of pages that belong to the process alone, as indexes.
fn private_runs(entries: &[u64]) -> Vec<Range<u64>> {
    let is_private = |entry: &u64| entry & (PRESENT | SWAPPED) != 0 && entry & OF_FILE == 0;
    let mut at = 0;
    let runs = entries.chunk_by(|a, b| is_private(a) == is_private(b)).filter_map(|run| {
        let start = at;
        at += run.len() as u64;
        run.first().is_some_and(is_private).then_some(start..at)
    });
    runs.collect()
}

/// The mappings of files that the process may write to.
fn writable_files(maps: &str) -> Vec<Mapping> {
    maps.lines().filter_map(mapping).filter(|mapping| mapping.path.starts_with('/')).collect()
}

/// Reads `7f00-7f10 rw-p 00000000 fd:01 123   /a path`; `None` for what is not written to or has no path.
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let access = fields.next()?;
    let offset = number(fields.next()?)?;
    let path = fields.nth(2)?.trim_start().to_owned();
    let view = if access.ends_with('s') { View::Shared } else { View::Private };
    let addresses = number(start)?..number(end)?;
    access.starts_with("rw").then_some(Mapping { addresses, offset, view, path })
}

fn number(hexadecimal: &str) -> Option<u64> {
    u64::from_str_radix(hexadecimal, 16).ok()
}

/// The first descriptor whose file is mapped, and that file's name.
fn open_and_mapped(process: &Path, mappings: &[Mapping]) -> io::Result<(Option<PathBuf>, String)> {
    for entry in std::fs::read_dir(process.join("fd"))? {
        let descriptor = entry?.path();
        let Ok(target) = std::fs::read_link(&descriptor) else { continue };
        let target = target.to_string_lossy().into_owned();
        if mappings.iter().any(|mapping| mapping.path == target) {
            return Ok((Some(descriptor), target));
        }
    }
    Ok((None, String::new()))
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    #[test]
    fn only_mapped_files_that_can_be_written_to_are_considered() {
        let maps = "7f0000000000-7f0000002000 rw-p 00001000 fd:01 42      /a folder/memory (deleted)\n\
                    7f0000002000-7f0000003000 rw-s 00000000 00:01 43      /memfd:memory-backend-memfd (deleted)\n\
                    7f0000003000-7f0000004000 r--p 00000000 fd:01 44      /usr/lib/libc.so.6\n\
                    7f0000004000-7f0000005000 rw-p 00000000 00:00 0 \n\
                    7f0000005000-7f0000006000 rw-p 00000000 00:00 0       [stack]\n";
        let [private, shared] = writable_files(maps).try_into().unwrap();
        let addresses = 0x7f00_0000_0000..0x7f00_0000_2000;
        let path = "/a folder/memory (deleted)".to_owned();
        assert_eq!(private, Mapping { addresses, offset: 0x1000, view: View::Private, path });
        assert_eq!(shared.view, View::Shared);
    }

    #[test]
    fn a_sparse_file_is_copied_with_its_holes() {
        use std::os::unix::fs::MetadataExt;
        let (mut source, target) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        source.write_all(b"start").unwrap();
        source.write_all_at(b"end", 8 << 20).unwrap();
        target.set_len(source.metadata().unwrap().len()).unwrap();
        copy_data(&source, &target).unwrap();
        let read = |file: &File| {
            let mut content = vec![0; (8 << 20) + 3];
            file.read_exact_at(&mut content, 0).unwrap();
            content
        };
        assert!(read(&source) == read(&target));
        assert!(target.metadata().unwrap().blocks() * 512 < 1 << 20, "it is sparse");
    }

    proptest! {
        #[test]
        fn runs_hold_exactly_the_private_pages(kinds in proptest::collection::vec(0u64..4, 0..40)) {
            let entry = |kind: &u64| [0, PRESENT, SWAPPED, PRESENT | OF_FILE][usize_of(*kind)];
            let entries: Vec<u64> = kinds.iter().map(entry).collect();
            let found: Vec<u64> = private_runs(&entries).into_iter().flatten().collect();
            let expected = (0..).zip(&kinds).filter(|(_, kind)| matches!(kind, 1 | 2)).map(|(at, _)| at);
            prop_assert_eq!(found, expected.collect::<Vec<u64>>());
        }
    }
}
