//! Starts Firecracker's process with nothing of ours but what it needs.

use crate::files;
use crate::jail;
use flames_vmm::jail::{Mount, Net};
use flames_vmm::process::{Started, limited, spawn_on_own_thread};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What to start, and with what.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) run_dir: PathBuf,
    /// Where it starts; the jailer changes that to the cage itself.
    pub(crate) folder: PathBuf,
    /// What `/proc/<pid>/exe` says once Firecracker runs: the jailer becomes Firecracker in its own time.
    pub(crate) executable: PathBuf,
    pub(crate) confinement: Confinement,
}

/// What the process is started inside of.
#[derive(Debug)]
pub(crate) enum Confinement {
    /// The daemon's own namespaces but for the network, if one is named.
    Open { net: Net },
    /// Namespaces of its own. The jailer does the rest.
    Jail {
        net: Net,
        /// What the cage gets from outside.
        mounts: Vec<Mount>,
        /// Who the jailer makes it.
        uid: u32,
    },
}

/// Starts the program.
pub(crate) async fn start(launch: Launch) -> io::Result<Started> {
    let executable = launch.executable.clone();
    let child = spawn_on_own_thread(move || spawn(launch)).await?;
    Started::find(child, Some(executable))
}

fn spawn(launch: Launch) -> io::Result<Child> {
    let run_dir = &launch.run_dir;
    let stderr = File::options().create(true).append(true).open(run_dir.join(files::STDERR))?;
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        .env_clear()
        .current_dir(&launch.folder)
        // Held open for reading and writing by Firecracker itself: neither end of its console ever closes, and
        // a daemon may come and go.
        .stdin(Stdio::from(open_pipe(&run_dir.join(files::CONSOLE_IN))?))
        .stdout(Stdio::from(open_pipe(&run_dir.join(files::CONSOLE_OUT))?))
        .stderr(stderr)
        // A group of its own: Ctrl-C at the daemon's terminal is not for its VMs.
        .process_group(0);
    // Ours are all close-on-exec already; this is for what the daemon itself was started with.
    close_fds::set_fds_cloexec(3, &[]);
    jail::enter(&launch.confinement)?;
    let user = match &launch.confinement {
        Confinement::Open { .. } => None,
        Confinement::Jail { uid, .. } => Some(*uid),
    };
    limited(command.spawn()?, user)
}

fn open_pipe(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}
