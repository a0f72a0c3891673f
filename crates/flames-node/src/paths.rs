//! Where things lie: the data directory's layout and the assets' names.
//!
//! ```text
//! <data>/vms/<run id>/        0700   run.json, vm.json, console.log, disk.ext4, sockets
//! <data>/disks/<MiB>.ext4            empty disks to copy from
//! <data>/snapshots/<id>/             memory, device state and disk of a run, with a manifest
//! <data>/template-snapshots/<id>/    the same of a template that was booted for it
//! <data>/templates/                  what was built here: <name>.json and images/<sha256>.erofs
//! <assets>/vmlinux, agent.erofs, images/<name>.erofs(.json)
//! ```

use flames_vmm::{Error, ErrorKind, Result, VmId};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Bytes that a unix socket's path may have (`sun_path` without its end).
const SOCKET_PATH_MAX: usize = 107;
/// Room for the longest socket name of a driver, with its slash.
const SOCKET_NAME_MAX: usize = 17;

/// The layout of a node's own directory.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Makes the directory and its folders (0700) where they are missing.
    ///
    /// # Errors
    /// `InvalidInput` for a path that is not absolute; `PermissionDenied` or `Unavailable` when it cannot be
    /// made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        if !root.is_absolute() {
            return Err(Error::new(ErrorKind::InvalidInput, "data directory", root.display().to_string())
                .detail("must be an absolute path"));
        }
        let this = Self { root };
        for folder in [this.vms(), this.disks(), this.template_images()] {
            make_private_dir(&folder)?;
        }
        Ok(this)
    }

    /// The layout of a directory that need not exist: for looking, not for making.
    pub(crate) fn unchecked(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of all run directories.
    pub fn vms(&self) -> PathBuf {
        self.root.join("vms")
    }

    /// The folder of empty disks.
    pub fn disks(&self) -> PathBuf {
        self.root.join("disks")
    }

    /// The folder of templates that were built here.
    pub fn templates(&self) -> PathBuf {
        self.root.join("templates")
    }

    /// The folder of their images.
    pub fn template_images(&self) -> PathBuf {
        self.templates().join("images")
    }

    /// The folder of snapshots taken of runs.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// The folder of the templates' own snapshots.
    pub(crate) fn template_snapshots(&self) -> PathBuf {
        self.root.join("template-snapshots")
    }

    /// The directory of one run.
    ///
    /// # Errors
    /// `InvalidInput` when the data directory lies so deep that the run's sockets could not be reached.
    pub fn run(&self, run: &VmId) -> Result<RunDir> {
        let path = self.vms().join(run.as_str());
        let spare = SOCKET_PATH_MAX.checked_sub(path.as_os_str().len() + SOCKET_NAME_MAX);
        if spare.is_some() {
            return Ok(RunDir { path });
        }
        let most = SOCKET_PATH_MAX - SOCKET_NAME_MAX;
        Err(Error::new(ErrorKind::InvalidInput, "run directory", path.display().to_string()).detail(format!(
            "its path has {} bytes and unix sockets in it allow {most}: choose a shorter data directory",
            path.as_os_str().len()
        )))
    }
}

/// The layout of a run's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The writable disk.
    pub fn disk(&self) -> PathBuf {
        self.path.join("disk.ext4")
    }

    /// The run's own link to its template's image, if it was booted from one.
    pub fn image(&self) -> PathBuf {
        self.path.join("image.erofs")
    }

    /// The console log, written by the driver.
    pub fn console(&self) -> PathBuf {
        self.path.join(flames_vmm::CONSOLE_FILE)
    }

    /// The driver's handle.
    pub fn handle(&self) -> PathBuf {
        self.path.join(flames_vmm::HANDLE_FILE)
    }

    /// The node's own record of the run.
    pub fn record(&self) -> PathBuf {
        self.path.join("run.json")
    }
}

/// The files that came with Flames.
#[derive(Clone, Debug)]
pub struct Assets {
    root: PathBuf,
}

impl Assets {
    /// A folder of assets; nothing is read yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The guest kernel.
    pub fn kernel(&self) -> PathBuf {
        self.root.join("vmlinux")
    }

    /// The disk with the agent.
    pub fn agent(&self) -> PathBuf {
        self.root.join("agent.erofs")
    }

    /// The folder of built-in images.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// The hash of one of the files, as noted when it was built; of one without a note it is computed.
    ///
    /// # Errors
    /// `NotFound` or `Unavailable` for the file.
    pub(crate) fn sha256(file: &Path) -> Result<String> {
        let mut note = file.as_os_str().to_owned();
        note.push(".json");
        let facts: Option<serde_json::Value> =
            std::fs::read(&note).ok().and_then(|json| serde_json::from_slice(&json).ok());
        let noted = facts.as_ref().and_then(|facts| facts["sha256"].as_str());
        match noted {
            Some(sum) => Ok(sum.to_owned()),
            None => crate::snapshot::hash_file(file),
        }
    }

    /// Says what is missing before anything is made.
    ///
    /// # Errors
    /// `Unavailable` naming the missing file and how to make it.
    pub fn check(&self) -> Result<()> {
        match [self.kernel(), self.agent()].into_iter().find(|file| !file.is_file()) {
            None => Ok(()),
            Some(file) => Err(Error::new(ErrorKind::Unavailable, "asset", file.display().to_string())
                .detail(
                    "is missing: build it with `make assets`, or point FLAMES_ASSETS at a folder that has it",
                )),
        }
    }
}

/// Makes a directory and its parents, readable by its owner alone.
pub(crate) fn make_private_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| io_error("directory", path, "create", error))
}

/// An error about a path, with the kind that the operating system's answer means.
pub(crate) fn io_error(
    resource: &'static str,
    path: impl AsRef<Path>,
    operation: &'static str,
    error: io::Error,
) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory => ErrorKind::InvalidInput,
        _ => ErrorKind::Unavailable,
    };
    let detail = error.to_string();
    Error::new(kind, resource, path.as_ref().display().to_string())
        .operation(operation)
        .detail(detail)
        .source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_data_directory_too_deep_for_sockets_is_refused_with_both_lengths() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path().join("d".repeat(80))).unwrap();
        let error = data.run(&VmId::parse("run-1").unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.detail_text().unwrap().contains("allow 90"), "{error}");
    }

    #[test]
    fn folders_are_for_their_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path().join("data")).unwrap();
        for folder in [data.root().to_owned(), data.vms(), data.templates()] {
            assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_missing_kernel_is_named() {
        let error = Assets::at("/nonexistent").check().unwrap_err();
        assert_eq!((error.kind(), error.id()), (ErrorKind::Unavailable, "/nonexistent/vmlinux"));
    }
}
