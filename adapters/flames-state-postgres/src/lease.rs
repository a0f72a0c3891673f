//! Leases, by the server's clock.

use crate::error::{Failure, Subject};
use crate::row::{self, signed};
use flames_state::{Error, ErrorKind, Key, Lease, LeaseTtl, Result};
use sqlx::{Connection, PgConnection, Row};

/// Microseconds since 1970 at this moment, not at the start of the transaction: it may have waited for a lock.
macro_rules! now {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    };
}

const NEXT_TOKEN: &str = "UPDATE meta SET lease_token = lease_token + 1 RETURNING lease_token";
const TAKE: &str = concat!(
    "INSERT INTO leases (name, holder, token, expires_at) VALUES ($1, $2, $3, ",
    now!(),
    " + $4) ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = excluded.token, \
     expires_at = excluded.expires_at WHERE leases.expires_at <= ",
    now!()
);
const HOLDER: &str = "SELECT holder FROM leases WHERE name = $1";
const RENEW: &str = concat!(
    "UPDATE leases SET expires_at = ",
    now!(),
    " + $3 WHERE name = $1 AND token = $2 AND expires_at > ",
    now!()
);
const RELEASE: &str = "DELETE FROM leases WHERE name = $1 AND token = $2";

/// Gives the token. Counting first lets one taker in at a time, so tokens come in the order of the takers.
pub(crate) async fn acquire(
    connection: &mut PgConnection,
    name: &Key,
    holder: &Key,
    ttl: LeaseTtl,
) -> Result<u64, Failure> {
    let mut transaction = connection.begin().await?;
    let token: i64 = sqlx::query(NEXT_TOKEN).fetch_one(&mut *transaction).await?.try_get(0)?;
    let take =
        sqlx::query(TAKE).bind(name.as_bytes()).bind(holder.as_bytes()).bind(token).bind(ttl.as_micros());
    if take.execute(&mut *transaction).await?.rows_affected() == 0 {
        let held = sqlx::query(HOLDER).bind(name.as_bytes()).fetch_one(&mut *transaction).await?;
        return Err(conflict("acquire_lease", name, format!("held by `{}`", row::key(&held, 0)?)).into());
    }
    transaction.commit().await.map_err(Failure::of_commit)?;
    Ok(token.unsigned_abs())
}

pub(crate) async fn renew(
    connection: &mut PgConnection,
    lease: &Lease,
    ttl: LeaseTtl,
) -> Result<(), Failure> {
    let renew =
        sqlx::query(RENEW).bind(lease.name.as_bytes()).bind(signed(lease.token)).bind(ttl.as_micros());
    match renew.execute(connection).await?.rows_affected() {
        0 => Err(conflict("renew_lease", &lease.name, "it is over".to_owned()).into()),
        _ => Ok(()),
    }
}

pub(crate) async fn release(connection: &mut PgConnection, lease: &Lease) -> Result<(), Failure> {
    let release = sqlx::query(RELEASE).bind(lease.name.as_bytes()).bind(signed(lease.token));
    release.execute(connection).await?;
    Ok(())
}

fn conflict(operation: &'static str, name: &Key, detail: String) -> Error {
    Subject::new(operation, "lease", name.as_str()).error(ErrorKind::Conflict).detail(detail)
}
