//! From a directory or an archive to an image: unpack, pack, hash.

use crate::disk::blocking;
use crate::paths::{io_error, make_private_dir};
use crate::{BuildProgress, TemplateSource};
use flames_vmm::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc;

/// All images have the same identity: the same tree gives the same bytes.
const IMAGE_UUID: &str = "-U00000000-0000-0000-0000-000000000000";
/// How often a build says how far it is.
const PROGRESS: Duration = Duration::from_millis(250);

/// A finished image that has no name yet.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) size_bytes: u64,
    pub(super) sha256: String,
    pub(super) built_from: String,
    pub(super) temporary: Temporary,
}

/// A path that is removed when this is dropped, so that a build that fails or is cancelled leaves nothing.
#[derive(Debug)]
pub(super) struct Temporary(Option<PathBuf>);

impl Temporary {
    fn below(folder: &Path, kind: &str) -> Result<Self> {
        let random = hex::encode(crate::secret::random_bytes::<8>()?);
        Ok(Self(Some(folder.join(format!(".{kind}-{random}")))))
    }

    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// The path has become something else: nothing is removed.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let Some(path) = self.0.take() else { return };
        // A file, a tree or nothing at all: each is fine, and there is nobody left to tell.
        if std::fs::remove_file(&path).is_err() {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

/// Builds an image in `folder`.
pub(super) async fn image(
    source: &TemplateSource,
    folder: &Path,
    progress: &mpsc::Sender<BuildProgress>,
) -> Result<Image> {
    make_private_dir(folder)?;
    let temporary = Temporary::below(folder, "image")?;
    let path = temporary.path().to_owned();
    match source {
        TemplateSource::Directory(tree) => {
            check(tree, Path::is_dir, "must be an existing directory")?;
            pack(tree, &path, progress).await?;
        }
        TemplateSource::Tar(archive) => {
            check(archive, Path::is_file, "must be an existing tar archive")?;
            let tree = Temporary::below(folder, "tree")?;
            unpack(archive, tree.path(), progress).await?;
            pack(tree.path(), &path, progress).await?;
        }
    }
    tell(progress, BuildProgress::Hashing);
    let hashed = path.clone();
    let (sha256, size_bytes) = blocking("template", move || hash(&hashed)).await?;
    Ok(Image { path, size_bytes, sha256, built_from: describe(source), temporary })
}

fn describe(source: &TemplateSource) -> String {
    match source {
        TemplateSource::Directory(path) => format!("directory {}", path.display()),
        TemplateSource::Tar(path) => format!("archive {}", path.display()),
    }
}

fn check(path: &Path, is_right: impl Fn(&Path) -> bool, must: &'static str) -> Result<()> {
    if is_right(path) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "template source", path.display().to_string()).detail(must))
}

async fn unpack(archive: &Path, tree: &Path, progress: &mpsc::Sender<BuildProgress>) -> Result<()> {
    tell(progress, BuildProgress::Unpacking);
    make_private_dir(tree)?;
    let arguments: [&OsStr; 6] = [
        "--extract".as_ref(),
        "--numeric-owner".as_ref(),
        "--file".as_ref(),
        archive.as_ref(),
        "--directory".as_ref(),
        tree.as_ref(),
    ];
    run("tar", &arguments, ErrorKind::InvalidInput).await?;
    // The root of the guest's file system, not of a secret: its users must be able to enter it.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(tree, mode).map_err(|error| io_error("directory", tree, "set mode", error))
}

async fn pack(tree: &Path, image: &Path, progress: &mpsc::Sender<BuildProgress>) -> Result<()> {
    let mut arguments: Vec<&OsStr> = vec!["--quiet".as_ref(), "-T0".as_ref(), IMAGE_UUID.as_ref()];
    if !rustix::process::geteuid().is_root() {
        // Without root nobody else's file could be made here; the guest expects root's.
        arguments.push("--all-root".as_ref());
    }
    arguments.extend([image.as_os_str(), tree.as_os_str()]);
    let work = run("mkfs.erofs", &arguments, ErrorKind::Unavailable);
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(PROGRESS);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => {
                let written_bytes = std::fs::metadata(image).map(|file| file.len()).unwrap_or_default();
                tell(progress, BuildProgress::Packing { written_bytes });
            }
        }
    }
}

async fn run(program: &'static str, arguments: &[&OsStr], kind: ErrorKind) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| io_error("program", program, "start", error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().take(5).collect::<Vec<_>>();
    let detail = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(Error::new(kind, "template", program).operation("build").detail(detail))
}

fn hash(path: &Path) -> Result<(String, u64)> {
    let failed = |error| io_error("template", path, "read", error);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (mut hasher, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok((hex::encode(hasher.finalize()), size));
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
}

/// A listener that is gone or slow misses a line of progress; the build goes on.
fn tell(progress: &mpsc::Sender<BuildProgress>, news: BuildProgress) {
    let _ = progress.try_send(news);
}
