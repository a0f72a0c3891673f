//! One fake VMM process: its identity, its power switch, its console and its end.

use super::guest::FakeGuest;
use super::snapshot::GuestState;
use crate::spec::{Exit, ExitCause, MiB, VmHandle, VmId, VmSpec};
use crate::{CONSOLE_FILE, HANDLE_FILE};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Machine {
    id: VmId,
    pid: u32,
    run_dir: PathBuf,
    memory: MiB,
    /// The guest of the spec.
    booted: FakeGuest,
    /// The guest of a snapshot, in its place.
    restored: OnceLock<FakeGuest>,
    power: watch::Sender<Power>,
    exit: watch::Sender<Option<Exit>>,
    ticks: AtomicU64,
    asked_to_stop: watch::Sender<bool>,
    console: Mutex<String>,
    console_limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// No guest yet.
    Prepared,
    Running,
    Paused,
}

/// Stands for the control socket of a real VMM.
const SOCKET: &str = "fake.sock";
/// How much of the console an exit quotes.
const QUOTED_BYTES: usize = 2048;

impl Machine {
    pub(crate) fn new(spec: &VmSpec, pid: u32) -> Self {
        let machine = Self {
            id: spec.id.clone(),
            pid,
            run_dir: spec.run_dir.clone(),
            memory: spec.memory,
            booted: FakeGuest::of(&spec.kernel_args),
            restored: OnceLock::new(),
            power: watch::Sender::new(Power::Prepared),
            exit: watch::Sender::new(None),
            ticks: AtomicU64::new(0),
            asked_to_stop: watch::Sender::new(false),
            console: Mutex::default(),
            console_limit: usize::try_from(spec.console_limit_bytes).unwrap_or(usize::MAX),
        };
        machine.write_file(HANDLE_FILE, &serde_json::to_vec(&machine.handle()).unwrap_or_default());
        machine.write_file(SOCKET, b"");
        machine.write_file(CONSOLE_FILE, b"");
        machine
    }

    pub(crate) fn id(&self) -> &VmId {
        &self.id
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn memory(&self) -> MiB {
        self.memory
    }

    pub(crate) fn guest(&self) -> FakeGuest {
        *self.restored.get().unwrap_or(&self.booted)
    }

    /// What a snapshot of it holds.
    pub(crate) fn state(&self) -> GuestState {
        GuestState { guest: self.guest(), ticks: self.ticks.load(Ordering::Acquire) }
    }

    /// Takes the place of the machine whose snapshot held `state`.
    pub(crate) fn continue_from(&self, state: GuestState) {
        self.ticks.store(state.ticks, Ordering::Release);
        self.restored.get_or_init(|| state.guest);
    }

    pub(crate) fn handle(&self) -> VmHandle {
        VmHandle {
            id: self.id.clone(),
            driver: super::driver::NAME.to_owned(),
            pid: self.pid,
            start_ticks: u64::from(self.pid) * 100,
            executable: "/usr/bin/fake-vmm".into(),
            run_dir: self.run_dir.clone(),
        }
    }

    pub(crate) fn power(&self) -> Power {
        *self.power.borrow()
    }

    pub(crate) fn switch(&self, power: Power) {
        self.power.send_replace(power);
    }

    pub(crate) fn ask_to_stop(&self) {
        self.asked_to_stop.send_replace(true);
    }

    pub(crate) fn is_asked_to_stop(&self) -> bool {
        *self.asked_to_stop.borrow()
    }

    /// Waits until it runs and has been asked to stop.
    pub(crate) async fn hears_the_question(&self) {
        let (mut asked, mut power) = (self.asked_to_stop.subscribe(), self.power.subscribe());
        // This machine holds both senders, so neither wait can end before what it waits for.
        let _asked = asked.wait_for(|asked| *asked).await.is_ok();
        let _running = power.wait_for(|power| *power == Power::Running).await.is_ok();
    }

    pub(crate) fn count_tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(crate) fn print(&self, text: &str) {
        let mut console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        console.push_str(text);
        let excess = console.len().saturating_sub(self.console_limit);
        console.drain(..excess);
        self.write_file(CONSOLE_FILE, console.as_bytes());
    }

    pub(crate) fn end(&self, cause: ExitCause) {
        self.exit.send_if_modified(|exit| {
            let first = exit.is_none();
            if first {
                self.remove_files();
                *exit = Some(Exit { cause, last_output: self.last_output() });
            }
            first
        });
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    pub(crate) async fn ended(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await.map(|exit| exit.clone());
        let unknown = || Exit { cause: ExitCause::Unknown, last_output: String::new() };
        ended.ok().flatten().unwrap_or_else(unknown)
    }

    fn last_output(&self) -> String {
        let console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        console[console.len().saturating_sub(QUOTED_BYTES)..].to_owned()
    }

    /// Renamed into place: who reads meanwhile sees what was there, never an empty file.
    ///
    /// In a simulation there is no run directory, and nobody reads what would be in it.
    fn write_file(&self, name: &str, content: &[u8]) {
        let unfinished = self.run_dir.join(format!("{name}.new"));
        let _ = std::fs::write(&unfinished, content)
            .and_then(|()| std::fs::rename(&unfinished, self.run_dir.join(name)));
    }

    fn remove_files(&self) {
        for name in [HANDLE_FILE, SOCKET] {
            let _ = std::fs::remove_file(self.run_dir.join(name));
        }
    }
}
