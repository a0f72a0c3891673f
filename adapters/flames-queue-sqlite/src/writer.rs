//! The task that owns the connection: runs what has come in, in one transaction, and then answers all of it.

use crate::config::SqliteQueueConfig;
use crate::queue::Statement;
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Requests in one transaction: more would make the first one wait long.
const GROUP: usize = 128;
/// Requests that may wait: past that, callers wait to be let in.
const BACKLOG: usize = 1024;

/// One failure for all callers of a group.
pub(crate) type Failure = Arc<sqlx::Error>;

/// Handle of the task. It ends when the handle is dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    requests: mpsc::Sender<Box<dyn Request>>,
}

impl Writer {
    pub(crate) fn start(connection: SqliteConnection, config: SqliteQueueConfig) -> Self {
        let (requests, inbox) = mpsc::channel(BACKLOG);
        tokio::spawn(serve(inbox, Some(connection), config));
        Self { requests }
    }

    /// Runs `work` in a transaction and answers after its commit. `None` if the task is gone.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl for<'a> FnOnce(&'a mut SqliteConnection) -> Statement<'a, T> + Send + 'static,
    ) -> Option<Result<T, Failure>> {
        let (answer, answered) = oneshot::channel();
        let task = Task { work: Some(work), result: None, answer };
        self.requests.send(Box::new(task)).await.ok()?;
        answered.await.ok()
    }
}

async fn serve(
    mut inbox: mpsc::Receiver<Box<dyn Request>>,
    mut connection: Option<SqliteConnection>,
    config: SqliteQueueConfig,
) {
    let mut group = Vec::with_capacity(GROUP);
    while inbox.recv_many(&mut group, GROUP).await > 0 {
        let outcome = transact(&mut connection, &config, &mut group).await.map_err(Arc::new);
        if outcome.is_err() {
            // Closing it rolls back, whatever state it is in; the next group opens a new one.
            connection = None;
        }
        group.drain(..).for_each(|request| request.answer(outcome.as_ref().err()));
    }
}

async fn transact(
    connection: &mut Option<SqliteConnection>,
    config: &SqliteQueueConfig,
    group: &mut [Box<dyn Request>],
) -> sqlx::Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(config.connect().await?),
    };
    // IMMEDIATE: a transaction that starts by reading and then writes could be refused half-way.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for request in group {
        request.run(&mut transaction).await?;
    }
    transaction.commit().await
}

/// A request without its types.
trait Request: Send {
    fn run<'a>(&'a mut self, connection: &'a mut SqliteConnection) -> Statement<'a, ()>;
    fn answer(self: Box<Self>, failed: Option<&Failure>);
}

struct Task<Work, T> {
    work: Option<Work>,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, Failure>>,
}

impl<Work, T> Request for Task<Work, T>
where
    Work: for<'a> FnOnce(&'a mut SqliteConnection) -> Statement<'a, T> + Send,
    T: Send,
{
    fn run<'a>(&'a mut self, connection: &'a mut SqliteConnection) -> Statement<'a, ()> {
        Box::pin(async move {
            if let Some(work) = self.work.take() {
                self.result = Some(work(connection).await?);
            }
            Ok(())
        })
    }

    fn answer(self: Box<Self>, failed: Option<&Failure>) {
        let answer = match (failed, self.result) {
            (None, Some(result)) => Ok(result),
            (Some(error), _) => Err(Arc::clone(error)),
            (None, None) => Err(Arc::new(sqlx::Error::WorkerCrashed)),
        };
        let _caller_may_be_gone = self.answer.send(answer);
    }
}
