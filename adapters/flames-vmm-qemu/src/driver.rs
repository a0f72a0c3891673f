//! The driver: from a spec to a process that waits, or from a handle to a VM that was left running.

use crate::command::command_line;
use crate::config::QemuConfig;
use crate::files;
use crate::host::{self, Host, HostFacts};
use crate::left::Left;
use crate::process::{self, Launch, Place};
use crate::programs::in_data;
use crate::snapshot;
use crate::view::View;
use crate::vm::{Attach, Prepared, Then, Vm};
use async_trait::async_trait;
use flames_vmm::jail::{
    Belongings, Cage, Cgroups, Held, JailConfig, Lease, LeaseError, Needs, Net, Room, Stock, open_to_others,
};
use flames_vmm::log;
use flames_vmm::process::Process;
use flames_vmm::{
    Capabilities, DiskAccess, Error, ErrorKind, Network, PrepareFor, PreparedVm, Result, Retry, RunningVm,
    VmHandle, VmSpec, VmmDriver,
};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

/// Runs microVMs in QEMU without hardware virtualisation.
#[derive(Debug)]
pub struct QemuDriver {
    config: QemuConfig,
    host: Arc<OnceCell<Host>>,
    rooms: Arc<Stock<Room>>,
}

pub(crate) const NAME: &str = "qemu";

impl QemuDriver {
    /// Inside a runtime it begins to look at the host at once, so that the first VM need not wait for that.
    pub fn new(config: QemuConfig) -> Self {
        let (host, rooms) = (Arc::default(), Stock::new(config.jail.ready));
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(look_ahead(Arc::clone(&host), config.clone()));
        }
        Self { config, host, rooms }
    }

    /// What this driver found out about the host; looking takes about 50 ms, once.
    ///
    /// # Errors
    /// `Unavailable` if QEMU is not installed, or VMs cannot be jailed as the configuration demands.
    pub async fn host(&self) -> Result<&HostFacts> {
        Ok(&self.found().await?.facts)
    }

    async fn found(&self) -> Result<&Host> {
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

    /// Refuses what QEMU would only half understand. For a restore it gives the device state to start from.
    async fn check(&self, spec: &VmSpec, purpose: &PrepareFor) -> Result<Option<File>> {
        spec.check(&self.capabilities()).await?;
        if !files::fits_sockets(&spec.run_dir) {
            let run_dir = spec.run_dir.display().to_string();
            return Err(Error::new(ErrorKind::InvalidInput, "run directory", run_dir)
                .detail("too long for the path of a unix socket inside it"));
        }
        match purpose {
            PrepareFor::Boot => spec.check_kernel().await.map(|()| None),
            PrepareFor::Restore(parts) => {
                snapshot::open(parts, spec, &self.host().await?.version).await.map(Some)
            }
        }
    }

    /// Starts the process and writes down what there is to be given back after it.
    async fn start(
        &self,
        spec: &VmSpec,
        purpose: &PrepareFor,
        device_state: Option<File>,
    ) -> Result<(Process, Held)> {
        let broken = |what: &str, error: io::Error| unavailable(spec.id.as_str(), what, error);
        let host = self.found().await?;
        let room = match &host.jail {
            Some(cgroups) => Some(self.room(spec, host, cgroups).await?),
            None => None,
        };
        let mut launch = self.launch(spec, purpose, host, room)?;
        launch.device_state = device_state;
        launch.sockets =
            files::bind_sockets(&spec.run_dir).map_err(|error| broken("cannot bind its sockets", error))?;
        let (started, lease) = match process::start(launch).await {
            Ok(started) => started,
            Err(error) => {
                files::remove_live_files(&spec.run_dir);
                let said = log::tail(&spec.run_dir.join(files::VMM_LOG)).await;
                return Err(broken(&format!("cannot start QEMU: {said}"), error));
            }
        };
        let held = match lease {
            Some(lease) => lease.hand_over(started.pid()),
            None => Ok(Held::default()),
        };
        let held = held.map_err(|error| broken("cannot note its user id", error))?;
        let left_over = at_end(&spec.run_dir, held.clone());
        let process = started.watch(left_over).map_err(|error| broken("cannot watch its process", error))?;
        let handle = process.handle(NAME, &spec.id, &spec.run_dir);
        let left = Left { handle, console_limit_bytes: spec.console_limit_bytes, held: held.clone() };
        left.write().await.map_err(|error| broken("cannot write its handle", error))?;
        Ok((process, held))
    }

    /// A jail that is ready, or a new one, with the limits for this VM.
    async fn room(&self, spec: &VmSpec, host: &Host, cgroups: &Cgroups) -> Result<Room> {
        let (ready, make) = (self.rooms.take(), maker(&self.config.jail, host, cgroups));
        let (config, cgroups, needs) = (self.config.jail.clone(), cgroups.clone(), self.needs(spec));
        let furnish = move || {
            let room = ready.map_or_else(make, Ok)?;
            room.lease().limit(&config, &cgroups, &needs)?;
            Ok(room)
        };
        let made: std::result::Result<Room, NoRoom> = tokio::task::spawn_blocking(furnish)
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error).into()));
        made.map_err(|error| unavailable(spec.id.as_str(), "it cannot be jailed", error))
    }

    /// Makes jails for VMs to come.
    fn make_ready(&self) {
        if let Some(host) = self.host.get()
            && let Some(cgroups) = &host.jail
        {
            let make = maker(&self.config.jail, host, cgroups);
            self.rooms.fill(move || make().ok());
        }
    }

    fn needs(&self, spec: &VmSpec) -> Needs {
        let writable = spec.disks.iter().filter(|disk| disk.access == DiskAccess::ReadWrite);
        Needs {
            memory_bytes: spec.memory.bytes()
                + (u64::from(self.config.translation_buffer_mib + QEMU_MIB) << 20),
            vcpus: spec.vcpus,
            other_threads: OTHER_THREADS,
            disks: writable.map(|disk| disk.path.clone()).collect(),
        }
    }

    fn launch(&self, spec: &VmSpec, purpose: &PrepareFor, host: &Host, room: Option<Room>) -> Result<Launch> {
        let view = View::new(spec, purpose)?;
        let mut config = self.config.clone();
        let mut arguments: Vec<OsString> = Vec::new();
        let net = net(&spec.network, room.is_some());
        let (view, place) = match room {
            Some(room) => {
                let broken =
                    |error: io::Error| unavailable(spec.id.as_str(), "cannot furnish its jail", error);
                let view = view.in_a_jail(&host.facts);
                if let PrepareFor::Restore(parts) = purpose {
                    open_to_others(&parts.memory, host.access_to_memory()).map_err(broken)?;
                }
                // Where QEMU looks by itself depends on /proc, which is not in the jail.
                config.firmware = in_data(&config.firmware, &host.programs.data).unwrap_or(config.firmware);
                for folder in &host.programs.data {
                    arguments.extend(["-L".into(), folder.into()]);
                }
                let owner = room.lease().uid();
                let own = Belongings::gather(&net, &view.mounts, &view.devices(), owner).map_err(broken)?;
                (view, Place::Jail(room, own))
            }
            None => (view.on_the_host(&host.programs.qemu, &host.facts), Place::Open(net)),
        };
        arguments.extend(view.arguments());
        arguments.extend(command_line(&view.spec, &view.purpose, &host.facts, &config).arguments);
        Ok(Launch {
            program: host.programs.qemu.clone(),
            arguments,
            run_dir: spec.run_dir.clone(),
            sockets: Vec::new(),
            device_state: None,
            disks: view.disks,
            place,
            openable: view.openable,
        })
    }

    /// Connects to the process, and meanwhile moves it into its control groups.
    async fn attach(&self, spec: &VmSpec, process: Process, held: Held) -> Result<Vm> {
        let pid = process.pid();
        let limiting = tokio::task::spawn_blocking(move || held.join(pid));
        let vm = Vm::attach(
            &spec.run_dir,
            process,
            self.attachment(spec.id.clone(), spec.console_limit_bytes).await?,
        )
        .await?;
        let limited = limiting.await.map_err(io::Error::other).and_then(|limited| limited);
        match limited {
            Ok(()) => Ok(vm),
            Err(error) => {
                vm.end().await;
                Err(unavailable(spec.id.as_str(), "cannot limit it", error))
            }
        }
    }

    async fn attachment(&self, id: flames_vmm::VmId, console_limit: u64) -> Result<Attach> {
        let host = self.found().await?;
        let clones = host.jail.is_some().then(|| host.access_to_memory());
        Ok(Attach { id, console_limit, timeout: self.config.command_timeout(), clones })
    }
}

/// What QEMU takes beside the guest's memory and the buffer of translated code, in MiB.
const QEMU_MIB: u32 = 64;
/// Its own threads beside the virtual CPUs': up to 64 wait for files at once, and it ends when it gets none.
const OTHER_THREADS: u32 = 80;

#[async_trait]
impl VmmDriver for QemuDriver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            snapshots: true,
            hardware_virtualisation: false,
            user_network: true,
            max_vcpus: self.config.max_vcpus,
            max_memory: self.config.max_memory(),
        }
    }

    async fn version(&self) -> Result<String> {
        Ok(self.host().await?.version.clone())
    }

    async fn prepare(&self, spec: VmSpec, purpose: PrepareFor) -> Result<Box<dyn PreparedVm>> {
        let says_who = |error: Error| error.adapter(NAME).operation("prepare");
        let device_state = self.check(&spec, &purpose).await.map_err(says_who)?;
        let started = self.start(&spec, &purpose, device_state).await;
        let vm = match started {
            Ok((process, held)) => self.attach(&spec, process, held).await,
            Err(error) => Err(error),
        };
        self.make_ready();
        let vm = vm.map_err(says_who)?;
        let then = match purpose {
            PrepareFor::Boot => Then::Boot { greeting: spec.boot_channel.greeting },
            PrepareFor::Restore(parts) => {
                vm.load_devices(&parts).await?;
                Then::Restore
            }
        };
        Ok(Box::new(Prepared::new(vm, then)))
    }

    async fn adopt(&self, handle: &VmHandle) -> Result<Option<Box<dyn RunningVm>>> {
        let says_who = |error: Error| error.adapter(NAME).operation("adopt");
        if handle.driver != NAME {
            return Err(says_who(
                Error::new(ErrorKind::InvalidInput, "vm", handle.id.as_str())
                    .detail(format!("belongs to the driver `{}`", handle.driver)),
            ));
        }
        let left = Left::read_or_guess(handle).await;
        let found = Process::adopt(handle, at_end(&handle.run_dir, left.held.clone()))
            .map_err(|error| says_who(unavailable(handle.id.as_str(), "cannot watch its process", error)))?;
        let Some(process) = found else {
            if left.handle == *handle {
                left.held.give_back();
            }
            return Ok(None);
        };
        let with = self.attachment(handle.id.clone(), left.console_limit_bytes).await.map_err(says_who)?;
        let vm = Vm::attach_again(&handle.run_dir, process, with).await.map_err(says_who)?;
        Ok(Some(Box::new(vm)))
    }
}

/// Why there is no jail for a VM.
#[derive(Debug, thiserror::Error)]
enum NoRoom {
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error("cannot make its jail: {0}")]
    Room(#[from] io::Error),
}

/// What makes a jail for any VM.
fn maker(
    config: &JailConfig,
    host: &Host,
    cgroups: &Cgroups,
) -> impl Fn() -> std::result::Result<Room, NoRoom> + Send + 'static {
    let (config, cgroups) = (config.clone(), cgroups.clone());
    let cage = Cage { over: config.claims.clone(), mounts: host.programs.files.clone() };
    move || Ok(Room::make(Lease::take(&config, &cgroups)?, cage.clone())?)
}

/// What is done when the process is gone.
fn at_end(run_dir: &std::path::Path, held: Held) -> impl FnOnce() + Send + 'static {
    let run_dir = run_dir.to_owned();
    move || {
        files::remove_live_files(&run_dir);
        held.give_back();
    }
}

/// What fails here fails again, and is told, where somebody needs it.
async fn look_ahead(host: Arc<OnceCell<Host>>, config: QemuConfig) {
    let _told_later = host.get_or_try_init(|| host::find(&config)).await;
}

/// A QEMU that forwards a port of the host's must be where that port is.
fn net(network: &Network, jailed: bool) -> Net {
    match network {
        Network::Tap { netns, .. } => Net::Named(netns.clone()),
        Network::None if jailed => Net::Own,
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
