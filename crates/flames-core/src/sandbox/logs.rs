//! Console logs: on the host while the VM lives, in the blob store from its end until their retention ends.

use crate::SandboxId;
use crate::jobs::Job;
use crate::plane::ControlPlane;
use crate::sandbox::error::LifecycleError;
use crate::sandbox::record::Sandbox;
use bytes::Bytes;
use flames_blob::{BlobKey, BlobStoreExt, Durability, PutOptions};
use flames_node::Console;
use flames_provider::{Error, ErrorKind};

/// What is kept of a log after its run.
const KEPT_BYTES: u32 = 1 << 20;

impl ControlPlane {
    /// The newest of the console, at most `limit_bytes`; also of a sandbox that is gone, until its log's retention
    /// ends.
    ///
    /// # Errors
    /// `NotFound` when there is neither a sandbox nor a log of it.
    pub async fn console(&self, id: &SandboxId, limit_bytes: usize) -> Result<Console, LifecycleError> {
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

    async fn kept_console(&self, id: &SandboxId, limit_bytes: usize) -> Result<Console, LifecycleError> {
        let text = match self.kept(&log_key(id)?).await? {
            Some(text) => text,
            None => return Err(LifecycleError::NotFound(id.clone())),
        };
        let times = self.kept(&times_key(id)?).await?.unwrap_or_default();
        // Lines without times are lines still.
        let times = serde_json::from_slice(&times).unwrap_or_default();
        Ok(Console { text, times }.newest(limit_bytes))
    }

    async fn kept(&self, key: &BlobKey) -> Result<Option<Bytes>, Error> {
        match self.providers.blob.get_bytes(key, KEPT_BYTES.into()).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
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
        if console.text.is_empty() {
            return Ok(());
        }
        let times = serde_json::to_vec(&console.times).unwrap_or_default();
        self.keep(&times_key(&sandbox.id)?, times.into()).await?;
        let key = log_key(&sandbox.id)?;
        self.keep(&key, console.text).await?;
        self.enqueue(&Job::ForgetLog { key: key.as_str().to_owned() }, self.limits.retention).await
    }

    async fn keep(&self, key: &BlobKey, content: Bytes) -> Result<(), Error> {
        let options = PutOptions::REPLACE.surviving(Durability::Process);
        self.providers.blob.put_bytes(key, options, content).await.map(drop)
    }

    /// Removes a log and its times.
    pub(crate) async fn forget_console(&self, key: &str) -> Result<(), Error> {
        self.providers.blob.delete(&BlobKey::parse(format!("{key}.times"))?).await?;
        self.providers.blob.delete(&BlobKey::parse(key)?).await
    }
}

fn log_key(id: &SandboxId) -> Result<BlobKey, Error> {
    BlobKey::parse(format!("logs/{id}"))
}

fn times_key(id: &SandboxId) -> Result<BlobKey, Error> {
    BlobKey::parse(format!("logs/{id}.times"))
}
