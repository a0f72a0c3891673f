//! What happens to sandboxes, in order and without a gap: the state store's own history of their records.

use crate::SandboxId;
use crate::plane::ControlPlane;
use crate::sandbox::record::{PREFIX, Sandbox};
use flames_provider::{Error, ErrorKind, Result};
use flames_state::{ChangeKind, Event, Revision};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};

/// Where to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// From now on.
    Now,
    /// Behind the change with this revision.
    Revision(u64),
}

/// A sandbox was created, changed or removed.
#[derive(Clone, Debug)]
pub struct Change {
    /// Where to go on after a break.
    pub revision: u64,
    /// Which sandbox.
    pub id: SandboxId,
    /// What it is now; `None` when it is gone.
    pub sandbox: Option<Box<Sandbox>>,
}

impl ControlPlane {
    /// Follows all sandboxes. The stream ends after its first error.
    ///
    /// # Errors
    /// `NotFound` when the history so far back is no longer kept: list again; what the state store answers.
    pub async fn changes(&self, since: Since) -> Result<BoxStream<'static, Result<Change>>> {
        let from = match since {
            Since::Now => self.providers.state.revision().await?,
            Since::Revision(revision) => Revision(revision),
        };
        let events = self.providers.state.watch(PREFIX, from).await?;
        Ok(events.flat_map(|event| stream::iter(changes_of(event))).boxed())
    }
}

fn changes_of(event: Result<Event>) -> Vec<Result<Change>> {
    let event = match event {
        Ok(event) => event,
        Err(error) => return vec![Err(error)],
    };
    let revision = event.revision.0;
    event.changes.into_iter().map(|change| to_change(revision, change)).collect()
}

fn to_change(revision: u64, change: flames_state::Change) -> Result<Change> {
    let corrupt = || Error::new(ErrorKind::Corrupt, "record", change.key.as_str());
    let id = change.key.as_str().strip_prefix(PREFIX).and_then(|id| SandboxId::parse(id).ok());
    let sandbox = match &change.kind {
        ChangeKind::Put(value) => {
            Some(serde_json::from_slice(value).map_err(|error| corrupt().source(error))?)
        }
        ChangeKind::Delete => None,
    };
    Ok(Change { revision, id: id.ok_or_else(corrupt)?, sandbox })
}
