//! What every driver promises: one function per promise.
//!
//! [`crate::vmm_conformance`] turns them into named tests for a [`Factory`]. The factory brings guests that
//! behave in a known way ([`Guest`]); whether a guest runs is seen by its console, where the well-behaved ones
//! print "tick N" many times a second.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise is a panic")]

use crate::spec::{
    Disk, DiskAccess, Exit, ExitCause, MiB, PrepareFor, SnapshotParts, StopDeadlines, VmHandle, VmSpec,
    VmState,
};
use crate::{CONSOLE_FILE, Error, ErrorKind, HANDLE_FILE, RunningVm, VmmDriver};
use async_trait::async_trait;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Brings a driver, guests, and what a test must know of the host.
#[async_trait]
pub trait Factory: Debug + Send + Sync {
    /// A driver. Each call gives one that knows nothing of the others, as after a restart of the daemon.
    fn driver(&self) -> Arc<dyn VmmDriver>;

    /// A spec of a fresh VM with this guest, an empty run directory of mode 0700, and a console limit of
    /// [`CONSOLE_LIMIT`].
    async fn spec(&self, guest: Guest) -> VmSpec;

    /// Ends the VMM's process as a fault in it would, from outside.
    async fn crash(&self, handle: &VmHandle);

    /// True while the process that `handle` names lives.
    async fn is_alive(&self, handle: &VmHandle) -> bool;
}

/// How a guest of the suite behaves. All but the last three report that they are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Prints "tick N"; when asked to power off it prints "powering off" and does.
    Ready,
    /// Prints "tick N" and never powers off.
    Deaf,
    /// Prints 40,000 lines and then "the last line".
    Chatty,
    /// Panics shortly after it reported.
    Panics,
    /// Powers off shortly after it reported.
    PowersOff,
    /// Reports the error "the test guest refuses".
    Refuses,
    /// Powers off before it reports.
    Dies,
    /// Never reports.
    Mute,
}

impl Guest {
    /// The value of the kernel argument `flames.test=` that asks a test guest to behave so.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Deaf => "deaf",
            Self::Chatty => "chatty",
            Self::Panics => "panics",
            Self::PowersOff => "powers-off",
            Self::Refuses => "refuses",
            Self::Dies => "dies",
            Self::Mute => "mute",
        }
    }
}

/// Console limit of the suite's specs, in bytes.
pub const CONSOLE_LIMIT: u64 = 16 * 1024;

/// A guest's last line before it powers off because it was asked to.
const FAREWELL: &str = "powering off";
/// Longer than anything takes that is going to happen, on a busy host without hardware virtualisation.
const PATIENCE: Duration = Duration::from_secs(40);
/// Long enough for many ticks.
const A_WHILE: Duration = Duration::from_millis(600);
/// A graceful deadline that a guest meets, and a forced one.
const PATIENT: StopDeadlines = StopDeadlines { graceful: PATIENCE, forced: PATIENCE };

/// Expands to one test per promise for `$factory`, an expression of type `Option<impl Factory>`. `None` skips:
/// the expression says why with [`flames_provider::conformance::skip`].
#[macro_export]
macro_rules! vmm_conformance {
    ($factory:expr) => {
        $crate::vmm_conformance!(@tests $factory;
            boot_reaches_ready_and_the_vm_describes_itself_as_running,
            pause_stops_the_guest_and_resume_lets_it_go_on,
            pausing_or_resuming_twice_changes_nothing,
            stop_lets_the_guest_power_off_first,
            stop_ends_a_deaf_guest_by_force_within_its_deadlines,
            stop_ends_a_paused_guest,
            stopping_twice_gives_the_same_exit,
            an_exit_before_the_call_is_not_missed,
            every_waiter_sees_the_exit,
            a_panic_is_told_from_a_shutdown,
            a_crash_is_reported_with_its_cause_and_the_last_output,
            the_console_keeps_its_newest_bytes_within_the_limit,
            a_missing_kernel_is_refused_by_name,
            a_missing_disk_is_refused_by_name,
            absurd_sizes_are_refused,
            a_vmm_that_cannot_start_says_why_and_leaves_nothing,
            an_agent_that_refuses_is_quoted_and_its_vm_ends,
            a_guest_that_dies_before_its_agent_reports_is_an_error,
            the_handle_is_in_the_run_directory_from_prepare_on,
            dropping_a_prepared_vm_ends_its_process,
            dropping_a_booting_vm_ends_its_process,
            dropping_a_running_vm_leaves_it_to_be_adopted,
            an_adopted_vm_can_be_paused_and_stopped,
            an_adopted_vm_keeps_the_limit_of_its_console,
            a_process_that_is_gone_is_not_adopted,
            a_reused_pid_is_not_adopted,
            many_vms_boot_at_once,
            nothing_is_left_after_stop,
            a_vm_that_is_gone_answers_unavailable,
            snapshots_work_or_are_unsupported,
        );
    };
    (@tests $factory:expr; $($promise:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                if let Some(factory) = $factory {
                    $crate::conformance::$promise(&factory).await;
                }
            }
        )*
    };
}

/// A VM boots, its agent reports, and it says of itself that it runs.
pub async fn boot_reaches_ready_and_the_vm_describes_itself_as_running(factory: &dyn Factory) {
    let (_, vm) = boot(factory, Guest::Ready).await;
    let description = vm.describe().await.unwrap();
    assert_eq!(description.state, VmState::Running);
    assert_eq!(description.pid, vm.handle().pid);
    assert_eq!(description.vmm_version, factory.driver().version().await.unwrap());
    kill(vm).await;
}

/// A paused guest does nothing; a resumed one goes on from there.
pub async fn pause_stops_the_guest_and_resume_lets_it_go_on(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Ready).await;
    let before = ticks_after(&spec, 0).await;
    vm.pause().await.unwrap();
    assert_eq!(vm.describe().await.unwrap().state, VmState::Paused);
    let paused_at = settled_ticks(&spec).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(paused_at >= before);
    assert_eq!(ticks(&spec).await, paused_at, "the guest ran while it was paused");
    vm.resume().await.unwrap();
    assert_eq!(vm.describe().await.unwrap().state, VmState::Running);
    ticks_after(&spec, paused_at).await;
    kill(vm).await;
}

/// The second call finds what the first one left.
pub async fn pausing_or_resuming_twice_changes_nothing(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Ready).await;
    vm.resume().await.unwrap();
    vm.pause().await.unwrap();
    vm.pause().await.unwrap();
    assert_eq!(vm.describe().await.unwrap().state, VmState::Paused);
    vm.resume().await.unwrap();
    vm.resume().await.unwrap();
    assert_eq!(vm.describe().await.unwrap().state, VmState::Running);
    ticks_after(&spec, ticks(&spec).await).await;
    kill(vm).await;
}

/// A guest that obeys is not killed: stop returns long before the graceful deadline.
pub async fn stop_lets_the_guest_power_off_first(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Ready).await;
    ticks_after(&spec, 0).await;
    let started = Instant::now();
    let exit = vm.stop(PATIENT).await.unwrap();
    assert_eq!(exit.cause, ExitCause::GuestShutdown);
    assert!(exit.last_output.contains(FAREWELL), "the guest was not asked: {exit:?}");
    assert!(started.elapsed() < PATIENCE / 2, "the guest had gone, and stop still waited");
}

/// A guest that does not obey is given its time, and no more.
pub async fn stop_ends_a_deaf_guest_by_force_within_its_deadlines(factory: &dyn Factory) {
    let (_, vm) = boot(factory, Guest::Deaf).await;
    let deadlines = StopDeadlines { graceful: A_WHILE, forced: PATIENCE };
    let started = Instant::now();
    let exit = within_patience(vm.stop(deadlines)).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Stopped);
    assert!(started.elapsed() >= A_WHILE, "the guest was given no time");
    assert!(!factory.is_alive(&vm.handle()).await);
}

/// A paused guest cannot power off, and is ended all the same.
pub async fn stop_ends_a_paused_guest(factory: &dyn Factory) {
    let (_, vm) = boot(factory, Guest::Ready).await;
    vm.pause().await.unwrap();
    let deadlines = StopDeadlines { graceful: A_WHILE, forced: PATIENCE };
    within_patience(vm.stop(deadlines)).await.unwrap();
    assert!(!factory.is_alive(&vm.handle()).await);
}

/// Stop is idempotent.
pub async fn stopping_twice_gives_the_same_exit(factory: &dyn Factory) {
    let (_, vm) = boot(factory, Guest::Ready).await;
    let first = vm.stop(StopDeadlines::KILL).await.unwrap();
    assert_eq!(vm.stop(StopDeadlines::KILL).await.unwrap(), first);
    assert_eq!(vm.exited().await, first);
}

/// Whoever asks late still learns how it ended.
pub async fn an_exit_before_the_call_is_not_missed(factory: &dyn Factory) {
    let (_, vm) = boot(factory, Guest::PowersOff).await;
    gone(factory, &vm.handle()).await;
    assert_eq!(within_patience(vm.exited()).await.cause, ExitCause::GuestShutdown);
}

/// One exit, and everybody who waits is told.
pub async fn every_waiter_sees_the_exit(factory: &dyn Factory) {
    let (_, vm) = boot(factory, Guest::PowersOff).await;
    let (first, second) = within_patience(async { tokio::join!(vm.exited(), vm.exited()) }).await;
    assert_eq!(first.cause, ExitCause::GuestShutdown);
    assert_eq!(first, second);
}

/// A panic is no shutdown, and its words are kept.
pub async fn a_panic_is_told_from_a_shutdown(factory: &dyn Factory) {
    let (_, vm) = boot(factory, Guest::Panics).await;
    let exit = within_patience(vm.exited()).await;
    assert_eq!(exit.cause, ExitCause::GuestPanic, "{exit:?}");
    assert!(exit.last_output.contains("Kernel panic"), "{exit:?}");
}

/// A VMM that dies by itself leaves a cause and the end of the console.
pub async fn a_crash_is_reported_with_its_cause_and_the_last_output(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Ready).await;
    ticks_after(&spec, 0).await;
    factory.crash(&vm.handle()).await;
    let exit: Exit = within_patience(vm.exited()).await;
    assert!(matches!(exit.cause, ExitCause::Crashed { .. }), "{exit:?}");
    assert!(exit.last_output.contains("tick "), "{exit:?}");
}

/// However much a guest prints, the file stays within its limit and holds the end.
pub async fn the_console_keeps_its_newest_bytes_within_the_limit(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Chatty).await;
    console_says_its_last_line_within_the_limit(&spec).await;
    kill(vm).await;
    let kept = tokio::fs::metadata(spec.run_dir.join(CONSOLE_FILE)).await.unwrap().len();
    assert!((CONSOLE_LIMIT / 4..=CONSOLE_LIMIT).contains(&kept), "{kept} bytes are kept");
}

/// A restart of the daemon does not let the file grow.
pub async fn an_adopted_vm_keeps_the_limit_of_its_console(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Chatty).await;
    let handle = vm.handle();
    drop(vm);
    let adopted = factory.driver().adopt(&handle).await.unwrap().expect("the VM lives");
    console_says_its_last_line_within_the_limit(&spec).await;
    kill(adopted).await;
}

/// The error names the file.
pub async fn a_missing_kernel_is_refused_by_name(factory: &dyn Factory) {
    let mut spec = factory.spec(Guest::Ready).await;
    spec.kernel = spec.run_dir.join("no-such-kernel");
    let error = refusal(factory, spec).await;
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("no-such-kernel"), "{error}");
}

/// The error names the file.
pub async fn a_missing_disk_is_refused_by_name(factory: &dyn Factory) {
    let mut spec = factory.spec(Guest::Ready).await;
    let path = spec.run_dir.join("no-such-disk");
    spec.disks.push(Disk { path, access: DiskAccess::ReadWrite });
    let error = refusal(factory, spec).await;
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("no-such-disk"), "{error}");
}

/// No memory, too much memory, no CPU, too many CPUs.
pub async fn absurd_sizes_are_refused(factory: &dyn Factory) {
    let most = factory.driver().capabilities();
    let too_much = MiB(most.max_memory.0.saturating_add(1));
    for (memory, vcpus) in [(MiB(0), 1), (too_much, 1), (MiB(128), 0), (MiB(128), most.max_vcpus + 1)] {
        let spec = VmSpec { memory, vcpus, ..factory.spec(Guest::Ready).await };
        let error = refusal(factory, spec).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{memory} and {vcpus} CPUs: {error}");
    }
}

/// A kernel that is none: the VMM's own words are in the error, and its process is gone.
pub async fn a_vmm_that_cannot_start_says_why_and_leaves_nothing(factory: &dyn Factory) {
    let mut spec = factory.spec(Guest::Ready).await;
    spec.kernel = spec.run_dir.join("garbage");
    tokio::fs::write(&spec.kernel, "not a kernel").await.unwrap();
    let error = match factory.driver().prepare(spec.clone(), PrepareFor::Boot).await {
        Err(error) => error,
        Ok(prepared) => prepared.boot().await.expect_err("it boots what is no kernel"),
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.detail_text().is_some_and(|detail| detail.contains("kernel")), "{error}");
    nothing_lives_in(&spec.run_dir).await;
}

/// The agent's reason reaches the caller.
pub async fn an_agent_that_refuses_is_quoted_and_its_vm_ends(factory: &dyn Factory) {
    let (spec, error) = fail_to_boot(factory, Guest::Refuses).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the test guest refuses"), "{error}");
    nothing_lives_in(&spec.run_dir).await;
}

/// `ready` does not wait for ever on a VMM that has gone.
pub async fn a_guest_that_dies_before_its_agent_reports_is_an_error(factory: &dyn Factory) {
    let (spec, error) = fail_to_boot(factory, Guest::Dies).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    nothing_lives_in(&spec.run_dir).await;
}

/// A daemon that dies between prepare and ready leaves a trail.
pub async fn the_handle_is_in_the_run_directory_from_prepare_on(factory: &dyn Factory) {
    let spec = factory.spec(Guest::Ready).await;
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let handle = stored_handle(&spec).await;
    assert!(factory.is_alive(&handle).await);
    let (vm, _) = prepared.boot().await.unwrap().ready().await.unwrap();
    assert_eq!(vm.handle(), handle);
    kill(vm).await;
}

/// Giving up after prepare leaves no process.
pub async fn dropping_a_prepared_vm_ends_its_process(factory: &dyn Factory) {
    let spec = factory.spec(Guest::Ready).await;
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let handle = stored_handle(&spec).await;
    drop(prepared);
    gone(factory, &handle).await;
    nothing_lives_in(&spec.run_dir).await;
}

/// Giving up while the guest boots leaves no process.
pub async fn dropping_a_booting_vm_ends_its_process(factory: &dyn Factory) {
    let spec = factory.spec(Guest::Mute).await;
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let handle = stored_handle(&spec).await;
    let booting = prepared.boot().await.unwrap();
    let given_up = tokio::time::timeout(A_WHILE, booting.ready()).await;
    assert!(given_up.is_err(), "a mute guest is not ready: {given_up:?}");
    gone(factory, &handle).await;
    nothing_lives_in(&spec.run_dir).await;
}

/// Running VMs outlive their daemon.
pub async fn dropping_a_running_vm_leaves_it_to_be_adopted(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Ready).await;
    let handle = vm.handle();
    drop(vm);
    let adopted = factory.driver().adopt(&handle).await.unwrap().expect("the VM lives");
    assert_eq!(adopted.handle(), handle);
    assert_eq!(adopted.describe().await.unwrap().state, VmState::Running);
    ticks_after(&spec, ticks(&spec).await).await;
    kill(adopted).await;
}

/// An adopted VM is as good as one's own.
pub async fn an_adopted_vm_can_be_paused_and_stopped(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Ready).await;
    let handle = vm.handle();
    drop(vm);
    let adopted = factory.driver().adopt(&handle).await.unwrap().expect("the VM lives");
    adopted.pause().await.unwrap();
    assert_eq!(adopted.describe().await.unwrap().state, VmState::Paused);
    adopted.resume().await.unwrap();
    let exit = adopted.stop(PATIENT).await.unwrap();
    assert_eq!(exit.cause, ExitCause::GuestShutdown);
    assert!(exit.last_output.contains(FAREWELL), "the guest was not asked: {exit:?}");
    assert!(!factory.is_alive(&handle).await);
    nothing_lives_in(&spec.run_dir).await;
}

/// The process of the handle is gone.
pub async fn a_process_that_is_gone_is_not_adopted(factory: &dyn Factory) {
    let (_, vm) = boot(factory, Guest::Ready).await;
    let handle = vm.handle();
    kill(vm).await;
    assert!(factory.driver().adopt(&handle).await.unwrap().is_none());
}

/// The pid lives, and it is another process: older, younger, or another program.
pub async fn a_reused_pid_is_not_adopted(factory: &dyn Factory) {
    let (_, vm) = boot(factory, Guest::Ready).await;
    let own = vm.handle();
    let younger = VmHandle { start_ticks: own.start_ticks + 1, ..own.clone() };
    let other_program = VmHandle { executable: "/usr/bin/true".into(), ..own.clone() };
    for handle in [younger, other_program] {
        assert!(factory.driver().adopt(&handle).await.unwrap().is_none(), "{handle:?}");
    }
    assert!(factory.is_alive(&own).await, "and it was left alone");
    kill(vm).await;
}

/// Neither VM disturbs another.
pub async fn many_vms_boot_at_once(factory: &dyn Factory) {
    let booted = within_patience(async {
        tokio::join!(
            boot(factory, Guest::Ready),
            boot(factory, Guest::Ready),
            boot(factory, Guest::Ready),
            boot(factory, Guest::Ready),
        )
    })
    .await;
    let vms = [booted.0.1, booted.1.1, booted.2.1, booted.3.1];
    let pids: std::collections::HashSet<u32> = vms.iter().map(|vm| vm.handle().pid).collect();
    assert_eq!(pids.len(), vms.len());
    for vm in vms {
        kill(vm).await;
    }
}

/// No process, no socket, no handle; the console stays to be read.
pub async fn nothing_is_left_after_stop(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Ready).await;
    let handle = vm.handle();
    vm.stop(StopDeadlines::KILL).await.unwrap();
    assert!(!factory.is_alive(&handle).await);
    nothing_lives_in(&spec.run_dir).await;
    assert!(spec.run_dir.join(CONSOLE_FILE).exists());
}

/// What needs the VMM says that it is gone.
pub async fn a_vm_that_is_gone_answers_unavailable(factory: &dyn Factory) {
    let (_, vm) = boot(factory, Guest::Ready).await;
    vm.stop(StopDeadlines::KILL).await.unwrap();
    assert_eq!(vm.pause().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(vm.resume().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(vm.describe().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// A driver either continues guests from snapshots or says that it cannot; it never half does.
pub async fn snapshots_work_or_are_unsupported(factory: &dyn Factory) {
    let driver = factory.driver();
    let spec = factory.spec(Guest::Ready).await;
    let prepared = driver.prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let (vm, _) = prepared.boot().await.unwrap().ready().await.unwrap();
    if driver.capabilities().snapshots {
        assert_eq!(
            vm.snapshot(&spec.run_dir).await.unwrap_err().kind(),
            ErrorKind::Conflict,
            "it is not paused"
        );
    } else {
        assert_eq!(vm.snapshot(&spec.run_dir).await.unwrap_err().kind(), ErrorKind::Unsupported);
        let nothing = SnapshotParts {
            memory: "/nonexistent/memory".into(),
            device_state: "/nonexistent/state".into(),
            vmm_version: String::new(),
        };
        let clone = factory.spec(Guest::Ready).await;
        let error = driver.prepare(clone, PrepareFor::Restore(nothing)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    kill(vm).await;
}

async fn boot(factory: &dyn Factory, guest: Guest) -> (VmSpec, Box<dyn RunningVm>) {
    let spec = factory.spec(guest).await;
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let booting = prepared.boot().await.unwrap();
    let (vm, _ready) = within_patience(booting.ready()).await.unwrap();
    (spec, vm)
}

async fn fail_to_boot(factory: &dyn Factory, guest: Guest) -> (VmSpec, Error) {
    let spec = factory.spec(guest).await;
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let booting = prepared.boot().await.unwrap();
    let error = within_patience(booting.ready()).await.expect_err("this guest is never ready");
    (spec, error)
}

async fn refusal(factory: &dyn Factory, spec: VmSpec) -> Error {
    let error =
        factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.expect_err("it must be refused");
    nothing_lives_in(&spec.run_dir).await;
    error
}

async fn console_says_its_last_line_within_the_limit(spec: &VmSpec) {
    eventually("the guest prints its last line", async || {
        let console = tokio::fs::read(spec.run_dir.join(CONSOLE_FILE)).await.unwrap_or_default();
        assert!(console.len() as u64 <= CONSOLE_LIMIT, "{} bytes of console", console.len());
        String::from_utf8_lossy(&console).contains("the last line")
    })
    .await;
}

async fn kill(vm: Box<dyn RunningVm>) {
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

async fn stored_handle(spec: &VmSpec) -> VmHandle {
    let stored = tokio::fs::read(spec.run_dir.join(HANDLE_FILE)).await.unwrap();
    serde_json::from_slice(&stored).unwrap()
}

async fn gone(factory: &dyn Factory, handle: &VmHandle) {
    eventually("the process is gone", async || !factory.is_alive(handle).await).await;
}

/// No handle and no socket; waits, since a process that was let go ends in its own time.
async fn nothing_lives_in(run_dir: &Path) {
    eventually("handle and sockets are gone from the run directory", async || {
        let names = std::fs::read_dir(run_dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names = names.map(|name| name.to_string_lossy().into_owned());
        !names.any(|name| name == HANDLE_FILE || name.ends_with(".sock"))
    })
    .await;
}

/// The last "tick N" on the console; 0 before the first.
async fn ticks(spec: &VmSpec) -> u64 {
    let console = tokio::fs::read(spec.run_dir.join(CONSOLE_FILE)).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&console).into_owned();
    // The text after the last newline may be half a line.
    let (whole_lines, _) = text.rsplit_once('\n').unwrap_or_default();
    let number = |line: &str| line.trim().strip_prefix("tick ")?.parse().ok();
    whole_lines.lines().rev().find_map(number).unwrap_or(0)
}

async fn ticks_after(spec: &VmSpec, before: u64) -> u64 {
    eventually("the guest runs", async || ticks(spec).await > before).await;
    ticks(spec).await
}

/// The ticks once what the guest printed before its pause has arrived.
async fn settled_ticks(spec: &VmSpec) -> u64 {
    tokio::time::sleep(A_WHILE / 3).await;
    ticks(spec).await
}

async fn within_patience<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Asks again and again: what is observed from outside sends no event.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "it does not come about that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
