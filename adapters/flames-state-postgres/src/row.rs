//! Rows to values.

use flames_state::{Change, ChangeKind, Key, Record, Revision};
use sqlx::Row;
use sqlx::postgres::PgRow;

/// Columns: key, value, revision.
pub(crate) fn record(row: &PgRow) -> sqlx::Result<Record> {
    let value: Vec<u8> = row.try_get(1)?;
    Ok(Record { key: key(row, 0)?, value: value.into(), revision: revision(row, 2)? })
}

/// Columns from `first`: revision, key, value. `None` for the row that only carries the bounds.
pub(crate) fn change(row: &PgRow, first: usize) -> sqlx::Result<Option<(Revision, Change)>> {
    let Some(number) = row.try_get::<Option<i64>, _>(first)? else { return Ok(None) };
    let value: Option<Vec<u8>> = row.try_get(first + 2)?;
    let kind = value.map_or(ChangeKind::Delete, |value| ChangeKind::Put(value.into()));
    Ok(Some((Revision(number.unsigned_abs()), Change { key: key(row, first + 1)?, kind })))
}

pub(crate) fn key(row: &PgRow, column: usize) -> sqlx::Result<Key> {
    let text = String::from_utf8(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Key::parse(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

pub(crate) fn revision(row: &PgRow, column: usize) -> sqlx::Result<Revision> {
    Ok(Revision(row.try_get::<i64, _>(column)?.unsigned_abs()))
}

/// PostgreSQL's integers are signed; a counter does not get that far.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
