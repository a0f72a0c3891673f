//! From a request to a running process.
#![allow(unsafe_code, reason = "the new process changes its user between fork and exec")]

use super::events::Hub;
use super::table::Process;
use super::terminal::{Opened, Terminal, open_terminal, take_terminal};
use crate::agent::Settings;
use crate::users::User;
use flames_guest::process::{ProcessConfig, Pty, StartRequest};
use flames_guest::rpc::{Code, RpcError};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Uid, chdir, fchown, pipe2, setgid, setgroups, setsid, setuid};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, watch};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The kernel's own limit for one argument or variable.
const MAX_WORD: usize = 128 << 10;

/// Everything that was decided before a process starts.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) request: StartRequest,
    pub(crate) user: User,
    pub(crate) cwd: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
}

/// The agent's ends of what a new process writes to.
#[derive(Debug)]
pub(crate) enum Output {
    Pipes { stdout: pipe::Receiver, stderr: pipe::Receiver },
    Terminal(pipe::Receiver),
}

/// Both sides of what a new process reads from and writes to.
struct Streams {
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
    input: Option<pipe::Sender>,
    output: Output,
    terminal: Option<Terminal>,
}

impl Plan {
    /// Decides everything, and refuses what cannot work.
    pub(crate) fn new(
        request: StartRequest,
        user: User,
        cwd: PathBuf,
        settings: &Settings,
    ) -> Result<Self, RpcError> {
        let config = request.process.as_ref().filter(|config| !config.cmd.is_empty());
        let config = config.ok_or_else(|| invalid("process.cmd is missing"))?;
        check_words(config)?;
        check_cwd(&cwd)?;
        let mut env = environment(&user, settings, config);
        if request.pty.is_some() {
            env.entry("TERM".to_owned()).or_insert_with(|| "xterm-256color".to_owned());
        }
        Ok(Self { request, user, cwd, env })
    }

    /// Starts it. Must be called with the process table locked: its exit may come at once.
    pub(crate) fn spawn(self) -> Result<(Process, Output), RpcError> {
        let config = self.request.process.clone().unwrap_or_default();
        let failed = |error: io::Error| start_error(&config.cmd, &error);
        let streams = match &self.request.pty {
            Some(pty) => self.terminal(pty),
            None => self.pipes(),
        };
        let streams = streams.map_err(failed)?;
        let mut command = Command::new(&config.cmd);
        command.args(&config.args).env_clear().envs(&self.env);
        command.stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr);
        let session = if streams.terminal.is_some() { Session::OnTerminal } else { Session::Detached };
        become_user(&mut command, &self.user, &self.cwd, session).map_err(failed)?;
        // The reaper collects it: this handle neither waits nor kills when it is dropped.
        let child = command.spawn().map_err(failed)?;
        let process = Process {
            pid: child.id(),
            config,
            tag: self.request.tag,
            input: Mutex::new(streams.input),
            terminal: streams.terminal,
            hub: Hub::default(),
            timed_out: AtomicBool::new(false),
            exit: watch::Sender::new(None),
        };
        Ok((process, streams.output))
    }

    fn terminal(&self, pty: &Pty) -> io::Result<Streams> {
        let Opened { terminal, device, output, input } = open_terminal(pty, &self.user)?;
        Ok(Streams {
            stdin: device.try_clone()?.into(),
            stdout: device.try_clone()?.into(),
            stderr: device.into(),
            input: Some(input),
            output: Output::Terminal(output),
            terminal: Some(terminal),
        })
    }

    fn pipes(&self) -> io::Result<Streams> {
        let (stdin, input) = self.stdin_pipe()?;
        let (stdout, stdout_write) = self.output_pipe()?;
        let (stderr, stderr_write) = self.output_pipe()?;
        Ok(Streams {
            stdin,
            stdout: stdout_write,
            stderr: stderr_write,
            input,
            output: Output::Pipes { stdout, stderr },
            terminal: None,
        })
    }

    /// Old clients do not say, and expect it open.
    fn stdin_pipe(&self) -> io::Result<(Stdio, Option<pipe::Sender>)> {
        if self.request.stdin == Some(false) {
            return Ok((Stdio::null(), None));
        }
        let (read, write) = self.pipe()?;
        Ok((read.into(), Some(pipe::Sender::from_owned_fd(write)?)))
    }

    fn output_pipe(&self) -> io::Result<(pipe::Receiver, Stdio)> {
        let (read, write) = self.pipe()?;
        Ok((pipe::Receiver::from_owned_fd(read)?, write.into()))
    }

    /// Both ends belong to the user: otherwise it could not open `/dev/stdout`.
    fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        if Uid::effective().is_root() {
            fchown(&write, Some(self.user.uid), Some(self.user.gid))?;
        }
        Ok((read, write))
    }
}

/// Whether the kernel would take it: a name without `=`, and no zero byte in either.
pub(crate) fn is_variable(name: &str, value: &str) -> bool {
    !name.is_empty()
        && !name.contains(['=', '\0'])
        && !value.contains('\0')
        && name.len() + value.len() < MAX_WORD
}

fn check_words(config: &ProcessConfig) -> Result<(), RpcError> {
    let words = std::iter::once(&config.cmd).chain(&config.args);
    if let Some(word) = words.into_iter().find(|word| word.contains('\0') || word.len() >= MAX_WORD) {
        let start: String = word.chars().take(32).collect();
        return Err(invalid(format!(
            "argument `{start}` has a zero byte or is longer than {MAX_WORD} bytes"
        )));
    }
    match config.envs.iter().find(|(name, value)| !is_variable(name, value)) {
        Some((name, _)) => Err(invalid(format!("envs: `{name}` cannot be a variable"))),
        None => Ok(()),
    }
}

fn check_cwd(cwd: &Path) -> Result<(), RpcError> {
    match std::fs::metadata(cwd) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(invalid(format!("cwd '{}' is not a directory", cwd.display()))),
        Err(_) => Err(invalid(format!("cwd '{}' does not exist", cwd.display()))),
    }
}

/// The login environment, then the sandbox's, then the request's.
fn environment(user: &User, settings: &Settings, config: &ProcessConfig) -> BTreeMap<String, String> {
    let home = user.home.to_string_lossy().into_owned();
    let login = [
        ("PATH", PATH.to_owned()),
        ("HOME", home),
        ("USER", user.name.clone()),
        ("LOGNAME", user.name.clone()),
        ("E2B_SANDBOX", "true".to_owned()),
    ];
    let mut env: BTreeMap<String, String> = login.map(|(name, value)| (name.to_owned(), value)).into();
    env.extend(settings.env.clone());
    env.extend(config.envs.clone());
    env
}

/// Whether a new session has a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Detached,
    OnTerminal,
}

/// Arranges what happens between fork and exec: a session of its own, the user's groups and ids, and the directory as that
/// user may enter it.
fn become_user(command: &mut Command, user: &User, cwd: &Path, session: Session) -> io::Result<()> {
    let cwd = CString::new(cwd.as_os_str().as_bytes())?;
    let (uid, gid, groups) = (user.uid, user.gid, user.groups.clone());
    let change_user = Uid::effective().is_root() || uid != Uid::effective();
    let prepare = move || -> io::Result<()> {
        setsid()?;
        if session == Session::OnTerminal {
            take_terminal()?;
        }
        if change_user {
            setgroups(&groups)?;
            setgid(gid)?;
            setuid(uid)?;
        }
        chdir(cwd.as_c_str())?;
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, with memory that was allocated before.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}

/// What a caller can do about a process that did not start.
fn start_error(cmd: &str, error: &io::Error) -> RpcError {
    let (code, why) = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => (Code::NotFound, "command not found".to_owned()),
        Some(Errno::EACCES | Errno::EPERM) => (Code::PermissionDenied, format!("permission denied: {error}")),
        Some(Errno::E2BIG | Errno::ENOEXEC | Errno::ENAMETOOLONG | Errno::ENOTDIR | Errno::ELOOP) => {
            (Code::InvalidArgument, error.to_string())
        }
        Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE) => {
            (Code::ResourceExhausted, error.to_string())
        }
        _ => (Code::Internal, error.to_string()),
    };
    RpcError::new(code, format!("error starting process '{cmd}': {why}"))
}

fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(Code::InvalidArgument, message)
}
