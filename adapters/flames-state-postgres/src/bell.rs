//! Wakes watches when somebody commits, on whatever node.

use crate::commit::CHANNEL;
use crate::connect::Database;
use sqlx::postgres::PgListener;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Watches look by themselves this often: a connection that died without a word rings no bell.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);
/// Between attempts to listen again.
const LISTEN_AGAIN: Duration = Duration::from_millis(250);

/// Listens for notifications until it is dropped.
#[derive(Debug)]
pub(crate) struct Bell {
    rings: watch::Receiver<()>,
    listener: JoinHandle<()>,
}

/// One watch's ear.
#[derive(Debug)]
pub(crate) struct Ring(watch::Receiver<()>);

impl Bell {
    /// Hears every commit after it returns.
    pub(crate) async fn hang(database: Database) -> sqlx::Result<Self> {
        let listener = listen(&database).await?;
        let (sender, rings) = watch::channel(());
        Ok(Self { rings, listener: tokio::spawn(run(database, listener, sender)) })
    }

    pub(crate) fn ring(&self) -> Ring {
        Ring(self.rings.clone())
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Ring {
    /// Rings before this moment no longer count.
    pub(crate) fn forget(&mut self) {
        self.0.mark_unchanged();
    }

    /// Returns at the first ring, or after a while. Without a bell it is only the while.
    pub(crate) async fn heard(&mut self) {
        if let Ok(Err(_)) = timeout(LOOK_ANYWAY, self.0.changed()).await {
            sleep(LISTEN_AGAIN).await;
        }
    }
}

async fn listen(database: &Database) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect_with(&database.pool).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Rings also when the connection broke and when it is back: notifications may have been lost in between.
async fn run(database: Database, mut listener: PgListener, rings: watch::Sender<()>) {
    loop {
        while let Ok(Some(_)) = listener.try_recv().await {
            rings.send_replace(());
        }
        rings.send_replace(());
        listener = listen_again(&database).await;
        rings.send_replace(());
    }
}

async fn listen_again(database: &Database) -> PgListener {
    loop {
        match listen(database).await {
            Ok(listener) => return listener,
            // Watches find out by themselves that the server is gone, and say why.
            Err(_) => sleep(LISTEN_AGAIN).await,
        }
    }
}
