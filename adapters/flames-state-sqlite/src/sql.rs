//! Every statement, each as a function. Statements are compiled once per connection.

use flames_state::{Change, ChangeKind, Key, Record, Revision};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

pub(crate) type Result<T> = rusqlite::Result<T>;

const GET: &str = "SELECT key, value, revision FROM records WHERE key = ?1";
const LIST: &str =
    "SELECT key, value, revision FROM records WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";
const EVENTS: &str = "SELECT revision, key, value FROM events \
     WHERE revision > ?1 AND revision <= ?2 AND key >= ?3 AND key < ?4 ORDER BY revision, seq";

/// Which commits the history holds: those after `oldest`, up to `newest`.
pub(crate) struct Bounds {
    pub(crate) oldest: Revision,
    pub(crate) newest: Revision,
}

pub(crate) fn bounds(connection: &Connection) -> Result<Bounds> {
    let mut statement = connection.prepare_cached("SELECT oldest, revision FROM meta")?;
    statement.query_row([], |row| Ok(Bounds { oldest: number(row, 0)?, newest: number(row, 1)? }))
}

pub(crate) fn set_revision(connection: &Connection, revision: Revision) -> Result<()> {
    connection.prepare_cached("UPDATE meta SET revision = ?1")?.execute([signed(revision.0)]).map(drop)
}

/// Drops the events up to `oldest`.
pub(crate) fn prune(connection: &Connection, oldest: Revision) -> Result<()> {
    let oldest = signed(oldest.0);
    connection.prepare_cached("DELETE FROM events WHERE revision <= ?1")?.execute([oldest])?;
    connection.prepare_cached("UPDATE meta SET oldest = ?1")?.execute([oldest]).map(drop)
}

pub(crate) fn get(connection: &Connection, key: &Key) -> Result<Option<Record>> {
    connection.prepare_cached(GET)?.query_row([key.as_bytes()], record).optional()
}

/// The records of a range of keys, in order, until `take` has had enough.
pub(crate) fn list(
    connection: &Connection,
    range: &std::ops::Range<Vec<u8>>,
    limit: usize,
    mut take: impl FnMut(Record) -> Enough,
) -> Result<()> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(LIST)?;
    let mut rows = statement.query(params![range.start, range.end, limit])?;
    while let Some(row) = rows.next()? {
        if take(record(row)?) == Enough::Yes {
            break;
        }
    }
    Ok(())
}

/// Whether a reader wants another row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enough {
    Yes,
    No,
}

/// The changes of the commits after one up to another, as far as they touch a range of keys.
pub(crate) fn events(
    connection: &Connection,
    (after, reached): (Revision, Revision),
    range: &std::ops::Range<Vec<u8>>,
) -> Result<Vec<(Revision, Change)>> {
    let mut statement = connection.prepare_cached(EVENTS)?;
    let rows =
        statement.query_map(params![signed(after.0), signed(reached.0), range.start, range.end], change)?;
    rows.collect()
}

pub(crate) fn record_revision(connection: &Connection, key: &Key) -> Result<Option<Revision>> {
    let mut statement = connection.prepare_cached("SELECT revision FROM records WHERE key = ?1")?;
    statement.query_row([key.as_bytes()], |row| number(row, 0)).optional()
}

pub(crate) fn put(connection: &Connection, key: &Key, value: &[u8], revision: Revision) -> Result<()> {
    let upsert = "INSERT INTO records (key, value, revision) VALUES (?1, ?2, ?3) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision";
    connection.prepare_cached(upsert)?.execute(params![key.as_bytes(), value, signed(revision.0)]).map(drop)
}

/// False if there was nothing to delete.
pub(crate) fn delete(connection: &Connection, key: &Key) -> Result<bool> {
    let mut statement = connection.prepare_cached("DELETE FROM records WHERE key = ?1")?;
    Ok(statement.execute([key.as_bytes()])? > 0)
}

/// Remembers a change; no value means that the record was deleted.
pub(crate) fn add_event(
    connection: &Connection,
    (revision, seq): (Revision, usize),
    key: &Key,
    value: Option<&[u8]>,
) -> Result<()> {
    let insert = "INSERT INTO events (revision, seq, key, value) VALUES (?1, ?2, ?3, ?4)";
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    let row = params![signed(revision.0), seq, key.as_bytes(), value];
    connection.prepare_cached(insert)?.execute(row).map(drop)
}

/// Who has the lease at `now`.
pub(crate) fn lease_holder(connection: &Connection, name: &Key, now: i64) -> Result<Option<String>> {
    let query = "SELECT holder FROM leases WHERE name = ?1 AND expires_at > ?2";
    let mut statement = connection.prepare_cached(query)?;
    statement.query_row(params![name.as_bytes(), now], |row| row.get(0)).optional()
}

/// Gives the lease, over whatever was there, and its token.
pub(crate) fn take_lease(connection: &Connection, name: &Key, holder: &Key, until: i64) -> Result<u64> {
    let next = "UPDATE meta SET lease_token = lease_token + 1 RETURNING lease_token";
    let token: i64 = connection.prepare_cached(next)?.query_row([], |row| row.get(0))?;
    let replace = "REPLACE INTO leases (name, holder, token, expires_at) VALUES (?1, ?2, ?3, ?4)";
    let row = params![name.as_bytes(), holder.as_str(), token, until];
    connection.prepare_cached(replace)?.execute(row)?;
    Ok(token.unsigned_abs())
}

/// False if the lease is over at `now`.
pub(crate) fn extend_lease(
    connection: &Connection,
    (name, token): (&Key, u64),
    now: i64,
    until: i64,
) -> Result<bool> {
    let update = "UPDATE leases SET expires_at = ?1 WHERE name = ?2 AND token = ?3 AND expires_at > ?4";
    let mut statement = connection.prepare_cached(update)?;
    Ok(statement.execute(params![until, name.as_bytes(), signed(token), now])? > 0)
}

pub(crate) fn drop_lease(connection: &Connection, name: &Key, token: u64) -> Result<()> {
    let mut statement = connection.prepare_cached("DELETE FROM leases WHERE name = ?1 AND token = ?2")?;
    statement.execute(params![name.as_bytes(), signed(token)]).map(drop)
}

fn record(row: &Row<'_>) -> Result<Record> {
    let value: Vec<u8> = row.get(1)?;
    Ok(Record { key: key(row, 0)?, value: value.into(), revision: number(row, 2)? })
}

fn change(row: &Row<'_>) -> Result<(Revision, Change)> {
    let value: Option<Vec<u8>> = row.get(2)?;
    let kind = value.map_or(ChangeKind::Delete, |value| ChangeKind::Put(value.into()));
    Ok((number(row, 0)?, Change { key: key(row, 1)?, kind }))
}

fn key(row: &Row<'_>, column: usize) -> Result<Key> {
    let unreadable = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, error);
    let text = String::from_utf8(row.get(column)?).map_err(|error| unreadable(error.into()))?;
    Key::parse(text).map_err(|error| unreadable(error.into()))
}

fn number(row: &Row<'_>, column: usize) -> Result<Revision> {
    Ok(Revision(row.get::<_, i64>(column)?.unsigned_abs()))
}

/// SQLite's integers are signed; a counter does not get that far.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
