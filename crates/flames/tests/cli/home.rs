//! A place of one's own for the program: directories, a daemon, and an end that finds every leftover.

use crate::host;
use flames_provider::conformance::skip;
use flames_testkit::TestKernel;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Who is meant when a test needs somebody without rights.
const NOBODY: u32 = 65534;

/// Daemons of many tests at once would want the same port for exposed ports.
pub(crate) const WITHOUT_INGRESS: &str = "[providers]\ningress = \"memory:\"\n";

/// No VM but those that a test asks for: tests count them.
const UNPREPARED: &str = "[node]\ntemplate_snapshots = false\n";

/// Directories, and perhaps a daemon. When it goes, everything is ended and nothing may be left.
#[derive(Debug)]
pub(crate) struct Home {
    root: tempfile::TempDir,
    program: PathBuf,
    assets: PathBuf,
    user: Option<u32>,
    daemon: Option<Daemon>,
}

/// `flames up`.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Child,
    /// `http://address:port`.
    pub(crate) url: String,
    /// The same of E2B's interface.
    pub(crate) e2b: String,
    /// Printed at the first start alone.
    pub(crate) key: Option<String>,
}

/// What a command wrote and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Home {
    /// Without assets: for what needs no VM.
    pub(crate) fn bare() -> Self {
        Self::with_assets(PathBuf::from("/nowhere"))
    }

    fn with_assets(assets: PathBuf) -> Self {
        let root = tempfile::Builder::new().prefix("fl").tempdir().unwrap();
        std::fs::write(root.path().join("flames.toml"), [WITHOUT_INGRESS, UNPREPARED].concat()).unwrap();
        Self { root, program: env!("CARGO_BIN_EXE_flames").into(), assets, user: None, daemon: None }
    }

    /// With VMs, as the user who runs the tests; with root's networks if that is root.
    pub(crate) fn with_vms() -> Option<Self> {
        real_assets().map(Self::with_assets)
    }

    /// With VMs and root's networks.
    pub(crate) fn as_root() -> Option<Self> {
        if !host::is_root() {
            skip("root", "run the tests as root");
            return None;
        }
        Self::with_vms()
    }

    /// With VMs of real Firecracker, root's networks, and the kernel of a host whose KVM emulates guest kernels: there a
    /// boot takes a minute, and everything else is as fast as it is.
    pub(crate) fn on_firecracker() -> Option<Self> {
        let mut home = Self::as_root()?;
        let kernel = TestKernel::find()?;
        if !on_path("firecracker") || !on_path("jailer") {
            skip("firecracker", "put firecracker and jailer on PATH");
            return None;
        }
        let assets = home.root.path().join("assets");
        std::fs::create_dir(&assets).unwrap();
        for name in ["agent.erofs", "images"] {
            std::os::unix::fs::symlink(home.assets.join(name).canonicalize().unwrap(), assets.join(name))
                .unwrap();
        }
        kernel.unpack(&assets.join("vmlinux")).unwrap();
        home.assets = assets;
        let words = TestKernel::ARGS.map(|word| format!("{word:?}")).join(", ");
        home.configure(&format!(
            "[vmm]\ndriver = \"firecracker\"\nkernel_args = [{words}]\nfree_page_reporting = true\n\
             drive_limit = {{ bytes_per_s = 1_000_000_000 }}\nmmds = {{ contents = {{ region = \"here\" }} }}\n\
             [sandbox]\nboot_deadline_s = 600\n"
        ));
        Some(home)
    }

    /// With VMs, as somebody without rights, who has copies of the program and the assets.
    pub(crate) fn as_nobody() -> Option<Self> {
        let mut home = Self::as_root()?;
        let at = |name: &str| home.root.path().join(name);
        std::fs::set_permissions(home.root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir_all(at("assets/images")).unwrap();
        for name in ["vmlinux", "agent.erofs", "images/mini.erofs"] {
            std::fs::copy(home.assets.join(name), at("assets").join(name)).unwrap();
        }
        std::fs::copy(&home.program, at("flames")).unwrap();
        for folder in ["d", "r", "files"] {
            std::fs::create_dir(at(folder)).unwrap();
            chown(at(folder), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        (home.program, home.assets) = (at("flames"), at("assets"));
        home.user = Some(NOBODY);
        Some(home)
    }

    pub(crate) fn has_image(&self, template: &str) -> bool {
        self.assets.join("images").join(format!("{template}.erofs")).exists()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.root.path().join("d")
    }

    /// A path for files of the test.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let folder = self.root.path().join("files");
        std::fs::create_dir_all(&folder).unwrap();
        folder.join(name)
    }

    /// The program with this home's directories.
    pub(crate) fn command<Word: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = Word>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .stdin(Stdio::null())
            .env("FLAMES_DATA_DIR", self.data())
            .env("FLAMES_RUNTIME_DIR", self.root.path().join("r"))
            .env("FLAMES_ASSETS", &self.assets)
            .env("FLAMES_CONFIG", self.root.path().join("flames.toml"))
            .env("HOME", self.root.path())
            .current_dir(self.root.path());
        for inherited in ["FLAMES_URL", "FLAMES_API_KEY", "FLAMES_LISTEN", "FLAMES_LOG"] {
            command.env_remove(inherited);
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Runs the program to its end.
    pub(crate) fn flames(&self, words: &[&str]) -> Ended {
        self.command(words).output().unwrap().into()
    }

    /// The same with something on its standard input.
    pub(crate) fn flames_fed(&self, words: &[&str], input: &[u8]) -> Ended {
        let mut child = spawn_piped(self.command(words).stdin(Stdio::piped()));
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).unwrap());
            child.wait_with_output().unwrap().into()
        })
    }

    /// Runs the program, which must succeed, and gives what it wrote.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let ended = self.flames(words);
        assert_eq!(ended.code, 0, "{words:?}: {ended:?}");
        ended.text()
    }

    /// The same with `--json`.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let text = self.ok(&[&["--json"], words].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}: {text}"))
    }

    /// Runs the program, which must fail, and gives the problem that the daemon answered.
    pub(crate) fn refused(&self, words: &[&str]) -> Value {
        let ended = self.flames(&[&["--json"], words].concat());
        assert_ne!(ended.code, 0, "{words:?}: {ended:?}");
        serde_json::from_str(&ended.stderr).unwrap_or_else(|error| panic!("{words:?}: {error}: {ended:?}"))
    }

    /// Starts a sandbox that must start, and gives its id.
    pub(crate) fn create(&self, words: &[&str]) -> String {
        self.ok(&[&["create", "--memory", "128"], words].concat()).trim().to_owned()
    }

    /// Runs a shell line in a sandbox, as root; it must succeed.
    pub(crate) fn sh(&self, id: &str, line: &str) -> String {
        self.ok(&["exec", "-n", "-u", "root", id, "--", "sh", "-c", line])
    }

    /// Starts a program that goes on, with its output in pipes.
    pub(crate) fn spawn(&self, words: &[&str]) -> Child {
        spawn_piped(&mut self.command(words))
    }

    /// Adds to the configuration.
    pub(crate) fn configure(&self, more: &str) {
        let file = self.root.path().join("flames.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, format!("{text}{more}")).unwrap();
    }

    /// Starts the daemon and waits until it serves.
    pub(crate) fn up(&mut self) -> &Daemon {
        self.up_with(&[])
    }

    pub(crate) fn up_with(&mut self, words: &[&str]) -> &Daemon {
        let words = [words, &["up", "--listen", "127.0.0.1:0"]].concat();
        let log = std::fs::File::create(self.root.path().join("daemon.log")).unwrap();
        let process = self.command(&words).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let daemon =
            self.daemon.insert(Daemon { process, url: String::new(), e2b: String::new(), key: None });
        let lines = BufReader::new(daemon.process.stdout.take().unwrap()).lines();
        for line in lines.map(Result::unwrap) {
            if let Some(shown) = line.strip_prefix("API key (shown this once, stored hashed): ") {
                daemon.key = Some(shown.to_owned());
            }
            if let Some(pointed) = line.strip_prefix("E2B clients: E2B_API_URL=") {
                daemon.e2b = pointed.split(' ').next().unwrap().to_owned();
            }
            if let Some(url) = line.strip_prefix("flames is up on ") {
                daemon.url = url.split(' ').next().unwrap().to_owned();
                break;
            }
        }
        assert!(!daemon.url.is_empty(), "the daemon did not come up");
        daemon
    }

    /// The process of the daemon.
    pub(crate) fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().process.id()
    }

    /// Ends the daemon and leaves its sandboxes.
    pub(crate) fn down(&mut self, signal: &str) {
        let mut daemon = self.daemon.take().unwrap();
        host::signal(daemon.process.id(), signal);
        let status = daemon.process.wait().unwrap();
        assert_eq!(status.success(), signal == "TERM", "{status}: {}", self.daemon_log());
    }

    pub(crate) fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("daemon.log")).unwrap_or_default()
    }

    /// What there is of this home's on the host besides files.
    pub(crate) fn footprint(&self) -> Vec<String> {
        host::footprint(self.root.path(), &self.data())
    }

    /// Everything that should not be left.
    fn leftovers(&self) -> Vec<String> {
        let folders = [self.data().join("vms"), self.data().join("embedded")];
        let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        let files = files.map(|entry| format!("file {}", entry.unwrap().path().display()));
        self.footprint().into_iter().chain(files).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            self.flames(&["rm", "--all"]);
            host::signal(daemon.process.id(), "TERM");
            daemon.process.wait().unwrap();
        }
        let left = self.leftovers();
        if !left.is_empty() {
            host::clear(self.root.path(), &self.data());
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left on the host: {left:#?}\n{}", self.daemon_log());
        } else {
            eprintln!("daemon: {}", self.daemon_log());
        }
    }
}

impl Ended {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The first line that a child writes, when it writes it.
pub(crate) fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Ends a child with a signal and gives its exit code.
pub(crate) fn end(mut child: Child, signal: &str) -> Option<i32> {
    host::signal(child.id(), signal);
    child.wait().unwrap().code()
}

fn spawn_piped(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn real_assets() -> Option<PathBuf> {
    let Some(assets) = std::env::var_os("FLAMES_ASSETS").map(PathBuf::from) else {
        skip("assets", "set FLAMES_ASSETS to the folder that `make assets` fills");
        return None;
    };
    if !on_path("qemu-system-x86_64") {
        skip("qemu", "install qemu-system-x86");
        return None;
    }
    Some(std::path::absolute(assets).unwrap())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::join(&folder, program).exists())
}
