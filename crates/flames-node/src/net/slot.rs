//! A slot: one named network namespace, ready for one VM and never used twice.
//!
//! It is set up on a thread of its own, which leaves the host's namespace and ends with the work, and gets
//! its name last: a daemon that dies half way leaves nothing that has to be found.

use super::uplink::{Uplink, UplinkConfig, UplinkProbe};
use super::{firewall, link};
use flames_vmm::{Error, ErrorKind, Result};
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Where named namespaces are mounted, as `ip netns` expects.
const NETNS_DIR: &str = "/run/netns";

/// The names that one node gives, told apart from other nodes' on the same host, and those of them in use.
#[derive(Clone, Debug)]
pub(crate) struct SlotNames {
    prefix: String,
    uplink: Option<Uplink>,
    owned: Arc<Owned>,
}

/// Names that somebody in this process answers for, from before the namespace is made until after it is gone.
#[derive(Debug, Default)]
struct Owned(Mutex<HashSet<String>>);

/// What a named namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotProbe {
    pub(crate) mounted: bool,
    pub(crate) tap: bool,
    pub(crate) firewall: bool,
}

/// A network namespace with TAP, addresses and firewall. Dropping it changes nothing: VMs outlive the
/// daemon.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    name: String,
    path: PathBuf,
    namespace: Arc<File>,
    uplink: Option<Uplink>,
    /// Whether there may be a pair of links to the uplink.
    linked: Arc<AtomicBool>,
    owned: Arc<Owned>,
}

impl SlotNames {
    /// Names of the node that owns a data directory, for slots that nothing ever leads out of.
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self { prefix: format!("fl-{}-", node_of(data_dir)), uplink: None, owned: Arc::default() }
    }

    /// The same, for slots that a policy may open.
    ///
    /// # Errors
    /// Those of the uplink: a namespace that is not there, a range that will not do.
    pub(crate) fn with_uplink(data_dir: &Path, uplink: &UplinkConfig) -> Result<Self> {
        let uplink = Uplink::open(uplink, &node_of(data_dir))?;
        Ok(Self { uplink: Some(uplink), ..Self::of(data_dir) })
    }

    /// Makes a slot.
    pub(crate) async fn create(&self) -> Result<Slot> {
        let name = format!("{}{}", self.prefix, hex::encode(crate::secret::random_bytes::<4>()?));
        let (uplink, owned) = (self.uplink.clone(), Arc::clone(&self.owned));
        on_own_thread(move || make(name, uplink, owned)).await
    }

    /// Takes up a slot that exists.
    pub(crate) fn open(&self, name: &str) -> Result<Slot> {
        let path = path_of(name);
        let namespace = File::open(&path).map_err(|error| slot_error(&path, "open", error))?;
        self.owned.lock().insert(name.to_owned());
        Ok(Slot {
            name: name.to_owned(),
            path,
            namespace: Arc::new(namespace),
            uplink: self.uplink.clone(),
            linked: Arc::new(AtomicBool::new(true)), // who made it may have opened it
            owned: Arc::clone(&self.owned),
        })
    }

    /// What a named namespace has.
    pub(crate) async fn probe(&self, name: &str) -> Result<SlotProbe> {
        let path = path_of(name);
        on_own_thread(move || probe(&path)).await
    }

    /// The names that exist on the host and that nobody in this process answers for.
    pub(crate) fn orphans(&self) -> Result<Vec<String>> {
        let existing = self.existing()?; // before the owned ones: a new slot must not look like an orphan
        let owned = self.owned.lock();
        Ok(existing.into_iter().filter(|name| !owned.contains(name)).collect())
    }

    /// The same names as a new process sees them: nobody answers for any.
    #[cfg(test)]
    pub(crate) fn forgotten(&self) -> Self {
        Self { owned: Arc::default(), ..self.clone() }
    }

    /// The names of this node's that exist on the host.
    pub(crate) fn existing(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(NETNS_DIR) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(slot_error(Path::new(NETNS_DIR), "list", error)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.starts_with(&self.prefix)).collect())
    }

    /// Removes a slot by its name, whatever state it is in. Idempotent.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.uplink.as_ref().map_or(Ok(()), |uplink| uplink.disconnect(name))?;
        unmount(&path_of(name))?;
        self.owned.lock().remove(name);
        Ok(())
    }

    /// What the uplink's namespace has of this node; `None` for a node without uplink.
    pub(crate) async fn probe_uplink(&self) -> Result<Option<UplinkProbe>> {
        match &self.uplink {
            Some(uplink) => uplink.probe().await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether somebody in this process answers for the slot of a link in the uplink's namespace.
    pub(crate) fn owns_link(&self, link: &str) -> bool {
        let slots = self.owned.lock();
        self.uplink.as_ref().is_some_and(|uplink| slots.iter().any(|slot| uplink.link_of(slot) == link))
    }

    /// Keeps the uplink's firewall in line with the pairs that there are.
    pub(crate) async fn tidy_uplink(&self) -> Result<()> {
        match &self.uplink {
            Some(uplink) => uplink.tidy().await,
            None => Ok(()),
        }
    }
}

/// Eight digits that tell a node from others on the same host.
fn node_of(data_dir: &Path) -> String {
    hex::encode(&Sha256::digest(data_dir.as_os_str().as_encoded_bytes())[..4])
}

impl Slot {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's file, as a VMM wants it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The namespace, to enter it.
    pub(crate) fn namespace(&self) -> Arc<File> {
        Arc::clone(&self.namespace)
    }

    /// Connects the slot to the uplink, if it is not yet.
    ///
    /// # Errors
    /// `Unsupported` on a node without uplink; those of [`Uplink::connect`].
    pub(super) async fn connect(&self) -> Result<()> {
        let Some(uplink) = &self.uplink else {
            return Err(
                Error::new(ErrorKind::Unsupported, "uplink", self.name.as_str()).detail("this node has none")
            );
        };
        if self.may_be_connected() && uplink.is_connected(&self.name).await? {
            return Ok(());
        }
        self.linked.store(true, Ordering::Release); // before it is: whatever is left half way must be looked for
        uplink.connect(self).await.map(drop)
    }

    /// Whether there may be a pair of links to the uplink: if not, nobody ever asked for one.
    pub(super) fn may_be_connected(&self) -> bool {
        self.linked.load(Ordering::Acquire)
    }

    /// Takes the name away, and the pair of links; the kernel takes the rest with the last socket and process.
    /// Idempotent.
    pub(crate) fn remove(&self) -> Result<()> {
        if let (true, Some(uplink)) = (self.may_be_connected(), &self.uplink) {
            uplink.disconnect(&self.name)?;
            self.linked.store(false, Ordering::Release);
        }
        unmount(&self.path)?;
        self.owned.lock().remove(&self.name);
        Ok(())
    }
}

impl Owned {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that a thread made and that must be unmade when nobody takes it.
pub(super) trait Unwanted {
    fn discard(self);
}

impl Unwanted for Slot {
    fn discard(self) {
        if let Err(error) = self.remove() {
            tracing::warn!(slot = self.name, %error, "a cancelled network slot was left to the reaper");
        }
    }
}

impl Unwanted for SlotProbe {
    fn discard(self) {}
}

impl Unwanted for bool {
    fn discard(self) {}
}

impl Unwanted for () {
    fn discard(self) {}
}

/// Runs work that changes the namespace of its thread, on a thread that ends with it.
pub(super) async fn on_own_thread<T: Unwanted + Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (report, outcome) = oneshot::channel();
    let body = move || {
        // Nobody waits any more: a cancelled create.
        if let Err(Ok(made)) = report.send(work()) {
            made.discard();
        }
    };
    let thread = std::thread::Builder::new().name("fl-netns".into()).spawn(body);
    thread.map_err(|error| crate::paths::io_error("thread", "fl-netns", "start", error))?;
    outcome
        .await
        .map_err(|_| slot_error(Path::new(NETNS_DIR), "make", io::Error::other("the worker died")))?
}

/// Enters a namespace with the calling thread: only for threads that belong to nobody else.
pub(super) fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

/// Makes a slot; the calling thread is spent afterwards.
fn make(name: String, uplink: Option<Uplink>, owned: Arc<Owned>) -> Result<Slot> {
    let path = path_of(&name);
    nix::sched::unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|error| slot_error(&path, "unshare", error.into()))?;
    link::configure()?;
    firewall::apply()?;
    let own = Path::new("/proc/thread-self/ns/net");
    let namespace = File::open(own).map_err(|error| slot_error(&path, "open", error))?;
    owned.lock().insert(name.clone());
    if let Err(error) = publish(own, &path) {
        owned.lock().remove(&name);
        return Err(error);
    }
    Ok(Slot { name, path, namespace: Arc::new(namespace), uplink, linked: Arc::default(), owned })
}

/// Looks into a namespace; the calling thread is spent afterwards.
fn probe(path: &Path) -> Result<SlotProbe> {
    let nothing = SlotProbe { mounted: false, tap: false, firewall: false };
    // A file that no namespace is mounted on, or that went away meanwhile.
    let Ok(namespace) = File::open(path) else { return Ok(nothing) };
    if enter(namespace.as_fd()).is_err() {
        return Ok(nothing);
    }
    let tap = nix::net::if_::if_nametoindex(super::TAP).is_ok();
    Ok(SlotProbe { mounted: true, tap, firewall: firewall::is_applied()? })
}

/// Gives the namespace its name: a file that it is mounted on.
fn publish(namespace: &Path, path: &Path) -> Result<()> {
    std::fs::create_dir_all(NETNS_DIR).map_err(|error| slot_error(path, "create", error))?;
    File::create_new(path).map_err(|error| slot_error(path, "create", error))?;
    let none: Option<&str> = None;
    nix::mount::mount(Some(namespace), path, none, MsFlags::MS_BIND, none).map_err(|error| {
        let _ = std::fs::remove_file(path); // the mount's failure is what to tell
        slot_error(path, "mount", error.into())
    })
}

fn unmount(path: &Path) -> Result<()> {
    use nix::errno::Errno;
    match nix::mount::umount2(path, MntFlags::MNT_DETACH) {
        // Not a mount point, or gone: somebody was here before.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(slot_error(path, "unmount", error.into())),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(slot_error(path, "remove", error)),
        _ => Ok(()),
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

fn slot_error(path: &Path, operation: &'static str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    };
    let detail = error.to_string();
    Error::new(kind, "network slot", path.display().to_string())
        .operation(operation)
        .detail(detail)
        .source(error)
}
