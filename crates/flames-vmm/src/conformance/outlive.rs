//! What a daemon that gives up ends, and what a daemon that died leaves to the next.

use super::{
    Factory, Guest,
    support::{
        A_WHILE, FAREWELL, PATIENT, boot, console_says_its_last_line_within_the_limit, gone, kill,
        nothing_lives_in, stored_handle, ticks, ticks_after,
    },
};
use crate::{ExitCause, PrepareFor, VmHandle, VmState};

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

/// A restart of the daemon does not let the file grow.
pub async fn an_adopted_vm_keeps_the_limit_of_its_console(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Chatty).await;
    let handle = vm.handle();
    drop(vm);
    let adopted = factory.driver().adopt(&handle).await.unwrap().expect("the VM lives");
    console_says_its_last_line_within_the_limit(&spec).await;
    kill(adopted).await;
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
