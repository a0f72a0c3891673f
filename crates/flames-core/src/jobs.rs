//! What can wait goes through the work queue: one queue, one worker loop, one line per kind of job.
//!
//! | job | when | doing it twice |
//! |---|---|---|
//! | forget a log | its retention after the run ended | finds nothing |
//! | forget a failed sandbox's record | the same | finds nothing |
//! | store a template's image | after a build | the blob is there already |

use crate::SandboxId;
use crate::plane::ControlPlane;
use crate::sandbox::error::LifecycleError;
use async_trait::async_trait;
use flames_node::TemplateName;
use flames_provider::{Error, ErrorKind, Result};
use flames_queue::worker::{Handler, Job as Queued, Worker, WorkerOptions};
use flames_queue::{ConsumerName, Delay, NewJob, Payload, QueueName, Reason};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Something to do later, or to try again until it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub(crate) enum Job {
    ForgetLog { key: String },
    ForgetSandbox { id: SandboxId },
    StoreTemplate { name: TemplateName },
}

const QUEUE: &str = "maintenance";

impl ControlPlane {
    /// Leaves a job to the worker.
    pub(crate) async fn enqueue(&self, job: &Job, delay: Duration) -> Result<()> {
        let payload = serde_json::to_vec(job)
            .map_err(|error| Error::new(ErrorKind::Internal, "job", QUEUE).source(error))?;
        let job = NewJob::new(Payload::new(payload)?).delay(Delay::clamped(delay));
        self.providers.queue.enqueue(&QueueName::new(QUEUE)?, job).await.map(drop)
    }

    /// The same, where a job that is lost means no more than some disk space.
    pub(crate) async fn enqueue_logged(&self, job: Job, delay: Duration) {
        if let Err(error) = self.enqueue(&job, delay).await {
            tracing::warn!(?job, %error, "a job was not taken");
        }
    }

    /// Starts the worker.
    pub(crate) fn spawn_worker(self: &Arc<Self>) -> Result<()> {
        let consumer = ConsumerName::new(format!("daemon-{}", std::process::id()))?;
        let handler = Arc::new(Maintenance { plane: Arc::downgrade(self) });
        let queue = Arc::clone(&self.providers.queue);
        let worker = Worker::new(queue, QueueName::new(QUEUE)?, handler, WorkerOptions::new(consumer));
        self.tasks.spawn(worker.run(self.shutdown.clone()));
        Ok(())
    }

    async fn do_job(&self, job: Job) -> Result<(), LifecycleError> {
        match job {
            Job::ForgetLog { key } => Ok(self.forget_console(&key).await?),
            Job::ForgetSandbox { id } => match self.destroy_steps(&id).await {
                Err(LifecycleError::NotFound(_)) => Ok(()),
                done => done,
            },
            Job::StoreTemplate { name } => Ok(self.store_template(&name).await?),
        }
    }
}

#[derive(Debug)]
struct Maintenance {
    plane: Weak<ControlPlane>,
}

#[async_trait]
impl Handler for Maintenance {
    async fn handle(&self, job: Queued<'_>) -> Result<(), Reason> {
        let Some(plane) = self.plane.upgrade() else {
            return Err(Reason::new("the daemon is shutting down"));
        };
        let job: Job = serde_json::from_slice(job.payload.as_bytes())
            .map_err(|error| Reason::new(format!("not a job that this version knows: {error}")))?;
        plane.do_job(job).await.map_err(|error| Reason::new(error.to_string()))
    }
}
