//! Turns a machine that was made ahead into somebody's: runs what is missing, and tells the guest what it does not
//! know yet.

use super::create::{Creation, Handed};
use super::handshake;
use crate::error::{CreateError, CreateStep};
use crate::{CreateVm, StageTimings, TakeReady};
use tokio_util::sync::CancellationToken;

/// What a machine's clock did while it waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// It ran, and was told the time now and then.
    Ran,
    /// It stood still: it is wrong now, and the guest's random numbers are to be stirred (hazards C1, C3).
    StoodStill,
}

impl Creation {
    /// Makes it another one than it is: the guest takes the whole handshake again.
    pub(super) async fn give_to(
        mut self,
        request: CreateVm,
        cancel: &CancellationToken,
    ) -> Result<Handed, CreateError> {
        self.timings = StageTimings::default();
        self.control = crate::secret::new_token().map_err(|error| CreateStep::AgentInit.failed(error))?;
        if let Some(guest) = &mut self.guest {
            *guest = guest.with_token(request.access_token.clone());
        }
        self.request = request;
        let first = if self.running.is_some() { CreateStep::AgentInit } else { CreateStep::Boot };
        self.steps(first, CreateStep::Egress, cancel).await?;
        self.finish().await
    }

    /// Hands it out as who it is. The guest is told what `request` adds; that is nothing most of the time.
    pub(super) async fn give_as_it_is(
        mut self,
        request: &TakeReady,
        clock: Clock,
        cancel: &CancellationToken,
    ) -> Result<Handed, CreateError> {
        self.timings = StageTimings::default();
        let before = self.request.clone();
        self.request = with_wishes(&before, request);
        let first = if self.running.is_some() {
            if let Err(error) = self.tell_news(&before, clock).await {
                self.give_up().await;
                return Err(CreateStep::AgentInit.failed(error));
            }
            CreateStep::Egress
        } else {
            CreateStep::Boot
        };
        self.steps(first, CreateStep::Egress, cancel).await?;
        self.finish().await
    }

    async fn tell_news(&mut self, before: &CreateVm, clock: Clock) -> flames_vmm::Result<()> {
        match handshake::news(before, &self.request, clock)? {
            Some(news) => self.tell(&news).await,
            None => Ok(()),
        }
    }
}

/// What a machine is, with what a request adds to it.
fn with_wishes(machine: &CreateVm, request: &TakeReady) -> CreateVm {
    let mut env = machine.env.clone().unwrap_or_default();
    env.extend(request.env.clone());
    CreateVm {
        env: Some(env),
        default_user: request.default_user.clone().or_else(|| machine.default_user.clone()),
        network: request.network.clone(),
        default_workdir: request.default_workdir.clone().or_else(|| machine.default_workdir.clone()),
        ..machine.clone()
    }
}
