//! What the client takes and gives.

use bytes::Bytes;
use flames_guest::rpc::Code;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The result of a call to the agent.
pub type GuestResult<T> = Result<T, GuestError>;

/// A body that flows.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// What the agent answered instead of doing it, or why it did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct GuestError {
    kind: GuestErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl GuestError {
    /// An error of a kind, with the agent's words.
    pub fn new(kind: GuestErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to branch on.
    pub fn kind(&self) -> GuestErrorKind {
        self.kind
    }

    /// The agent's words, for a person.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// The kinds of refusal, as the guest interface names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestErrorKind {
    /// No such file, process or command.
    NotFound,
    /// It exists, and the call asked for it not to.
    AlreadyExists,
    /// The request itself is wrong (working directory, path, size).
    InvalidArgument,
    /// Wrong token or unknown user.
    Unauthenticated,
    /// The user inside the guest may not do that.
    PermissionDenied,
    /// The guest's disk is full, or a limit is reached.
    ResourceExhausted,
    /// It took longer than the caller allowed.
    DeadlineExceeded,
    /// The agent does not know this call.
    Unimplemented,
    /// The guest does not answer, or is gone.
    Unavailable,
    /// A fault of the agent, or an answer that makes no sense.
    Internal,
}

impl GuestErrorKind {
    /// From the code of an error in the wire protocol.
    pub(super) fn from_code(code: Code) -> Self {
        match code {
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => Self::InvalidArgument,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::DeadlineExceeded | Code::Canceled => Self::DeadlineExceeded,
            Code::Unimplemented => Self::Unimplemented,
            Code::Unavailable | Code::Aborted => Self::Unavailable,
            Code::Internal | Code::DataLoss | Code::Unknown => Self::Internal,
        }
    }

    /// From an HTTP status, where the body does not say more.
    pub(super) fn from_status(status: u16) -> Self {
        match status {
            400 | 406 | 416 => Self::InvalidArgument,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            409 => Self::AlreadyExists,
            413 | 429 | 507 => Self::ResourceExhausted,
            405 | 501 => Self::Unimplemented,
            408 | 504 => Self::DeadlineExceeded,
            502 | 503 => Self::Unavailable,
            _ => Self::Internal,
        }
    }
}

/// What a guest uses. Memory and disk in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GuestMetrics {
    /// Processors.
    pub cpu_count: u32,
    /// Since the last time somebody asked; 100 is all of one processor's time, of all processors together.
    pub cpu_used_pct: f64,
    /// Memory of the guest.
    pub mem_total: u64,
    /// What programs and the kernel hold of it.
    pub mem_used: u64,
    /// What caches of files hold of it.
    pub mem_cache: u64,
    /// Size of the root file system.
    pub disk_total: u64,
    /// What is used of it.
    pub disk_used: u64,
}

/// A process to start.
#[derive(Clone, Debug, Default)]
pub struct StartProcess {
    /// Program: a path, or a name that the guest's `PATH` finds.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment on top of the sandbox's.
    pub env: BTreeMap<String, String>,
    /// Working directory; `None` is the user's home.
    pub cwd: Option<String>,
    /// Who runs it; `None` is the sandbox's default user.
    pub user: Option<String>,
    /// A name to find it by.
    pub tag: Option<String>,
    /// Where its standard input comes from.
    pub stdin: Stdin,
    /// When the agent kills it; `None` is never.
    pub timeout: Option<Duration>,
    /// Runs it on a terminal of this size, which takes the place of all three standard streams.
    pub terminal: Option<TerminalSize>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Width.
    pub columns: u16,
    /// Height.
    pub rows: u16,
}

impl TerminalSize {
    pub(super) fn wire(self) -> flames_guest::process::Pty {
        let size = flames_guest::process::PtySize { cols: self.columns.into(), rows: self.rows.into() };
        flames_guest::process::Pty { size: Some(size) }
    }
}

/// Where a process' standard input comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// What is sent, until it is closed.
    Open,
}

/// What a process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessEvent {
    /// It wrote to its standard output.
    Stdout(Bytes),
    /// It wrote to its standard error.
    Stderr(Bytes),
    /// It wrote to its terminal.
    Pty(Bytes),
    /// It ended; nothing follows.
    End(ProcessEnd),
}

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessEnd {
    /// Its exit code; -1 if a signal ended it.
    pub exit_code: i32,
    /// Whether it exited by itself.
    pub exited: bool,
    /// In words, for example `exit status 3` or `signal: killed`.
    pub status: String,
}

/// A process that the agent started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its id inside the guest.
    pub pid: u32,
    /// Its tag.
    pub tag: Option<String>,
    /// Its program.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its working directory, if one was asked for.
    pub cwd: Option<String>,
}

/// A signal the agent can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Asks the process to end.
    Term,
    /// Ends it.
    Kill,
}

impl Signal {
    pub(super) fn wire(self) -> flames_guest::process::Signal {
        match self {
            Self::Term => flames_guest::process::Signal::Terminate,
            Self::Kill => flames_guest::process::Signal::Kill,
        }
    }
}

/// A file to write.
#[derive(Clone, Debug)]
pub struct WriteFile {
    /// Where; parents are made.
    pub path: String,
    /// Whose; `None` is the sandbox's default user.
    pub user: Option<String>,
}

/// A file that is read.
pub struct FileDownload {
    /// Its size in bytes, if the agent said so.
    pub size: Option<u64>,
    /// Its content.
    pub body: ByteStream,
}

impl std::fmt::Debug for FileDownload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileDownload").field("size", &self.size).finish_non_exhaustive()
    }
}

/// A file, directory or link in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Last part of the path.
    pub name: String,
    /// The path.
    pub path: String,
    /// What it is; of a link, what it points to.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// In words, for example `-rw-r--r--`.
    pub permissions: String,
    /// Name of its owner.
    pub owner: String,
    /// Name of its group.
    pub group: String,
    /// When its content changed last, RFC 3339.
    pub modified: String,
    /// Where a link leads to.
    pub symlink_target: Option<String>,
}

/// What an [`Entry`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A link that leads nowhere.
    Symlink,
    /// A device, socket or pipe.
    Other,
}
