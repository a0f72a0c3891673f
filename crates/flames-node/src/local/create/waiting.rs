//! What is done with a creation that stopped after a step: a member of a pool, or a machine that a snapshot is taken of.

use super::{Creation, missing, ms_since};
use crate::local::capture::capture;
use crate::local::{handshake, settle};
use crate::paths::RunDir;
use crate::snapshot::Partial;
use crate::{GuestClient, SnapshotTimings, StartProcess};
use flames_vmm::{Result, RunningVm};
use std::sync::Arc;
use std::time::Instant;

impl Creation {
    /// Tells a guest that has its own token already something more, and makes sure that it took it in.
    pub(in crate::local) async fn tell(&mut self, init: &flames_guest::control::InitRequest) -> Result<()> {
        let start = Instant::now();
        let running = self.running.as_ref().ok_or_else(|| missing("running VM"))?;
        let guest = self.guest.as_ref().ok_or_else(|| missing("guest client"))?;
        handshake::shake(&self.request.run, guest, &running.control, init).await?;
        self.timings.agent_init_ms = ms_since(start);
        Ok(())
    }

    /// Lets the guest read what commands need, so that its clones find it in memory. What an image does not have
    /// is left out.
    pub(in crate::local) async fn warm_up(&self) {
        let Some(guest) = &self.guest else { return };
        for (command, args) in
            [("true", &[][..]), ("/bin/sh", &["-lc", "true"]), ("/bin/bash", &["-lc", "true"])]
        {
            let args = args.iter().map(|&argument| argument.to_owned()).collect();
            let process = StartProcess { command: command.to_owned(), args, ..StartProcess::default() };
            let Ok(mut events) = guest.start(&process).await else { continue };
            while let Some(Ok(_)) = events.next().await {}
        }
    }

    /// Lets the guest finish what the warm-up left behind.
    pub(in crate::local) async fn settle(&self) -> Result<()> {
        match &self.running {
            Some(running) => settle::settle(running.vm.as_ref()).await,
            None => Ok(()),
        }
    }

    /// Captures the guest, which stands still afterwards.
    pub(in crate::local) async fn capture(&self, into: &Partial) -> Result<SnapshotTimings> {
        let running = self.running.as_ref().ok_or_else(|| missing("running VM"))?;
        let dir = self.dir.as_ref().ok_or_else(|| missing("run directory"))?;
        capture(running.vm.as_ref(), &dir.disk(), into).await
    }

    /// Stops the virtual CPUs of a machine that waits.
    pub(in crate::local) async fn pause(&self) -> Result<()> {
        self.running.as_ref().ok_or_else(|| missing("running VM"))?.vm.pause().await
    }

    /// Lets them run again.
    pub(in crate::local) async fn resume(&self) -> Result<()> {
        self.running.as_ref().ok_or_else(|| missing("running VM"))?.vm.resume().await
    }

    /// The run directory, once it was made.
    pub(in crate::local) fn dir(&self) -> Option<&RunDir> {
        self.dir.as_ref()
    }

    /// The guest's agent; `None` before it served.
    pub(in crate::local) fn guest(&self) -> Option<&GuestClient> {
        self.guest.as_ref()
    }

    /// The VM; `None` before it ran.
    pub(in crate::local) fn vm(&self) -> Option<&Arc<dyn RunningVm>> {
        self.running.as_ref().map(|running| &running.vm)
    }
}
