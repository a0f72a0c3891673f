//! The writer: the one thread that owns the connection. It runs what has come in, in one transaction, and then answers
//! all of it.
//!
//! A thread and not a task: a transaction is some thousand instructions per request, and handing each statement to
//! another thread would cost more than all of them.

use crate::error;
use flames_queue::{Error, ErrorKind, Result};
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Requests in one transaction: more would make the first one wait long.
const GROUP: usize = 256;
/// Requests that may wait: past that, callers wait to be let in.
const BACKLOG: usize = 1024;

/// One failure for all callers of a group.
pub(crate) type Failure = Arc<rusqlite::Error>;

/// Handle of the thread. It ends when the handle is dropped, after the requests that were sent.
#[derive(Debug)]
pub(crate) struct Writer {
    requests: mpsc::Sender<Box<dyn Request>>,
}

impl Writer {
    /// Nobody waits for the thread: what is not acknowledged may be lost.
    pub(crate) fn start(connection: Connection) -> Result<Self> {
        let (requests, inbox) = mpsc::channel(BACKLOG);
        let thread = std::thread::Builder::new().name("queue-writer".to_owned());
        thread.spawn(move || serve(inbox, connection)).map_err(|cause| {
            Error::new(ErrorKind::Unavailable, "thread", "queue-writer")
                .operation("open")
                .adapter(error::ADAPTER)
                .source(cause)
        })?;
        Ok(Self { requests })
    }

    /// Runs `work` in a transaction and answers after its commit. `None` if the thread is gone.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Option<std::result::Result<T, Failure>> {
        let (answer, answered) = oneshot::channel();
        let task = Task { work: Some(work), result: None, answer };
        self.requests.send(Box::new(task)).await.ok()?;
        answered.await.ok()
    }
}

fn serve(mut inbox: mpsc::Receiver<Box<dyn Request>>, mut connection: Connection) {
    let mut group = Vec::with_capacity(GROUP);
    while inbox.blocking_recv_many(&mut group, GROUP) > 0 {
        let outcome = transact(&mut connection, &mut group).map_err(Arc::new);
        group.drain(..).for_each(|request| request.answer(outcome.as_ref().err()));
    }
    // Nobody is left to be told; what was acknowledged is on the disk.
    let _ = connection.close();
}

/// A transaction that fails is rolled back as a whole.
fn transact(connection: &mut Connection, group: &mut [Box<dyn Request>]) -> rusqlite::Result<()> {
    // IMMEDIATE: a transaction that starts by reading and then writes could be refused half-way.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for request in group {
        request.run(&transaction)?;
    }
    transaction.commit()
}

/// A request without its types.
trait Request: Send {
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, failed: Option<&Failure>);
}

struct Task<Work, T> {
    work: Option<Work>,
    result: Option<T>,
    answer: oneshot::Sender<std::result::Result<T, Failure>>,
}

impl<Work, T> Request for Task<Work, T>
where
    Work: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.result = Some(work(connection)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, failed: Option<&Failure>) {
        let answer = match (failed, self.result) {
            (Some(error), _) => Err(Arc::clone(error)),
            (None, Some(result)) => Ok(result),
            // Never: a request without a result has failed its transaction.
            (None, None) => return,
        };
        let _caller_may_be_gone = self.answer.send(answer);
    }
}
