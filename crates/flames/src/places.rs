//! Where things are, from flags, environment, configuration and the usual places, in this order.

use crate::cli::Global;
use crate::config::{Config, Vmm};
use std::path::{Path, PathBuf};

/// The directories in use.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Records, disks and templates.
    pub(crate) data: PathBuf,
    /// The daemon's socket.
    pub(crate) runtime: PathBuf,
    /// Kernel, agent and base images.
    pub(crate) assets: PathBuf,
}

impl Places {
    pub(crate) fn find(global: &Global, config: &Config) -> Self {
        let root = rustix::process::geteuid().is_root();
        let told = |flag: &Option<PathBuf>, file: &Option<PathBuf>| flag.clone().or_else(|| file.clone());
        let data = told(&global.data_dir, &config.paths.data_dir);
        let runtime = told(&global.runtime_dir, &config.paths.runtime_dir);
        Self {
            data: absolute(data.unwrap_or_else(|| default_data(root))),
            runtime: absolute(runtime.unwrap_or_else(|| default_runtime(root))),
            assets: absolute(
                told(&global.assets_dir, &config.paths.assets_dir).unwrap_or_else(default_assets),
            ),
        }
    }

    /// Uses the Firecracker that `flames install` put here, where the configuration names no other.
    pub(crate) fn prefer_installed(&self, vmm: &mut Vmm) {
        let usual = Vmm::default();
        let unnamed = vmm.firecracker == usual.firecracker && vmm.jailer == usual.jailer;
        if let (true, Some([firecracker, jailer])) = (unnamed, Installed::below(&self.data).programs()) {
            (vmm.firecracker, vmm.jailer) = (firecracker, jailer);
        }
    }

    /// The socket that the CLI finds the daemon by.
    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime.join("flames.sock")
    }
}

/// Releases of Firecracker that `flames install` put into the data directory: a folder each, and a link to the one in use.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    root: PathBuf,
}

impl Installed {
    const IN_USE: &str = "current";

    pub(crate) fn below(data: &Path) -> Self {
        Self { root: data.join("firecracker") }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn folder(&self, release: &str) -> PathBuf {
        self.root.join(release)
    }

    /// `firecracker` and `jailer` of the release in use.
    pub(crate) fn programs(&self) -> Option<[PathBuf; 2]> {
        let folder = self.root.join(Self::IN_USE);
        let programs = ["firecracker", "jailer"].map(|name| folder.join(name));
        programs.iter().all(|program| program.is_file()).then_some(programs)
    }

    /// Moves a folder with both programs to its place, over one of the same release, and uses it. VMs that run keep theirs.
    pub(crate) fn keep(&self, staged: &Path, release: &str) -> std::io::Result<()> {
        let folder = self.folder(release);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::rename(staged, folder)?;
        self.use_release(release)
    }

    pub(crate) fn use_release(&self, release: &str) -> std::io::Result<()> {
        let link = self.root.join(".current");
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(release, &link)?;
        std::fs::rename(link, self.root.join(Self::IN_USE))
    }
}

fn default_data(root: bool) -> PathBuf {
    match root {
        true => PathBuf::from("/var/lib/flames"),
        false => from_env("XDG_DATA_HOME").unwrap_or_else(|| home().join(".local/share")).join("flames"),
    }
}

fn default_runtime(root: bool) -> PathBuf {
    match root {
        true => PathBuf::from("/run/flames"),
        false => match from_env("XDG_RUNTIME_DIR") {
            Some(runtime) => runtime.join("flames"),
            None => default_data(false).join("run"),
        },
    }
}

fn default_assets() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("../share/flames")));
    let usual = ["/usr/local/share/flames", "/usr/share/flames"].map(PathBuf::from);
    let found = beside.into_iter().chain(usual.clone()).find(|place| place.join("vmlinux").exists());
    found.unwrap_or_else(|| usual[0].clone())
}

fn from_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn home() -> PathBuf {
    from_env("HOME").unwrap_or_else(|| PathBuf::from("/"))
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Makes a directory that only its owner may look into.
pub(crate) fn make_private_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
