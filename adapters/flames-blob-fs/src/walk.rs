//! Lists: the tree of folders in the order of the keys' bytes, without reading more folders than a page needs.

use crate::layout::segment_of;
use crate::trailer::TRAILER_BYTES;
use flames_blob::{BlobEntry, BlobKey, Page};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

/// A place in the list to go on from, and how far.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    pub(crate) after: Option<&'a BlobKey>,
    pub(crate) limit: usize,
}

/// `text` is a key, or a folder's keys' common start with its slash: comparing these texts puts blobs and
/// folders into the order of the keys.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    text: String,
    path: PathBuf,
    is_folder: bool,
}

impl Walk<'_> {
    /// The page of the blobs in `folder`, whose keys start with `prefix` (empty, or ending in a slash).
    pub(crate) fn page(&self, folder: &Path, prefix: &str) -> io::Result<Page> {
        let mut stack = self.children(folder, prefix)?;
        let mut page = Page::default();
        while let Some(node) = stack.pop() {
            if node.is_folder {
                stack.extend(self.children(&node.path, &node.text)?);
            } else if page.entries.len() == self.limit {
                page.next = page.entries.last().map(|last| last.key.clone());
                return Ok(page);
            } else {
                page.entries.extend(entry(&node)?);
            }
        }
        Ok(page)
    }

    /// What may hold keys behind `after`, last first. A folder that is gone has none.
    fn children(&self, folder: &Path, prefix: &str) -> io::Result<Vec<Node>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if is_gone(&error) => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut nodes = Vec::new();
        for entry in entries {
            nodes.extend(node(&entry?, prefix)?.filter(|node| self.wants(node)));
        }
        nodes.sort_by(|a, b| b.cmp(a));
        Ok(nodes)
    }

    fn wants(&self, node: &Node) -> bool {
        let Some(after) = self.after.map(BlobKey::as_str) else { return true };
        node.text.as_str() > after || (node.is_folder && after.starts_with(&node.text))
    }
}

/// `None` for what is no blob and no folder of ours.
fn node(entry: &DirEntry, prefix: &str) -> io::Result<Option<Node>> {
    let name = entry.file_name();
    let Some(name) = name.to_str() else { return Ok(None) };
    let is_folder = entry.file_type()?.is_dir();
    let text = match (is_folder, segment_of(name)) {
        (true, _) => format!("{prefix}{name}/"),
        (false, Some(segment)) => format!("{prefix}{segment}"),
        (false, None) => return Ok(None),
    };
    Ok(Some(Node { text, path: entry.path(), is_folder }))
}

/// `None` when the blob was deleted meanwhile, or is a stranger's file.
fn entry(node: &Node) -> io::Result<Option<BlobEntry>> {
    let metadata = match fs::metadata(&node.path) {
        Err(error) if is_gone(&error) => return Ok(None),
        metadata => metadata?,
    };
    let Ok(key) = BlobKey::parse(node.text.as_str()) else { return Ok(None) };
    let size = metadata.len().saturating_sub(TRAILER_BYTES);
    Ok(Some(BlobEntry { key, size, modified: metadata.modified()? }))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
