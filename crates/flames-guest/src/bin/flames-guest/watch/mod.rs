//! Watching directories: as a stream, or by asking now and then.
//!
//! Both read changes from a [`tree::Tree`] of their own. The polled one reads ahead, and once more when it is
//! asked: what a call that was answered before has changed is in the answer.

mod polled;
mod stream;
mod tree;

pub(crate) use polled::Watchers;

use crate::agent::Agent;
use crate::files::blocking;
use crate::http::{Answer, json, read_one_frame, read_unary, stream as streamed};
use crate::timing::{deadline_of, keepalive_of};
use crate::users::User;
use flames_guest::filesystem::{WatchRequest, WatcherRef};
use flames_guest::process::Empty;
use flames_guest::rpc::{Code, RpcError};
use hyper::Request;
use hyper::body::Incoming;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tree::{Depth, Tree};

pub(crate) async fn watch_dir(
    agent: Arc<Agent>,
    user: &User,
    request: Request<Incoming>,
) -> Result<Answer, RpcError> {
    let timing = (keepalive_of(request.headers()), deadline_of(request.headers())?);
    let message: WatchRequest = read_one_frame(request).await?;
    let tree = open(&agent, user, &message).await?;
    let watching = stream::Watching::new(agent, tree, message.include_entry, timing)?;
    Ok(streamed(watching.into_body()))
}

pub(crate) async fn create(
    agent: &Agent,
    user: &User,
    request: Request<Incoming>,
) -> Result<Answer, RpcError> {
    let message: WatchRequest = read_unary(request).await?;
    let tree = open(agent, user, &message).await?;
    let describe = message.include_entry.then(|| agent.root.clone());
    Ok(json(&WatcherRef { watcher_id: agent.watchers.insert(tree, describe)? }))
}

pub(crate) async fn events(agent: &Agent, request: Request<Incoming>) -> Result<Answer, RpcError> {
    let message: WatcherRef = read_unary(request).await?;
    Ok(json(&agent.watchers.events(&message.watcher_id).await?))
}

pub(crate) async fn remove(agent: &Agent, request: Request<Incoming>) -> Result<Answer, RpcError> {
    let message: WatcherRef = read_unary(request).await?;
    agent.watchers.remove(&message.watcher_id)?;
    Ok(json(&Empty {}))
}

async fn open(agent: &Agent, user: &User, message: &WatchRequest) -> Result<Tree, RpcError> {
    let path = agent.resolve(&message.path, user)?;
    let depth = if message.recursive { Depth::Recursive } else { Depth::Flat };
    let allow_network = message.allow_network_mounts;
    let opened = blocking(move || {
        check(&path, allow_network)?;
        Tree::open(path, depth).map_err(|error| refused(&error))
    });
    opened.await.map_err(|error| refused(&error))?
}

fn check(path: &PathBuf, allow_network: bool) -> Result<(), RpcError> {
    let about = |code, what: &str| Err(RpcError::new(code, format!("path {} {what}", path.display())));
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => about(Code::InvalidArgument, "is not a directory"),
        Err(error) if error.kind() == ErrorKind::NotFound => about(Code::NotFound, "not found"),
        Err(error) => about(Code::Internal, &error.to_string()),
        Ok(_) if !allow_network && is_on_network(path) => {
            about(Code::InvalidArgument, "is on a network file system, and allowNetworkMounts is not set")
        }
        Ok(_) => Ok(()),
    }
}

/// Numbers of `linux/magic.h`: NFS, SMB, SMB2, CIFS, FUSE, 9P, Ceph, AFS, Coda.
const NETWORK: [u32; 9] = [
    0x6969,
    0x517b,
    0xfe53_4d42,
    0xff53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
    0x7375_7245,
];

fn is_on_network(path: &Path) -> bool {
    rustix::fs::statfs(path)
        .is_ok_and(|found| u32::try_from(found.f_type).is_ok_and(|kind| NETWORK.contains(&kind)))
}

/// What a failed watch means to the caller.
fn refused(error: &io::Error) -> RpcError {
    let full = matches!(error.kind(), ErrorKind::StorageFull)
        || matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM));
    let code = if full { Code::ResourceExhausted } else { Code::Internal };
    let what = if full { "the kernel watches as much as it may" } else { "cannot watch" };
    RpcError::new(code, format!("{what}: {error}"))
}

fn lost() -> RpcError {
    RpcError::new(Code::DataLoss, "changes came faster than they were read, and some are lost")
}

/// Waits for changes of a tree that is read elsewhere.
#[derive(Debug)]
struct Readiness(AsyncFd<OwnedFd>);

impl Readiness {
    #[expect(deprecated, reason = "its successor is unsafe; the contract holds, the descriptor is owned")]
    fn of(tree: &Tree) -> io::Result<Self> {
        Ok(Self(AsyncFd::with_interest(tree.descriptor()?, Interest::READABLE)?))
    }

    /// Returns when there may be changes that were not there at the last return.
    async fn wait(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
