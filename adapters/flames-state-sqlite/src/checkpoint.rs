//! Moves the log's pages into the database file, beside the writer and not inside its commits.
//!
//! A passive checkpoint takes no lock that a writer or a reader waits for
//! (<https://sqlite.org/c3ref/wal_checkpoint_v2.html>). The log starts over from its beginning once all of it was moved
//! and nobody reads from it any more, so it stays about as long as what is written during one checkpoint.

use flames_state::Revision;
use rusqlite::Connection;
use tokio::sync::watch;

/// Commits between two checkpoints, at least. One is some 3 pages of 4 KiB for a sandbox's record and its event.
const EVERY_COMMITS: u64 = 2000;

/// Goes on until the writer is gone.
pub(crate) async fn follow(connection: Connection, mut newest: watch::Receiver<Revision>) {
    let mut connection = Some(connection);
    let mut moved = *newest.borrow();
    let due = |moved: Revision, newest: Revision| newest.0 >= moved.0 + EVERY_COMMITS;
    while newest.wait_for(|newest| due(moved, *newest)).await.is_ok() {
        moved = *newest.borrow();
        let Some(own) = connection.take() else { return };
        // A panic of it would be the end of moving, not of writing; the next start moves everything.
        let Ok(back) = tokio::task::spawn_blocking(move || passive(own)).await else { return };
        connection = Some(back);
    }
}

fn passive(connection: Connection) -> Connection {
    // Whatever it could not move is moved by the next; a disk that fails tells the writer too.
    let moved = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(2));
    drop(moved);
    connection
}
