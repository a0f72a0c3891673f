//! Guests whose memory a page-fault handler fills: what it fetches ahead, what becomes of a VM without it, and what it is
//! as seen from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use flames_vmm::conformance::{Factory, Guest, Seen, eventually};
use flames_vmm::faults::WorkingSet;
use flames_vmm::{
    CONSOLE_FILE, Exit, ExitCause, PrepareFor, RunningVm, SnapshotParts, StopDeadlines, VmSpec, VmmDriver,
};
use flames_vmm_firecracker::FirecrackerConfig;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use support::{FIRST_UID, FirecrackerFactory, UIDS, inflate};

#[tokio::test]
async fn what_the_first_clone_touched_is_fetched_ahead_for_the_next() {
    let Some(factory) = FirecrackerFactory::with_page_faults().await else { return };
    let parts = copy_of_the_template(&factory, "once");
    let (spec, vm) = restore(&factory, &parts).await;
    let record = working_set(&parts);
    eventually("the working set is kept", async || record.exists()).await;
    end(vm).await;
    assert_eq!(fetched_ahead(&spec), 0);
    let length = std::fs::metadata(&parts.memory).unwrap().len();
    let set = WorkingSet::parse(&std::fs::read(&record).unwrap(), length).unwrap();
    assert!(set.pages() > 0);

    let (next, vm) = restore(&factory, &parts).await;
    eventually("all of it was fetched", async || fetched_ahead(&next) > 0).await;
    // A page of the set either was there before the guest asked, or the guest was faster.
    assert!(fetched_ahead(&next) + faults_served(&next) >= set.pages(), "{}", said(&next));
    end(vm).await;
}

#[tokio::test]
async fn a_record_that_is_garbage_is_passed_over_and_made_anew() {
    let Some(factory) = FirecrackerFactory::with_page_faults().await else { return };
    let parts = copy_of_the_template(&factory, "garbage");
    let record = working_set(&parts);
    std::fs::write(&record, b"{\"version\":99").unwrap();
    let (spec, vm) = restore(&factory, &parts).await;
    let length = std::fs::metadata(&parts.memory).unwrap().len();
    let is_good = || std::fs::read(&record).is_ok_and(|text| WorkingSet::parse(&text, length).is_ok());
    eventually("the working set is made anew", async || is_good()).await;
    assert_eq!(fetched_ahead(&spec), 0);
    end(vm).await;
}

#[tokio::test]
async fn a_vm_whose_page_fault_handler_dies_is_ended_and_the_exit_says_why() {
    let Some(factory) = FirecrackerFactory::with_page_faults().await else { return };
    let (_, vm) = restore(&factory, &factory.template()).await;
    kill(handler_of(&vm.handle().run_dir));
    died_with_its_handler(&vm.exited().await);
}

#[test]
fn a_vm_whose_page_fault_handler_died_with_the_daemon_is_ended_by_the_next() {
    let daemon = tokio::runtime::Runtime::new().unwrap();
    let Some(factory) = daemon.block_on(FirecrackerFactory::with_page_faults()) else { return };
    let handle = daemon.block_on(async { restore(&factory, &factory.template()).await.1.handle() });
    drop(daemon);
    let next = tokio::runtime::Runtime::new().unwrap();
    next.block_on(async {
        assert!(factory.is_alive(&handle).await, "it outlives its daemon");
        let pid = handler_of(&handle.run_dir);
        kill(pid);
        is_gone(pid).await;
        let adopted = factory.driver().adopt(&handle).await.unwrap().expect("its process lives");
        died_with_its_handler(&adopted.exited().await);
    });
}

#[tokio::test]
async fn a_page_fault_handler_outlives_its_daemon_and_ends_with_its_vm() {
    let Some(factory) = FirecrackerFactory::with_page_faults().await else { return };
    let (spec, vm) = boot(&factory).await;
    let (handle, pid) = (vm.handle(), handler_of(&spec.run_dir));
    drop(vm);
    let adopted = factory.driver().adopt(&handle).await.unwrap().expect("it lives");
    runs(&spec).await;
    assert_eq!(handler_of(&spec.run_dir), pid);
    factory.crash(&handle).await;
    let exit = adopted.exited().await;
    assert!(!exit.last_output.contains("page-fault handler"), "{exit:?}");
    is_gone(pid).await;
}

#[tokio::test]
async fn a_page_fault_handler_is_nobody_and_sees_nothing() {
    let Some(factory) = FirecrackerFactory::with_page_faults().await else { return };
    let (spec, vm) = restore(&factory, &factory.template()).await;
    let handler = Seen(handler_of(&spec.run_dir));
    let uid = handler.uid();
    assert!((FIRST_UID..FIRST_UID + UIDS).contains(&uid) && uid != Seen(vm.handle().pid).uid(), "{uid}");
    for name in ["Uid", "Gid"] {
        assert_eq!(handler.status(name), [uid; 4].map(|id| id.to_string()).join("\t"));
    }
    assert_eq!(handler.status("Groups"), "");
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(handler.status(name), "0000000000000000", "{name}");
    }
    assert_eq!((handler.status("Seccomp"), handler.status("NoNewPrivs")), ("2".into(), "1".into()));
    assert_eq!(handler.status("Threads"), "1");
    assert_eq!(std::fs::read_dir(handler.path("root")).unwrap().count(), 0);
    let mounts = handler.read("mountinfo");
    assert!(mounts.lines().count() == 1 && mounts.contains(" / / ro,"), "{mounts}");
    for name in ["pid", "mnt", "net", "ipc", "uts"] {
        let [its, ours] = [handler, Seen(std::process::id())]
            .map(|process| std::fs::read_link(process.path("ns").join(name)).unwrap());
        assert_ne!(its, ours, "{name}");
    }
    assert_eq!(handler.read("environ"), "");
    let groups = handler.own_groups();
    assert!(
        !groups.is_empty() && groups.iter().all(|group| group.folder.ends_with(format!("vm-{uid}"))),
        "{groups:?}"
    );
    let open = std::fs::read_dir(handler.path("fd")).unwrap();
    let open: Vec<String> = open
        .filter_map(|entry| Some(std::fs::read_link(entry.unwrap().path()).ok()?.display().to_string()))
        .collect();
    let known = ["/null", "pipe:", "socket:", "anon_inode:[userfaultfd]", "anon_inode:[pidfd]", "pidfd:"];
    let memory = factory.template().memory.display().to_string();
    let strange: Vec<_> = open
        .iter()
        .filter(|one| !known.iter().any(|known| one.starts_with(known)) && **one != memory)
        .filter(|one| !one.ends_with("/faults.log"))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
    end(vm).await;
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

#[tokio::test]
async fn memory_that_a_guest_gives_back_is_its_own_again_when_it_wants_it() {
    let Some(factory) = FirecrackerFactory::with_page_faults_and_devices().await else { return };
    let (spec, vm) = boot(&factory).await;
    for amount_mib in [8, 0] {
        inflate(&spec, amount_mib).await;
    }
    eventually("its handler was told", async || removals(&spec) > 0).await;
    ticks_on(&spec).await;
    inflate(&spec, 8).await;
    ticks_on(&spec).await;
    end(vm).await;
}

#[tokio::test]
async fn a_guest_of_huge_pages_is_restored_page_by_page_and_fetched_ahead_the_next_time() {
    let Some(factory) = FirecrackerFactory::with_huge_pages().await else { return };
    let parts = copy_of_the_template(&factory, "huge");
    let (spec, vm) = restore(&factory, &parts).await;
    let record = working_set(&parts);
    eventually("the working set is kept", async || record.exists()).await;
    let length = std::fs::metadata(&parts.memory).unwrap().len();
    let set = WorkingSet::parse(&std::fs::read(&record).unwrap(), length).unwrap();
    assert_eq!((set.page_bytes(), fetched_ahead(&spec)), (2 << 20, 0));
    assert!((1..=length / (2 << 20)).contains(&set.pages()), "{}", set.pages());
    end(vm).await;

    let (next, vm) = restore(&factory, &parts).await;
    eventually("all of it was fetched", async || fetched_ahead(&next) > 0).await;
    end(vm).await;

    let (spec, vm) = boot(&factory).await;
    ticks_on(&spec).await;
    end(vm).await;
}

#[tokio::test]
async fn a_page_fault_handler_that_cannot_start_is_quoted_and_nothing_stays() {
    let Some(factory) = FirecrackerFactory::with_page_faults().await else { return };
    let mut config: FirecrackerConfig = factory.config().clone();
    config.page_faults.path = "/bin/false".into();
    let spec = factory.spec(Guest::Ready).await;
    let purpose = PrepareFor::Restore(factory.template());
    let error = factory.driver_with(config).prepare(spec.clone(), purpose).await.unwrap_err();
    assert!(error.to_string().contains("page-fault handler does not start"), "{error}");
    let left: Vec<_> =
        std::fs::read_dir(&spec.run_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let is_log = |name: &std::ffi::OsString| {
        let name = name.to_string_lossy();
        [".log", ".log.times", ".stderr"].iter().any(|end| name.ends_with(end))
    };
    assert!(left.iter().all(is_log), "{left:?}");
}

fn died_with_its_handler(exit: &Exit) {
    assert_eq!(exit.cause, ExitCause::Crashed { code: None, signal: Some(9) }, "{exit:?}");
    assert!(exit.last_output.contains("page-fault handler ended"), "{exit:?}");
}

async fn restore(factory: &FirecrackerFactory, parts: &SnapshotParts) -> (VmSpec, Box<dyn RunningVm>) {
    let spec = factory.spec(Guest::Ready).await;
    let purpose = PrepareFor::Restore(parts.clone());
    let vm = factory.driver().prepare(spec.clone(), purpose).await.unwrap().restore().await.unwrap();
    (spec, vm)
}

/// Of the same snapshot, and greeted, so that it says something.
async fn boot(factory: &FirecrackerFactory) -> (VmSpec, Box<dyn RunningVm>) {
    let spec = factory.spec(Guest::Ready).await;
    let prepared = factory.driver().prepare(spec.clone(), PrepareFor::Boot).await.unwrap();
    let (vm, _ready) = prepared.boot().await.unwrap().ready().await.unwrap();
    (spec, vm)
}

async fn end(vm: Box<dyn RunningVm>) {
    vm.stop(StopDeadlines::KILL).await.unwrap();
}

/// Its guest says something.
async fn runs(spec: &VmSpec) {
    let said = || std::fs::metadata(spec.run_dir.join(CONSOLE_FILE)).map_or(0, |file| file.len());
    eventually("the guest runs", async || said() > 0).await;
}

/// And says something again.
async fn ticks_on(spec: &VmSpec) {
    let last = || {
        let console = std::fs::read_to_string(spec.run_dir.join(CONSOLE_FILE)).unwrap_or_default();
        let mut ticks = console.lines().filter_map(|line| line.strip_prefix("tick ")?.parse::<u64>().ok());
        ticks.next_back().unwrap_or(0)
    };
    let before = last();
    eventually("the guest runs on", async || last() > before).await;
}

/// Nobody else's record is beside it.
fn copy_of_the_template(factory: &FirecrackerFactory, name: &str) -> SnapshotParts {
    let (parts, folder) = (factory.template(), factory.folder().join(name));
    std::fs::create_dir(&folder).unwrap();
    let copy = |part: &Path| {
        let copy = folder.join(part.file_name().unwrap());
        std::fs::copy(part, &copy).unwrap();
        copy
    };
    SnapshotParts { memory: copy(&parts.memory), device_state: copy(&parts.device_state), ..parts }
}

fn working_set(parts: &SnapshotParts) -> PathBuf {
    parts.memory.with_added_extension("working-set")
}

/// The last word of its handler.
fn said(spec: &VmSpec) -> String {
    let log = std::fs::read_to_string(spec.run_dir.join("faults.log")).unwrap_or_default();
    log.lines().rev().find(|line| line.starts_with("pages:")).unwrap_or_default().to_owned()
}

fn number_before(line: &str, words: &str) -> u64 {
    let before = line.split(words).next().unwrap_or_default();
    before.trim().rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn faults_served(spec: &VmSpec) -> u64 {
    number_before(&said(spec), " faults served")
}

fn removals(spec: &VmSpec) -> u64 {
    number_before(&said(spec), " removals")
}

fn fetched_ahead(spec: &VmSpec) -> u64 {
    number_before(&said(spec), " fetched ahead")
}

fn handler_of(run_dir: &Path) -> u32 {
    let left: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run_dir.join("vmm.json")).unwrap()).unwrap();
    u32::try_from(left["resources"]["handler"]["identity"]["pid"].as_u64().unwrap()).unwrap()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
}

/// A zombie has no program any more.
async fn is_gone(pid: u32) {
    eventually("the handler is gone", async || std::fs::read_link(Seen(pid).path("exe")).is_err()).await;
}
