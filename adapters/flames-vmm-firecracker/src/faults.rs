//! A restored VM's page-fault handler: started beside its Firecracker, watched, and ended with it.
//!
//! What the two say to each other is in [`flames_vmm::faults`]. The socket is bound here before either starts, so nobody
//! waits for it. The order in which the first guest of a snapshot touches its pages comes back through a pipe, is looked
//! at like anything that a stranger says, and is kept beside the snapshot's memory for the guests after it.
//!
//! A guest whose handler has died hangs at the next page that it lacks. Its Firecracker is therefore ended at once, and
//! the exit says why; a daemon that finds such a VM when it adopts it does the same.

use crate::config::FirecrackerConfig;
use crate::files;
use close_fds::set_fds_cloexec;
use command_fds::{CommandFdExt, FdMapping};
use flames_vmm::faults::{HandlerJail, LISTENER, MEMORY, Orders, READY, VMM, WORKING_SET, WorkingSet};
use flames_vmm::jail::{Held, Lease, Net, enter_namespaces, give_up_rights};
use flames_vmm::log;
use flames_vmm::process::{Grip, Identity, Process, Started, Status, limited, spawn_on_own_thread};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;

/// The handler of one VM.
#[derive(Debug)]
pub(crate) struct Handler {
    process: Option<Arc<Process>>,
    /// How it ended, if its VMM was ended because of that.
    failed: Arc<OnceLock<Status>>,
}

/// What the next daemon must know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftHandler {
    identity: Identity,
    held: Held,
}

/// What a handler is started for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) run_dir: &'a Path,
    pub(crate) listener: UnixListener,
    /// The snapshot's memory.
    pub(crate) memory: &'a Path,
    /// Firecracker's.
    pub(crate) pidfd: OwnedFd,
    /// Whom it becomes, for one in a jail.
    pub(crate) lease: Option<Lease>,
}

/// A handler that listens.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) handler: Handler,
    pub(crate) left: LeftHandler,
}

/// Binds the socket in the cage, for Firecracker of this user alone.
pub(crate) fn listen(cage: &Path, owner: Option<u32>) -> io::Result<UnixListener> {
    use std::os::fd::AsRawFd;
    // A cage's path may be too long for a socket's.
    let folder = File::open(cage)?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(files::FAULTS);
    let listener = UnixListener::bind(short)?;
    chown(cage.join(files::FAULTS), owner, owner)?;
    Ok(listener)
}

/// Starts a handler and waits until it is confined and listens. The error of one that cannot quotes what it said.
pub(crate) async fn start(config: &FirecrackerConfig, wanted: Wanted<'_>) -> io::Result<Listening> {
    let (run_dir, memory) = (wanted.run_dir.to_owned(), wanted.memory.to_owned());
    let known = known_working_set(&memory);
    let record_ms = known.is_none().then_some(config.working_set_ms).filter(|ms| *ms > 0);
    let (answers, out) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let command = command(config, &wanted, known.as_ref(), record_ms, out)?;
    let uid = wanted.lease.as_ref().map(Lease::uid);
    set_fds_cloexec(3, &[]);
    let child = spawn_on_own_thread(move || spawn(command, uid)).await?;
    // Named, not read: one that fails at once has no program any more.
    let started = Started::find(child, Some(config.page_faults.path.clone()))?;
    let held = wanted.lease.map(|lease| lease.hand_over(started.pid())).transpose()?.unwrap_or_default();
    let (at_end, joining) = (held.clone(), held.clone());
    let process = started.watch(move || at_end.give_back())?;
    let pid = process.pid();
    let limiting = tokio::task::spawn_blocking(move || joining.join(pid));
    let mut answers = BufReader::new(pipe::Receiver::from_owned_fd(answers)?);
    let ready = tokio::time::timeout(config.command_timeout(), answers.read_u8()).await;
    if !matches!(ready, Ok(Ok(READY))) {
        process.kill();
        process.ended().await;
        let said = log::tail(&run_dir.join(files::FAULTS_LOG)).await;
        return Err(io::Error::other(format!("its page-fault handler does not start: {said}")));
    }
    limiting.await.map_err(io::Error::other)??;
    if record_ms.is_some() {
        tokio::spawn(keep_record(answers, memory));
    }
    // Only now is its root directory the one that it stays in, and with that the path of its program.
    let left = LeftHandler { identity: Identity::read(pid)?, held };
    process.outlive_the_daemon();
    let failed = Arc::default();
    Ok(Listening { handler: Handler { process: Some(Arc::new(process)), failed }, left })
}

fn command(
    config: &FirecrackerConfig,
    wanted: &Wanted<'_>,
    known: Option<&WorkingSet>,
    record_ms: Option<u64>,
    out: OwnedFd,
) -> io::Result<Command> {
    let over = wanted.run_dir.join(files::NOTHING);
    let log = File::options().create(true).append(true).open(wanted.run_dir.join(files::FAULTS_LOG))?;
    std::fs::create_dir_all(&over)?;
    let jail = wanted.lease.as_ref().map(|lease| HandlerJail { uid: lease.uid(), over });
    let orders = serde_json::to_string(&Orders { jail, record_ms })?;
    let mappings: Vec<FdMapping> = [
        (wanted.listener.try_clone()?.into(), LISTENER),
        (File::open(wanted.memory)?.into(), MEMORY),
        (wanted.pidfd.try_clone()?, VMM),
        (in_memory(known)?.into(), WORKING_SET),
    ]
    .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd })
    .into();
    let mut command = Command::new(&config.page_faults.path);
    command
        .args(&config.page_faults.arguments)
        .arg(orders)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(log)
        // A group of its own: Ctrl-C at the daemon's terminal is not for its VMs.
        .process_group(0)
        .fd_mappings(mappings)
        .map_err(io::Error::other)?;
    Ok(command)
}

fn in_memory(known: Option<&WorkingSet>) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("working-set", rustix::fs::MemfdFlags::CLOEXEC)?);
    if let Some(known) = known {
        file.write_all(&known.to_json()?)?;
        file.rewind()?;
    }
    Ok(file)
}

/// On a thread of its own: what it gives up, and the namespaces that it enters, are inherited.
fn spawn(mut command: Command, uid: Option<u32>) -> io::Result<Child> {
    match uid {
        Some(_) => enter_namespaces(&Net::Own)?,
        None => give_up_rights()?,
    }
    limited(command.spawn()?, uid)
}

impl Handler {
    /// Takes over what an earlier daemon started.
    pub(crate) fn adopt(left: &LeftHandler) -> io::Result<Self> {
        let held = left.held.clone();
        let process = Process::take_over(&left.identity, move || held.give_back())?;
        if process.is_none() {
            left.held.give_back();
        }
        Ok(Self { process: process.map(Arc::new), failed: Arc::default() })
    }

    /// Ends the VMM if this ends before it.
    pub(crate) fn guard(&self, vmm: Grip) {
        let failed = self.failed.clone();
        let Some(process) = self.process.clone() else {
            return end_hanging(&vmm, Status::Unknown, &failed);
        };
        tokio::spawn(async move {
            let status = process.ended().await;
            // It is also told when this daemon ends.
            if process.grip().is_gone() {
                end_hanging(&vmm, status, &failed);
            }
        });
    }

    /// Its VMM has ended; waits for its own end.
    pub(crate) async fn end(&self) {
        if let Some(process) = &self.process {
            process.kill();
            process.ended().await;
        }
    }

    /// How it ended, if the VMM was ended because of that.
    pub(crate) fn failed(&self) -> Option<Status> {
        self.failed.get().copied()
    }
}

fn end_hanging(vmm: &Grip, status: Status, failed: &OnceLock<Status>) {
    if !vmm.is_gone() {
        tracing::error!(
            ?status,
            "a page-fault handler ended before its VM, whose guest would hang: the VM is ended"
        );
        let _first_word_counts = failed.set(status);
        vmm.kill();
    }
}

/// Longest record that is looked at: that of a memory of 64 GiB whose every page is touched alone would be longer.
const MAX_RECORD: u64 = 16 << 20;

/// Where the working set of a snapshot's memory is kept.
fn working_set_file(memory: &Path) -> PathBuf {
    memory.with_added_extension("working-set")
}

/// What earlier guests of this memory touched first. A record that is none is removed: it is made anew.
fn known_working_set(memory: &Path) -> Option<WorkingSet> {
    let file = working_set_file(memory);
    let length = std::fs::metadata(memory).ok()?.len();
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "a working set cannot be read");
            return None;
        }
    };
    match WorkingSet::parse(&text, length) {
        Ok(set) => Some(set),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "a working set is of no use, and is made anew");
            let _gone_already = std::fs::remove_file(&file);
            None
        }
    }
}

/// Waits for what the handler recorded and keeps it, unless another guest's record is there.
async fn keep_record(from: BufReader<pipe::Receiver>, memory: PathBuf) {
    let mut text = Vec::new();
    let read = from.take(MAX_RECORD).read_until(b'\n', &mut text).await;
    if read.is_err() || text.is_empty() {
        return;
    }
    let kept = tokio::task::spawn_blocking(move || keep(&text, &memory)).await;
    if let Ok(Err(error)) = kept {
        tracing::warn!(%error, "the working set of a snapshot cannot be kept");
    }
}

fn keep(text: &[u8], memory: &Path) -> io::Result<()> {
    let set = WorkingSet::parse(text, std::fs::metadata(memory)?.len()).map_err(io::Error::other)?;
    let file = working_set_file(memory);
    let unfinished = file.with_added_extension(format!("new-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::write(&unfinished, set.to_json()?)?;
    let (at, only_once) = (rustix::fs::CWD, rustix::fs::RenameFlags::NOREPLACE);
    match rustix::fs::renameat_with(at, &unfinished, at, &file, only_once) {
        Ok(()) => Ok(()),
        Err(error) => {
            std::fs::remove_file(&unfinished)?;
            if error == rustix::io::Errno::EXIST { Ok(()) } else { Err(error.into()) }
        }
    }
}

/// Tells records apart that are being written.
static NEXT: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(folder: &Path) -> PathBuf {
        let memory = folder.join("memory");
        File::create(&memory).unwrap().set_len(1 << 20).unwrap();
        memory
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_record_is_kept_and_later_ones_leave_it_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let memory = memory(folder.path());
        assert_eq!(known_working_set(&memory), None);
        let [first, later] = [[1, 2, 9], [3, 4, 5]].map(|pages| WorkingSet::of(pages, 4096, 1 << 20));
        keep(&first.to_json().unwrap(), &memory).unwrap();
        keep(&later.to_json().unwrap(), &memory).unwrap();
        assert_eq!(known_working_set(&memory), Some(first));
        assert_eq!(names(folder.path()), ["memory", "memory.working-set"]);
    }

    #[test]
    fn what_is_no_record_is_neither_kept_nor_used_and_makes_room_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let memory = memory(folder.path());
        let of_another = WorkingSet::of([1 << 40], 4096, 1 << 60).to_json().unwrap();
        for garbage in [&b"garbage\n"[..], b"", &of_another] {
            keep(garbage, &memory).unwrap_err();
            std::fs::write(working_set_file(&memory), garbage).unwrap();
            assert_eq!(known_working_set(&memory), None);
            assert_eq!(names(folder.path()), ["memory"]);
        }
    }
}
