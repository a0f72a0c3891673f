//! Console logs: on the host while the VM lives, in the blob store from its end until their retention ends.

use crate::SandboxId;
use crate::jobs::Job;
use crate::plane::ControlPlane;
use crate::sandbox::error::LifecycleError;
use crate::sandbox::record::Sandbox;
use bytes::Bytes;
use flames_blob::{BlobKey, BlobStoreExt, Durability, PutOptions};
use flames_provider::{Error, ErrorKind};

/// What is kept of a log after its run.
const KEPT_BYTES: u32 = 1 << 20;

impl ControlPlane {
    /// The newest bytes of the console, at most `limit_bytes`; also of a sandbox that is gone, until its
    /// log's retention ends.
    ///
    /// # Errors
    /// `NotFound` when there is neither a sandbox nor a log of it.
    pub async fn console(&self, id: &SandboxId, limit_bytes: usize) -> Result<Bytes, LifecycleError> {
        let sandbox = match self.get(id).await {
            Ok(sandbox) => sandbox,
            Err(LifecycleError::NotFound(_)) => return self.kept_console(id, limit_bytes).await,
            Err(error) => return Err(error),
        };
        match self.node.console(&sandbox.run, limit_bytes).await {
            Err(error) if error.kind() == ErrorKind::NotFound => self.kept_console(id, limit_bytes).await,
            console => console.map_err(|source| LifecycleError::node(id, source)),
        }
    }

    async fn kept_console(&self, id: &SandboxId, limit_bytes: usize) -> Result<Bytes, LifecycleError> {
        match self.providers.blob.get_bytes(&log_key(id)?, KEPT_BYTES.into()).await {
            Ok(log) => Ok(log.slice(log.len().saturating_sub(limit_bytes)..)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(LifecycleError::NotFound(id.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the console of a run that is about to be taken down. A log is not worth a sandbox that cannot
    /// be destroyed: what fails here is logged and left out.
    pub(crate) async fn keep_console(&self, sandbox: &Sandbox) {
        match self.try_keep_console(sandbox).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(sandbox = %sandbox.id, %error, "its console was not kept"),
        }
    }

    async fn try_keep_console(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let console = self.node.console(&sandbox.run, KEPT_BYTES as usize).await?;
        if console.is_empty() {
            return Ok(());
        }
        let key = log_key(&sandbox.id)?;
        let options = PutOptions::REPLACE.surviving(Durability::Process);
        self.providers.blob.put_bytes(&key, options, console).await?;
        self.enqueue(&Job::ForgetLog { key: key.as_str().to_owned() }, self.limits.retention).await
    }
}

fn log_key(id: &SandboxId) -> Result<BlobKey, Error> {
    BlobKey::parse(format!("logs/{id}"))
}
