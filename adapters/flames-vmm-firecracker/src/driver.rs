//! The driver: from a spec to a process that waits, or from a handle to a VM that was left running.

use crate::config::{FirecrackerConfig, RestoreMemory};
use crate::faults::{self, Handler, Listening, Wanted};
use crate::files;
use crate::host::{self, Host};
use crate::jail::{self, Item};
use crate::left::{Left, Resources};
use crate::machine;
use crate::process::{self, Confinement, Launch};
use crate::snapshot;
use crate::vm::{Attach, Prepared, Purpose, Tracked, Vm};
use async_trait::async_trait;
use flames_vmm::jail::{Access, Cgroups, Held, JailMode, Lease, LeaseError, Needs, Net, Stock};
use flames_vmm::process::{Process, Started};
use flames_vmm::{
    Capabilities, DiskAccess, Error, ErrorKind, Network, PrepareFor, PreparedVm, Result, Retry, RunningVm,
    SnapshotParts, VmHandle, VmSpec, VmmDriver,
};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Runs microVMs in Firecracker, each in a jail of its own.
#[derive(Debug)]
pub struct FirecrackerDriver {
    config: Arc<FirecrackerConfig>,
    host: OnceCell<Host>,
    stand_in: Option<StandIn>,
    leases: Arc<Stock<Lease>>,
}

/// A snapshot that stands for the boot of a kernel.
#[derive(Clone, Debug)]
struct StandIn {
    kernel: PathBuf,
    parts: SnapshotParts,
}

pub(crate) const NAME: &str = "firecracker";

impl FirecrackerDriver {
    /// A driver without a jail says so, loudly.
    pub fn new(config: FirecrackerConfig) -> Self {
        if config.jail.mode == JailMode::NoneInsecure {
            tracing::warn!(
                "VMS RUN WITHOUT A JAIL: a guest that breaks out of Firecracker is the daemon's user"
            );
        }
        let leases = Stock::new(config.jail.ready);
        Self { config: Arc::new(config), host: OnceCell::new(), stand_in: None, leases }
    }

    /// Continues a snapshot wherever this kernel would be booted. The guest must have been waiting for its
    /// greeting. For tests on hosts where a boot takes half a minute.
    #[doc(hidden)]
    #[must_use]
    pub fn standing_in(mut self, kernel: PathBuf, parts: SnapshotParts) -> Self {
        self.stand_in = Some(StandIn { kernel, parts });
        self
    }

    async fn host(&self) -> Result<&Host> {
        self.host.get_or_try_init(|| host::find(&self.config)).await.map_err(|error| {
            let binary = self.config.binary.display().to_string();
            Error::new(ErrorKind::Unavailable, "vmm", binary)
                .adapter(NAME)
                .operation("version")
                .detail(error.to_string())
                .retry(Retry::Never)
                .source(error)
        })
    }

    /// Refuses what Firecracker would only half understand.
    async fn check(&self, spec: &VmSpec, parts: Option<&SnapshotParts>) -> Result<()> {
        spec.check(&self.capabilities()).await?;
        if !files::fits_socket(&spec.run_dir) {
            let run_dir = spec.run_dir.display().to_string();
            return Err(Error::new(ErrorKind::InvalidInput, "run directory", run_dir)
                .detail("too long for the path of a unix socket inside it"));
        }
        match parts {
            Some(parts) => parts.check(spec.memory, &self.version().await?).await,
            None => spec.check_kernel().await,
        }
    }

    fn stand_in(&self, spec: &VmSpec) -> Option<SnapshotParts> {
        let stand_in = self.stand_in.as_ref().filter(|stand_in| stand_in.kernel == spec.kernel);
        stand_in.map(|stand_in| stand_in.parts.clone())
    }

    /// Starts the process and writes down what there is to be given back after it.
    async fn start(
        &self,
        spec: &VmSpec,
        parts: Option<&SnapshotParts>,
    ) -> Result<(Process, Resources, Option<Handler>)> {
        let host = self.host().await?;
        let broken = |what: &str, error: std::io::Error| unavailable(spec.id.as_str(), what, error);
        let lease = match &host.jail {
            Some(cgroups) => Some(self.lease(spec, cgroups).await?),
            None => None,
        };
        let jailed_as = lease.as_ref().map(|_| (host.firecracker.as_path(), spec.id.as_str()));
        let mut resources = Resources {
            run_dir: spec.run_dir.clone(),
            cage: files::cage(&spec.run_dir, jailed_as),
            held: Held::default(),
            handler: None,
        };
        let uid = lease.as_ref().map(Lease::uid);
        let started = async {
            let launch = self.launch(spec, parts, host, &resources.cage, uid);
            let launch = launch.map_err(|error| broken("cannot furnish its jail", error))?;
            let started = process::start(launch).await.map_err(|error| broken("cannot start it", error))?;
            let handler = self.handler(spec, parts, host, &resources.cage, uid, &started).await?;
            Ok((started, handler))
        };
        let started = match started.await {
            Ok(started) => started,
            Err(error) => {
                resources.give_back();
                return Err(error);
            }
        };
        let (started, handler) = started;
        resources.handler = handler.as_ref().map(|listening| listening.left.clone());
        if let Some(lease) = lease {
            let held = lease.hand_over(started.pid());
            resources.held = held.map_err(|error| broken("cannot note its user id", error))?;
        }
        let at_end = resources.clone();
        let process = started.watch(move || at_end.give_back());
        let process = process.map_err(|error| broken("cannot watch its process", error))?;
        let handle = process.handle(NAME, &spec.id, &spec.run_dir);
        let left =
            Left { handle, console_limit_bytes: spec.console_limit_bytes, resources: resources.clone() };
        left.write().await.map_err(|error| broken("cannot write its handle", error))?;
        Ok((process, resources, handler.map(|listening| listening.handler)))
    }

    /// The page-fault handler, for a guest whose memory comes from one.
    async fn handler(
        &self,
        spec: &VmSpec,
        parts: Option<&SnapshotParts>,
        host: &Host,
        cage: &Path,
        uid: Option<u32>,
        vmm: &Started,
    ) -> Result<Option<Listening>> {
        let Some(parts) = parts.filter(|_| self.config.restore_memory() == RestoreMemory::Userfaultfd) else {
            return Ok(None);
        };
        let lease = match &host.jail {
            Some(cgroups) => Some(self.lease_for(spec, cgroups, HANDLER_NEEDS).await?),
            None => None,
        };
        let started = async {
            let (listener, pidfd) = (faults::listen(cage, uid)?, vmm.pidfd()?);
            let wanted = Wanted { run_dir: &spec.run_dir, listener, memory: &parts.memory, pidfd, lease };
            faults::start(&self.config, wanted).await
        };
        let listening = started.await;
        listening
            .map(Some)
            .map_err(|error| unavailable(spec.id.as_str(), "cannot serve its page faults", error))
    }

    /// A user id and control groups that are ready, or new ones, with the limits for this VM.
    async fn lease(&self, spec: &VmSpec, cgroups: &Cgroups) -> Result<Lease> {
        self.lease_for(spec, cgroups, needs(spec)).await
    }

    async fn lease_for(&self, spec: &VmSpec, cgroups: &Cgroups, needs: Needs) -> Result<Lease> {
        let (config, cgroups) = (self.config.jail.clone(), cgroups.clone());
        let ready = self.leases.take();
        let taken = tokio::task::spawn_blocking(move || {
            let lease = ready.map_or_else(|| Lease::take(&config, &cgroups), Ok)?;
            lease.limit(&config, &cgroups, &needs).map(|()| lease)
        });
        let taken =
            taken.await.unwrap_or_else(|error| Err(LeaseError::Cgroups(std::io::Error::other(error))));
        taken.map_err(|error| unavailable(spec.id.as_str(), "it cannot be jailed", error))
    }

    /// Makes leases for VMs to come.
    fn make_ready(&self) {
        if let Some(Host { jail: Some(cgroups), .. }) = self.host.get() {
            let (config, cgroups) = (self.config.jail.clone(), cgroups.clone());
            self.leases.fill(move || Lease::take(&config, &cgroups).ok());
        }
    }

    fn launch(
        &self,
        spec: &VmSpec,
        parts: Option<&SnapshotParts>,
        host: &Host,
        cage: &Path,
        uid: Option<u32>,
    ) -> std::io::Result<Launch> {
        if let (Some(parts), Some(_)) = (parts, uid) {
            snapshot::make_readable(parts)?;
        }
        let mounts = jail::furnish(&spec.run_dir, cage, &self.items(spec, parts), uid)?;
        let net = net(&spec.network, uid.is_some());
        let run_dir = spec.run_dir.clone();
        let Some(uid) = uid else {
            let mut arguments: Vec<OsString> = vec!["--id".into(), spec.id.as_str().into()];
            arguments.extend(self.own_arguments());
            return Ok(Launch {
                program: host.firecracker.clone(),
                arguments,
                folder: cage.to_owned(),
                run_dir,
                executable: host.firecracker.clone(),
                confinement: Confinement::Open { net },
            });
        };
        let mut arguments = jail::jailer_arguments(&spec.id, &host.firecracker, &run_dir, uid);
        arguments.extend(self.own_arguments());
        Ok(Launch {
            program: host.jailer.clone(),
            arguments,
            folder: run_dir.clone(),
            run_dir,
            executable: Path::new("/").join(host.firecracker.file_name().unwrap_or_default()),
            confinement: Confinement::Jail { net, mounts, uid },
        })
    }

    /// What the cage holds.
    fn items(&self, spec: &VmSpec, parts: Option<&SnapshotParts>) -> Vec<Item> {
        let item =
            |name: &str, file: &Path, access| Item { name: name.to_owned(), file: file.to_owned(), access };
        let mut items = vec![];
        match parts {
            Some(parts) => {
                if self.config.restore_memory() == RestoreMemory::File {
                    items.push(item(files::MEMORY, &parts.memory, Access::Read));
                }
                items.push(item(files::STATE, &parts.device_state, Access::Read));
            }
            None => items.push(item(files::KERNEL, &spec.kernel, Access::Read)),
        }
        for (index, disk) in spec.disks.iter().enumerate() {
            let access = match disk.access {
                DiskAccess::ReadOnly => Access::Read,
                DiskAccess::ReadWrite => Access::Write,
            };
            items.push(item(&files::disk(index), &disk.path, access));
        }
        items.extend(self.config.seccomp_filter.iter().map(|file| item(files::SECCOMP, file, Access::Read)));
        items
    }

    /// Firecracker's own arguments. It logs what the driver listens for at the level Info.
    fn own_arguments(&self) -> Vec<OsString> {
        let paths = ["--api-sock", files::API, "--log-path", files::LOG_PIPE, "--level", "Info"];
        let mut arguments: Vec<OsString> = paths.map(OsString::from).into();
        arguments.extend(["--metrics-path", files::METRICS_PIPE].map(OsString::from));
        if self.config.seccomp_filter.is_some() {
            arguments.extend(["--seccomp-filter", files::SECCOMP].map(OsString::from));
        }
        arguments
    }

    /// Connects to the process and sets its machine up.
    async fn set_up(
        &self,
        spec: &VmSpec,
        purpose: Purpose,
        tracked: Option<Tracked>,
        (process, resources, handler): (Process, Resources, Option<Handler>),
    ) -> Result<Prepared> {
        let (pid, held) = (process.pid(), resources.held.clone());
        // Meanwhile the jailer does its work.
        let limiting = tokio::task::spawn_blocking(move || held.join(pid));
        let with =
            self.attachment(spec.id.clone(), resources, handler, tracked, spec.console_limit_bytes).await?;
        let vm = Vm::attach(with, process).await?;
        if let Err(error) = limiting.await.map_err(std::io::Error::other).and_then(|limited| limited) {
            vm.end().await;
            return Err(unavailable(spec.id.as_str(), "cannot limit it", error));
        }
        let settings = match purpose {
            Purpose::Boot { .. } => machine::for_boot(spec, &self.config),
            Purpose::BootClone { .. } | Purpose::Restore { .. } => machine::for_restore(&self.config),
        };
        let settings = settings.map_err(|error| {
            Error::new(ErrorKind::Internal, "vm", spec.id.as_str())
                .detail("its settings are no JSON")
                .source(error)
        })?;
        vm.set(&settings).await?;
        Ok(Prepared::new(vm, purpose))
    }

    /// A guest that booted differs from nothing yet.
    fn tracked(&self, parts: Option<&SnapshotParts>) -> Result<Option<Tracked>> {
        if !self.config.track_dirty_pages {
            return Ok(None);
        }
        let Some(parts) = parts else { return Ok(Some(Tracked::default())) };
        let memory = parts.memory.display().to_string();
        let tracked = Tracked::since(&parts.memory);
        tracked.map(Some).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "snapshot part", memory).detail(error.to_string())
        })
    }

    async fn attachment(
        &self,
        id: flames_vmm::VmId,
        resources: Resources,
        handler: Option<Handler>,
        tracked: Option<Tracked>,
        console_limit: u64,
    ) -> Result<Attach> {
        Ok(Attach {
            id,
            resources,
            handler,
            tracked,
            version: self.version().await?,
            console_limit,
            config: self.config.clone(),
        })
    }

    async fn adopt_here(&self, handle: &VmHandle) -> Result<Option<Box<dyn RunningVm>>> {
        let id = handle.id.as_str();
        if handle.driver != NAME {
            return Err(Error::new(ErrorKind::InvalidInput, "vm", id)
                .detail(format!("belongs to the driver `{}`", handle.driver)));
        }
        // Without it the VM is gone, or never came to be: its last act is to take the file away.
        let Ok(left) = Left::read(handle).await else { return Ok(None) };
        let resources = left.resources.clone();
        let found = Process::adopt(handle, move || resources.give_back())
            .map_err(|error| unavailable(id, "cannot watch its process", error))?;
        let Some(process) = found else {
            // Its page-fault handler ends by itself.
            if left.handle == *handle {
                left.resources.give_back();
            }
            return Ok(None);
        };
        let handler = left.resources.handler.as_ref().map(Handler::adopt).transpose();
        let handler =
            handler.map_err(|error| unavailable(id, "cannot watch its page-fault handler", error))?;
        let with = self
            .attachment(
                handle.id.clone(),
                left.resources,
                handler,
                self.tracked(None)?,
                left.console_limit_bytes,
            )
            .await?;
        Ok(Some(Box::new(Vm::attach_again(with, process).await?)))
    }
}

#[async_trait]
impl VmmDriver for FirecrackerDriver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            snapshots: true,
            hardware_virtualisation: true,
            user_network: false,
            max_vcpus: self.config.max_vcpus,
            max_memory: self.config.max_memory(),
        }
    }

    async fn version(&self) -> Result<String> {
        Ok(self.host().await?.release.to_string())
    }

    async fn prepare(&self, spec: VmSpec, purpose: PrepareFor) -> Result<Box<dyn PreparedVm>> {
        let says_who = |error: Error| error.adapter(NAME).operation("prepare");
        let parts = match &purpose {
            PrepareFor::Restore(parts) => Some(parts.clone()),
            PrepareFor::Boot => self.stand_in(&spec),
        };
        self.check(&spec, parts.as_ref()).await.map_err(says_who)?;
        let tracked = self.tracked(parts.as_ref()).map_err(says_who)?;
        let started = self.start(&spec, parts.as_ref()).await.map_err(says_who)?;
        let load = || machine::load(&spec.network, &self.config);
        let greeting = spec.boot_channel.greeting.clone();
        let purpose = match (purpose, parts) {
            (PrepareFor::Restore(parts), _) => Purpose::Restore { load: load(), parts },
            (PrepareFor::Boot, Some(_)) => Purpose::BootClone { load: load(), greeting },
            (PrepareFor::Boot, None) => Purpose::Boot { greeting },
        };
        let prepared = self.set_up(&spec, purpose, tracked, started).await;
        self.make_ready();
        Ok(Box::new(prepared.map_err(says_who)?))
    }

    async fn adopt(&self, handle: &VmHandle) -> Result<Option<Box<dyn RunningVm>>> {
        self.adopt_here(handle).await.map_err(|error| error.adapter(NAME).operation("adopt"))
    }
}

/// Firecracker's own threads beside the virtual CPUs', and room for the jailer's.
const OTHER_THREADS: u32 = 16;

/// A page-fault handler has one thread, and a buffer; what it reads is the host's cache, which can be taken back.
const HANDLER_NEEDS: Needs = Needs { memory_bytes: 32 << 20, vcpus: 1, other_threads: 1, disks: Vec::new() };

fn needs(spec: &VmSpec) -> Needs {
    let writable = spec.disks.iter().filter(|disk| disk.access == DiskAccess::ReadWrite);
    Needs {
        memory_bytes: spec.memory.bytes(),
        vcpus: spec.vcpus,
        other_threads: OTHER_THREADS,
        disks: writable.map(|disk| disk.path.clone()).collect(),
    }
}

fn net(network: &Network, jailed: bool) -> Net {
    match network {
        Network::Tap { netns, .. } => Net::Named(netns.clone()),
        Network::None | Network::User { .. } if jailed => Net::Own,
        Network::None | Network::User { .. } => Net::Host,
    }
}

pub(crate) fn unavailable(
    id: &str,
    what: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::new(ErrorKind::Unavailable, "vm", id).detail(format!("{what}: {error}")).source(error)
}
