//! What a fake guest does by itself.

use super::FakeWorld;
use super::machine::{Machine, Power};
use crate::spec::ExitCause;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How a guest behaves; chosen by the kernel argument `flames.test=<name>`, the first if there is none. A restored
/// guest behaves as the one that was snapshotted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FakeGuest {
    /// Reports, is idle and costs nothing, powers off when asked to. A host has thousands of them.
    #[default]
    Quiet,
    /// `ready`: reports, prints "tick N" on the console again and again, powers off when asked to.
    Ready,
    /// `deaf`: the same, and never powers off.
    Deaf,
    /// `refuses`: its agent reports an error.
    Refuses,
    /// `panics`: reports, then panics.
    Panics,
    /// `powers-off`: reports, then powers off.
    PowersOff,
    /// `dies`: powers off before it reports.
    Dies,
    /// `chatty`: reports and prints 40,000 lines.
    Chatty,
    /// `mute`: never reports.
    Mute,
}

const TICK: Duration = Duration::from_millis(10);

impl FakeGuest {
    pub(crate) fn of(kernel_args: &[String]) -> Self {
        match kernel_args.iter().find_map(|word| word.strip_prefix("flames.test=")) {
            Some("deaf") => Self::Deaf,
            Some("refuses") => Self::Refuses,
            Some("panics") => Self::Panics,
            Some("powers-off") => Self::PowersOff,
            Some("dies") => Self::Dies,
            Some("chatty") => Self::Chatty,
            Some("mute") => Self::Mute,
            Some("ready") => Self::Ready,
            _ => Self::Quiet,
        }
    }

    /// True if its agent comes to report that it serves.
    pub(crate) fn reports(self) -> bool {
        !matches!(self, Self::Mute | Self::Dies | Self::Refuses)
    }

    fn hears_shutdown(self) -> bool {
        matches!(self, Self::Quiet | Self::Ready | Self::Chatty)
    }
}

/// Runs a guest until its machine ends.
pub(crate) async fn run(world: FakeWorld, machine: Arc<Machine>) {
    tokio::select! {
        cause = live(&machine) => world.end(&machine, cause),
        _ = machine.ended() => {}
    }
}

async fn live(machine: &Machine) -> ExitCause {
    match machine.guest() {
        FakeGuest::Dies => return ExitCause::GuestShutdown,
        FakeGuest::Quiet => {
            machine.hears_the_question().await;
            return ExitCause::GuestShutdown;
        }
        FakeGuest::Chatty => {
            let lines: String = (1..=40_000).map(|number| format!("{number}\n")).collect();
            machine.print(&(lines + "the last line\n"));
        }
        _ => {}
    }
    loop {
        tokio::time::sleep(TICK).await;
        if machine.power() == Power::Running
            && let Some(cause) = tick(machine)
        {
            return cause;
        }
    }
}

/// One moment of a running guest; a cause if it was the last.
fn tick(machine: &Machine) -> Option<ExitCause> {
    let count = machine.count_tick();
    machine.print(&format!("tick {count}\n"));
    match machine.guest() {
        FakeGuest::Panics if count > 10 => {
            machine.print("Kernel panic - not syncing: fake\n");
            Some(ExitCause::GuestPanic)
        }
        FakeGuest::PowersOff if count > 10 => Some(ExitCause::GuestShutdown),
        guest if machine.is_asked_to_stop() && guest.hears_shutdown() => {
            machine.print("powering off\n");
            Some(ExitCause::GuestShutdown)
        }
        _ => None,
    }
}
