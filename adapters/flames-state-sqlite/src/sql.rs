//! Every statement, each as a function.

use flames_state::{Change, ChangeKind, Key, Record, Revision};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

type Result<T> = sqlx::Result<T>;

pub(crate) const GET: &str = "SELECT key, value, revision FROM records WHERE key = $1";
pub(crate) const LIST: &str =
    "SELECT key, value, revision FROM records WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3";
pub(crate) const EVENTS: &str = "SELECT revision, key, value FROM events \
     WHERE revision > $1 AND revision <= $2 AND key >= $3 AND key < $4 ORDER BY revision, seq";

/// The newest commit.
pub(crate) async fn revision(connection: &mut SqliteConnection) -> Result<Revision> {
    Ok(bounds(connection).await?.newest)
}

/// Which commits the history holds: those after `oldest`, up to `newest`.
pub(crate) struct Bounds {
    pub(crate) oldest: Revision,
    pub(crate) newest: Revision,
}

pub(crate) async fn bounds(connection: &mut SqliteConnection) -> Result<Bounds> {
    let row = sqlx::query("SELECT oldest, revision FROM meta").fetch_one(connection).await?;
    Ok(Bounds { oldest: number(&row, 0)?, newest: number(&row, 1)? })
}

pub(crate) async fn set_revision(connection: &mut SqliteConnection, revision: Revision) -> Result<()> {
    sqlx::query("UPDATE meta SET revision = $1").bind(signed(revision.0)).execute(connection).await.map(drop)
}

/// Drops the events up to `oldest`.
pub(crate) async fn prune(connection: &mut SqliteConnection, oldest: Revision) -> Result<()> {
    let oldest = signed(oldest.0);
    sqlx::query("DELETE FROM events WHERE revision <= $1").bind(oldest).execute(&mut *connection).await?;
    sqlx::query("UPDATE meta SET oldest = $1").bind(oldest).execute(connection).await.map(drop)
}

pub(crate) async fn record_revision(
    connection: &mut SqliteConnection,
    key: &Key,
) -> Result<Option<Revision>> {
    let query = sqlx::query("SELECT revision FROM records WHERE key = $1").bind(key.as_bytes());
    query.fetch_optional(connection).await?.map(|row| number(&row, 0)).transpose()
}

pub(crate) async fn put(connection: &mut SqliteConnection, record: &Record) -> Result<()> {
    let upsert = "INSERT INTO records (key, value, revision) VALUES ($1, $2, $3) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision";
    let query = sqlx::query(upsert).bind(record.key.as_bytes()).bind(&record.value[..]);
    query.bind(signed(record.revision.0)).execute(connection).await.map(drop)
}

/// False if there was nothing to delete.
pub(crate) async fn delete(connection: &mut SqliteConnection, key: &Key) -> Result<bool> {
    let query = sqlx::query("DELETE FROM records WHERE key = $1").bind(key.as_bytes());
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

/// Remembers a change; no value means that the record was deleted.
pub(crate) async fn add_event(
    connection: &mut SqliteConnection,
    (revision, seq): (Revision, usize),
    key: &Key,
    value: Option<&[u8]>,
) -> Result<()> {
    let query = sqlx::query("INSERT INTO events (revision, seq, key, value) VALUES ($1, $2, $3, $4)");
    let query = query.bind(signed(revision.0)).bind(i64::try_from(seq).unwrap_or(i64::MAX));
    query.bind(key.as_bytes()).bind(value).execute(connection).await.map(drop)
}

/// Who has the lease at `now`.
pub(crate) async fn lease_holder(
    connection: &mut SqliteConnection,
    name: &Key,
    now: i64,
) -> Result<Option<String>> {
    let query = sqlx::query("SELECT holder FROM leases WHERE name = $1 AND expires_at > $2");
    query
        .bind(name.as_bytes())
        .bind(now)
        .fetch_optional(connection)
        .await?
        .map(|row| row.try_get(0))
        .transpose()
}

/// Gives the lease, over whatever was there, and its token.
pub(crate) async fn take_lease(
    connection: &mut SqliteConnection,
    name: &Key,
    holder: &Key,
    until: i64,
) -> Result<u64> {
    let next = sqlx::query("UPDATE meta SET lease_token = lease_token + 1 RETURNING lease_token");
    let token: i64 = next.fetch_one(&mut *connection).await?.try_get(0)?;
    let replace =
        sqlx::query("REPLACE INTO leases (name, holder, token, expires_at) VALUES ($1, $2, $3, $4)");
    let replace = replace.bind(name.as_bytes()).bind(holder.as_str()).bind(token).bind(until);
    replace.execute(connection).await?;
    Ok(token.unsigned_abs())
}

/// False if the lease is over at `now`.
pub(crate) async fn extend_lease(
    connection: &mut SqliteConnection,
    (name, token): (&Key, u64),
    now: i64,
    until: i64,
) -> Result<bool> {
    let update = "UPDATE leases SET expires_at = $1 WHERE name = $2 AND token = $3 AND expires_at > $4";
    let query = sqlx::query(update).bind(until).bind(name.as_bytes()).bind(signed(token)).bind(now);
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

pub(crate) async fn drop_lease(connection: &mut SqliteConnection, name: &Key, token: u64) -> Result<()> {
    let query = sqlx::query("DELETE FROM leases WHERE name = $1 AND token = $2");
    query.bind(name.as_bytes()).bind(signed(token)).execute(connection).await.map(drop)
}

/// A row of [`GET`] or [`LIST`].
pub(crate) fn record(row: &SqliteRow) -> Result<Record> {
    let value: Vec<u8> = row.try_get(1)?;
    Ok(Record { key: key(row, 0)?, value: value.into(), revision: number(row, 2)? })
}

/// A row of [`EVENTS`].
pub(crate) fn change(row: &SqliteRow) -> Result<(Revision, Change)> {
    let value: Option<Vec<u8>> = row.try_get(2)?;
    let kind = value.map_or(ChangeKind::Delete, |value| ChangeKind::Put(value.into()));
    Ok((number(row, 0)?, Change { key: key(row, 1)?, kind }))
}

fn key(row: &SqliteRow, column: usize) -> Result<Key> {
    let text = String::from_utf8(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Key::parse(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn number(row: &SqliteRow, column: usize) -> Result<Revision> {
    Ok(Revision(row.try_get::<i64, _>(column)?.unsigned_abs()))
}

/// SQLite's integers are signed; a counter does not get that far.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
