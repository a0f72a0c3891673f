//! The conditional commit, as one transaction.

use crate::error::{ADAPTER, Failure};
use crate::row::{self, signed};
use flames_state::{Key, Result, Revision, Write};
use sqlx::{Connection, PgConnection, Row};
use std::collections::{HashMap, HashSet};

/// Wakes every watch on the database. Carries nothing: watches read the events.
pub(crate) const CHANNEL: &str = "flames_state";
/// Events are pruned by one commit in so many.
const PRUNE_EVERY: u64 = 100;

const COUNT: &str = "UPDATE meta SET revision = revision + 1 RETURNING revision";
const REVISIONS: &str = "SELECT key, revision FROM records WHERE key = ANY($1)";
const PUT: &str = "INSERT INTO records (key, value, revision) \
     SELECT key, value, $3 FROM unnest($1::bytea[], $2::bytea[]) AS new (key, value) \
     ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision";
const DELETE: &str = "DELETE FROM records WHERE key = ANY($1)";
const ADD_EVENTS: &str = "INSERT INTO events (revision, seq, key, value) \
     SELECT $1, seq, key, value FROM unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY AS new (key, value, seq)";
const NOTIFY: &str = "SELECT pg_notify($1, '')";

/// Counting first takes the lock that makes everything after it a look at the newest state.
pub(crate) async fn commit(
    connection: &mut PgConnection,
    writes: &[Write],
    history: u64,
) -> Result<Revision, Failure> {
    let mut transaction = connection.begin().await?;
    let revision = row::revision(&sqlx::query(COUNT).fetch_one(&mut *transaction).await?, 0)?;
    let current = revisions(&mut transaction, writes).await?;
    for write in writes {
        let found = current.get(write.key()).copied();
        write.precondition().check(write.key(), found).map_err(|error| error.adapter(ADAPTER))?;
    }
    apply(&mut transaction, &Changes::of(writes, &current), revision).await?;
    if revision.0.is_multiple_of(PRUNE_EVERY) {
        prune(&mut transaction, Revision(revision.0.saturating_sub(history))).await?;
    }
    transaction.commit().await.map_err(Failure::of_commit)?;
    Ok(revision)
}

async fn revisions(connection: &mut PgConnection, writes: &[Write]) -> sqlx::Result<HashMap<Key, Revision>> {
    let keys: Vec<&[u8]> = writes.iter().map(|write| write.key().as_bytes()).collect();
    let rows = sqlx::query(REVISIONS).bind(keys).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row::key(row, 0)?, row::revision(row, 1)?))).collect()
}

/// What a commit does, as columns.
#[derive(Debug, Default, PartialEq)]
struct Changes<'a> {
    put_keys: Vec<&'a [u8]>,
    put_values: Vec<&'a [u8]>,
    deleted: Vec<&'a [u8]>,
    /// All of them in order; no value is a delete.
    keys: Vec<&'a [u8]>,
    values: Vec<Option<&'a [u8]>>,
}

impl<'a> Changes<'a> {
    fn of(writes: &'a [Write], current: &HashMap<Key, Revision>) -> Self {
        let mut changes = Self::default();
        let existing: HashSet<&Key> = current.keys().collect();
        for write in writes {
            match write {
                Write::Put { key, value, .. } => changes.put(key.as_bytes(), value),
                Write::Delete { key, .. } if existing.contains(key) => changes.delete(key.as_bytes()),
                Write::Delete { .. } | Write::Check { .. } => {}
            }
        }
        changes
    }

    fn put(&mut self, key: &'a [u8], value: &'a [u8]) {
        self.put_keys.push(key);
        self.put_values.push(value);
        self.keys.push(key);
        self.values.push(Some(value));
    }

    fn delete(&mut self, key: &'a [u8]) {
        self.deleted.push(key);
        self.keys.push(key);
        self.values.push(None);
    }
}

async fn apply(connection: &mut PgConnection, changes: &Changes<'_>, revision: Revision) -> sqlx::Result<()> {
    let number = signed(revision.0);
    if !changes.put_keys.is_empty() {
        let put = sqlx::query(PUT).bind(&changes.put_keys).bind(&changes.put_values).bind(number);
        put.execute(&mut *connection).await?;
    }
    if !changes.deleted.is_empty() {
        sqlx::query(DELETE).bind(&changes.deleted).execute(&mut *connection).await?;
    }
    if !changes.keys.is_empty() {
        let add = sqlx::query(ADD_EVENTS).bind(number).bind(&changes.keys).bind(&changes.values);
        add.execute(&mut *connection).await?;
        sqlx::query(NOTIFY).bind(CHANNEL).execute(connection).await?;
    }
    Ok(())
}

async fn prune(connection: &mut PgConnection, oldest: Revision) -> sqlx::Result<()> {
    let oldest = signed(oldest.0);
    sqlx::query("DELETE FROM events WHERE revision <= $1").bind(oldest).execute(&mut *connection).await?;
    let grow = sqlx::query("UPDATE meta SET oldest = GREATEST(oldest, $1)").bind(oldest);
    grow.execute(connection).await.map(drop)
}

/// The newest commit.
pub(crate) async fn newest(connection: &mut PgConnection) -> Result<Revision, Failure> {
    let row = sqlx::query("SELECT revision FROM meta").fetch_one(connection).await?;
    Ok(Revision(row.try_get::<i64, _>(0)?.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_state::Precondition;

    #[test]
    fn deletes_of_nothing_and_checks_are_no_changes() {
        let key = |name: &str| Key::parse(name).unwrap();
        let (there, missing, guard) = (key("there"), key("missing"), key("guard"));
        let precondition = Precondition::None;
        let writes = vec![
            Write::Delete { key: there.clone(), precondition },
            Write::Delete { key: missing, precondition },
            Write::Check { key: guard.clone(), precondition },
        ];
        let current = HashMap::from([(there, Revision(1)), (guard, Revision(2))]);
        let changes = Changes::of(&writes, &current);
        assert_eq!((changes.keys, changes.values), (vec![&b"there"[..]], vec![None]));
        assert!(changes.put_keys.is_empty());
    }
}
