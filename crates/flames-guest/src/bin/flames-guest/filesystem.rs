//! `filesystem.Filesystem`: looking at and changing paths. Done with root's rights, as the reference does;
//! what is made belongs to the calling user.

use crate::agent::Agent;
use crate::files::{blocking, entry, make_parents};
use crate::http::{Answer, Failure, json, read_unary};
use crate::routes::named_user;
use crate::timing::{timeout_of, within_deadline};
use crate::users::{Names, User};
use crate::watch;
use flames_guest::filesystem::{
    EntryInfo, EntryResponse, ListDirRequest, ListDirResponse, MoveRequest, PathRequest,
};
use flames_guest::process::Empty;
use flames_guest::rpc::{Code, RpcError};
use hyper::Request;
use hyper::body::Incoming;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A listing of more entries is refused: its answer would not be taken.
const MAX_ENTRIES: usize = 50_000;

/// Answers one call of the service.
pub(crate) async fn call(
    agent: Arc<Agent>,
    request: Request<Incoming>,
    method: &str,
) -> Result<Answer, Failure> {
    if method == "WatchDir" {
        return watched(agent, request).await.map_err(Failure::Stream);
    }
    let user = agent.user(named_user(request.headers())?.as_deref())?;
    let timeout = timeout_of(request.headers())?;
    within_deadline(timeout, Caller { agent, user }.unary(request, method)).await
}

async fn watched(agent: Arc<Agent>, request: Request<Incoming>) -> Result<Answer, RpcError> {
    let user = agent.user(named_user(request.headers())?.as_deref())?;
    watch::watch_dir(agent, &user, request).await
}

/// Who calls.
#[derive(Debug)]
struct Caller {
    agent: Arc<Agent>,
    user: User,
}

impl Caller {
    async fn unary(self, request: Request<Incoming>, method: &str) -> Result<Answer, Failure> {
        match method {
            "Stat" => self.path_call(request, Self::stat).await,
            "MakeDir" => self.path_call(request, Self::make_dir).await,
            "Remove" => self.path_call(request, |_, path| remove(path)).await,
            "ListDir" => self.list_dir(request).await,
            "Move" => self.rename(request).await,
            "CreateWatcher" => Ok(watch::create(&self.agent, &self.user, request).await?),
            "GetWatcherEvents" => Ok(watch::events(&self.agent, request).await?),
            "RemoveWatcher" => Ok(watch::remove(&self.agent, request).await?),
            _ => {
                let message = format!("filesystem.Filesystem has no method {method}");
                Err(RpcError::new(Code::Unimplemented, message).into())
            }
        }
    }

    async fn path_call<T: serde::Serialize + Send + 'static>(
        self,
        request: Request<Incoming>,
        work: impl FnOnce(&Self, &Path) -> Result<T, RpcError> + Send + 'static,
    ) -> Result<Answer, Failure> {
        let message: PathRequest = read_unary(request).await?;
        let path = self.agent.resolve(&message.path, &self.user)?;
        answer(move || work(&self, &path)).await
    }

    async fn list_dir(self, request: Request<Incoming>) -> Result<Answer, Failure> {
        let message: ListDirRequest = read_unary(request).await?;
        let path = self.agent.resolve(&message.path, &self.user)?;
        answer(move || {
            let mut listing = Listing { names: self.names(), entries: Vec::new() };
            expect_directory(&path)?;
            listing.add(&path, message.depth.max(1)).map_err(|error| failed(&path, &error))?;
            Ok(ListDirResponse { entries: listing.entries })
        })
        .await
    }

    async fn rename(self, request: Request<Incoming>) -> Result<Answer, Failure> {
        let message: MoveRequest = read_unary(request).await?;
        let source = self.agent.resolve(&message.source, &self.user)?;
        let destination = self.agent.resolve(&message.destination, &self.user)?;
        answer(move || {
            fs::symlink_metadata(&source).map_err(|error| failed(&source, &error))?;
            self.make_parents_of(&destination)?;
            fs::rename(&source, &destination).map_err(|error| failed(&destination, &error))?;
            self.stat(&destination)
        })
        .await
    }

    fn stat(&self, path: &Path) -> Result<EntryResponse, RpcError> {
        let entry = entry(path, &self.names()).map_err(|error| failed(path, &error))?;
        Ok(EntryResponse { entry: Some(entry) })
    }

    fn make_dir(&self, path: &Path) -> Result<EntryResponse, RpcError> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(about(path, Code::AlreadyExists, "directory already exists")),
            Ok(_) => Err(about(path, Code::InvalidArgument, "exists and is not a directory")),
            Err(_) if crate::files::is_link_to_nowhere(path) => {
                Err(about(path, Code::InvalidArgument, "exists and is a link to nowhere"))
            }
            Err(_) => {
                make_parents(path, &self.user).map_err(|error| failed(path, &error))?;
                self.stat(path)
            }
        }
    }

    fn make_parents_of(&self, path: &Path) -> Result<(), RpcError> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        make_parents(parent, &self.user).map_err(|error| failed(parent, &error))
    }

    fn names(&self) -> Names {
        Names::read(&self.agent.root)
    }
}

async fn answer<T: serde::Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, RpcError> + Send + 'static,
) -> Result<Answer, Failure> {
    let done = blocking(work).await.map_err(|error| RpcError::new(Code::Internal, error.to_string()))?;
    Ok(json(&done?))
}

/// What is not there counts as removed.
fn remove(path: &Path) -> Result<Empty, RpcError> {
    if path == Path::new("/") {
        return Err(about(path, Code::InvalidArgument, "cannot be removed"));
    }
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Empty {}),
        removed => removed.map(|()| Empty {}).map_err(|error| failed(path, &error)),
    }
}

fn expect_directory(path: &Path) -> Result<(), RpcError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(about(path, Code::InvalidArgument, "is not a directory")),
        Err(error) => Err(failed(path, &error)),
    }
}

/// Entries of a directory and of those below it.
#[derive(Debug)]
struct Listing {
    names: Names,
    entries: Vec<EntryInfo>,
}

impl Listing {
    /// Depth first and by name. Links to directories are listed, not entered.
    fn add(&mut self, dir: &Path, depth: u32) -> io::Result<()> {
        for path in sorted(dir)? {
            match entry(&path, &self.names) {
                Ok(entry) => self.entries.push(entry),
                // Gone since the directory was read.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            if self.entries.len() > MAX_ENTRIES {
                return Err(io::Error::new(
                    ErrorKind::QuotaExceeded,
                    "more than 50000 entries: list with less depth",
                ));
            }
            if depth > 1 && path.is_dir() && !path.is_symlink() {
                self.add(&path, depth - 1)?;
            }
        }
        Ok(())
    }
}

fn sorted(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        paths.push(entry?.path());
        if paths.len() > MAX_ENTRIES {
            break;
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// What a failed operation on a path means to the caller.
fn failed(path: &Path, error: &io::Error) -> RpcError {
    let code = match error.kind() {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidInput
        | ErrorKind::InvalidFilename => Code::InvalidArgument,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::ResourceExhausted,
        ErrorKind::DirectoryNotEmpty
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::CrossesDevices
        | ErrorKind::ResourceBusy => Code::FailedPrecondition,
        _ => Code::Internal,
    };
    let what = if code == Code::NotFound { "path not found".to_owned() } else { error.to_string() };
    about(path, code, &what)
}

fn about(path: &Path, code: Code, what: &str) -> RpcError {
    RpcError::new(code, format!("'{}': {what}", path.display()))
}
