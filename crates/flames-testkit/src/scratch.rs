//! A temporary folder that goes away even when the test process is killed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Removes the folder at the end of its input, which is a pipe that closes with the test process. The
/// servers in it may still be writing as they die, so it tries for a while.
const GUARD: &str =
    r#"cat >/dev/null; for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" && exit; sleep 0.2; done"#;

/// A temporary folder and the guard process that outlives the test to remove it.
#[derive(Debug)]
pub struct Scratch {
    // Dropped first, so that the guard finds nothing to do.
    dir: TempDir,
    guard: Child,
}

impl Scratch {
    /// A new folder that other users may enter (a server may run as one), in memory where there is such a
    /// place: the thousand files of a PostgreSQL cluster cost a second on a disk.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(name: &str) -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::inside(memory, name) } else { Self::on_disk(name) }
    }

    /// A new folder on the disk, to measure what durability costs.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn on_disk(name: &str) -> Self {
        Self::inside(&std::env::temp_dir(), name)
    }

    fn inside(parent: &Path, name: &str) -> Self {
        let prefix = format!("flames-{name}-");
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).expect("make a folder");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("open the folder to others");
        let guard = start_guard(dir.path());
        Self { dir, guard }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// In a process group of its own, so that a test runner that kills the test's group leaves it alive.
fn start_guard(dir: &Path) -> Child {
    use std::os::unix::process::CommandExt;
    Command::new("sh")
        .args(["-c", GUARD, "flames-testkit-guard"])
        .arg(dir)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start sh")
}
