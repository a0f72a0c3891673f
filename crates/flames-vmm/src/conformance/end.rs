//! How a VM ends, and how it is told.

use super::{
    Factory, Guest,
    support::{
        A_WHILE, FAREWELL, PATIENCE, PATIENT, boot, gone, nothing_lives_in, ticks_after, within_patience,
    },
};
use crate::{CONSOLE_FILE, Exit, ExitCause, StopDeadlines};
use tokio::time::Instant;

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

/// No process, no socket, no handle; the console stays to be read.
pub async fn nothing_is_left_after_stop(factory: &dyn Factory) {
    let (spec, vm) = boot(factory, Guest::Ready).await;
    let handle = vm.handle();
    vm.stop(StopDeadlines::KILL).await.unwrap();
    assert!(!factory.is_alive(&handle).await);
    nothing_lives_in(&spec.run_dir).await;
    assert!(spec.run_dir.join(CONSOLE_FILE).exists());
}
