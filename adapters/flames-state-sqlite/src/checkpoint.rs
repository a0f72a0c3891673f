//! Moves the log's pages into the database file, beside the writer and not inside its commits.
//!
//! A passive checkpoint takes no lock that a writer or a reader waits for
//! (<https://sqlite.org/c3ref/wal_checkpoint_v2.html>). The log starts over from its beginning once all of it was moved.
//! A writer that never rests always adds to it meanwhile; so when it has become long, one commit waits until the rest,
//! which is short by then, was moved too.

use rusqlite::Connection;
use tokio::sync::watch;

/// What is written to the log between two checkpoints, about.
const EVERY_BYTES: u64 = 8 << 20;
/// A log of more pages of 4 KiB than this starts over, at the price of one commit that waits.
const LONG_PAGES: i64 = 8 << 10;

/// Goes on until the writer is gone; `written` counts the bytes that it has written since the start.
pub(crate) async fn follow(mut connection: Connection, mut written: watch::Receiver<u64>) {
    let mut next = EVERY_BYTES;
    while written.wait_for(|written| *written >= next).await.is_ok() {
        next = *written.borrow() + EVERY_BYTES;
        // A panic of it would be the end of moving, not of writing; the next start moves everything.
        let Ok(back) = tokio::task::spawn_blocking(move || checkpoint(connection)).await else { return };
        connection = back;
    }
}

fn checkpoint(connection: Connection) -> Connection {
    // Whatever could not be moved is moved by the next; a disk that fails tells the writer too.
    let log = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(1));
    if log.is_ok_and(|pages| pages > LONG_PAGES) {
        let _ = connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
    }
    connection
}
