//! Wakes consumers: one connection listens to the channel and rings the bell of the queue that changed.

use flames_queue::QueueName;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const CHANNEL: &str = "flames_queue";
/// Between two attempts to reach a database that is down.
const RECONNECT: Duration = Duration::from_millis(250);

/// The bells of all queues this process waits for, and the task that rings them. The task ends with this.
#[derive(Debug)]
pub(crate) struct Bells {
    bells: Arc<Registry>,
    listener: JoinHandle<()>,
}

impl Bells {
    pub(crate) fn start(pool: PgPool) -> Self {
        let bells = Arc::new(Registry::default());
        let listener = tokio::spawn(listen_forever(pool, Arc::clone(&bells)));
        Self { bells, listener }
    }

    pub(crate) fn of(&self, queue: &QueueName) -> Arc<Notify> {
        Arc::clone(self.bells.lock().entry(queue.as_str().to_owned()).or_default())
    }
}

impl Drop for Bells {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

#[derive(Debug, Default)]
struct Registry(Mutex<HashMap<String, Arc<Notify>>>);

impl Registry {
    fn ring(&self, queue: &str) {
        if let Some(bell) = self.lock().get(queue) {
            bell.notify_waiters();
        }
    }

    /// Whoever waits looks for itself: what changed meanwhile is not known.
    fn ring_all(&self) {
        self.lock().values().for_each(|bell| bell.notify_waiters());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen_forever(pool: PgPool, bells: Arc<Registry>) {
    loop {
        // An error here is the same outage that every call reports to its caller.
        let _outage = listen(&pool, &bells).await;
        bells.ring_all();
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Rings until the connection breaks.
async fn listen(pool: &PgPool, bells: &Registry) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    bells.ring_all(); // whatever was notified before this moment was not heard
    while let Some(notification) = listener.try_recv().await? {
        bells.ring(notification.payload());
    }
    Ok(())
}
