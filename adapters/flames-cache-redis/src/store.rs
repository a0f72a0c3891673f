//! The implementation of [`CacheStore`].

use crate::RedisConfig;
use crate::error::{ADAPTER, failed, overdue};
use async_trait::async_trait;
use bytes::Bytes;
use flames_cache::{CacheKey, CacheStore, CacheValue, Error, ErrorKind, Result, SetIfAbsent, Ttl};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ConnectionInfo, FromRedisValue, RedisResult, Script};
use std::fmt;
use std::time::Duration;

/// A cache on one Redis server.
#[derive(Clone)]
pub struct RedisCacheStore {
    connection: ConnectionManager,
    prefix: String,
    increment: Script,
}

/// To connect and to say who we are.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For the answer to one command.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// For a call as a whole: it may wait for the connection, then for its place in the queue, then for the answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// For the network to carry what was sent: a host that vanished without a word ends the connection, and the
/// next call makes another.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(10);

/// `SET NX` and `INCRBY` in one step, between which the entry cannot end. The sum is read as text, since a
/// number of Lua has 53 bits; `false` stands for a value that cannot be added to.
const INCREMENT: &str = r"
    redis.call('SET', KEYS[1], '0', 'NX', 'PX', ARGV[2])
    local sum = redis.pcall('INCRBY', KEYS[1], ARGV[1])
    if type(sum) == 'table' then
        return false
    end
    return redis.call('GET', KEYS[1])
";

impl RedisCacheStore {
    /// Connects.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` when there is no server, `PermissionDenied` when it refuses the password.
    pub async fn open(config: RedisConfig) -> Result<Self> {
        let address = config.server.addr().to_string();
        let connect = async {
            let client = Client::open(giving_up(config.server))?;
            // No attempts of its own: each call that finds no connection makes one.
            let settings = ConnectionManagerConfig::new()
                .set_number_of_retries(0)
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(RESPONSE_TIMEOUT));
            ConnectionManager::new_with_config(client, settings).await
        };
        let connection = bounded(&address, "open", connect).await?;
        Ok(Self { connection, prefix: config.prefix, increment: Script::new(INCREMENT) })
    }

    fn command(&self, name: &str, key: &CacheKey) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(self.name(key));
        command
    }

    fn name(&self, key: &CacheKey) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn call<T: FromRedisValue>(
        &self,
        key: &CacheKey,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T> {
        let mut connection = self.connection.clone();
        bounded(key.as_str(), operation, command.query_async(&mut connection)).await
    }
}

#[async_trait]
impl CacheStore for RedisCacheStore {
    fn adapter(&self) -> &'static str {
        ADAPTER
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>> {
        let value: Option<Vec<u8>> = self.call(key, "get", &self.command("GET", key)).await?;
        Ok(value.map(Bytes::from))
    }

    async fn set(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<()> {
        let mut command = self.command("SET", key);
        command.arg(value.as_bytes()).arg("PX").arg(ttl.as_millis());
        self.call(key, "set", &command).await
    }

    async fn set_if_absent(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<SetIfAbsent> {
        let mut command = self.command("SET", key);
        command.arg(value.as_bytes()).arg("NX").arg("PX").arg(ttl.as_millis());
        let stored: Option<String> = self.call(key, "set_if_absent", &command).await?;
        Ok(stored.map_or(SetIfAbsent::Taken, |_| SetIfAbsent::Stored))
    }

    async fn increment(&self, key: &CacheKey, by: i64, ttl: Ttl) -> Result<i64> {
        let mut connection = self.connection.clone();
        let mut call = self.increment.key(self.name(key));
        call.arg(by).arg(ttl.as_millis());
        let sum = bounded(key.as_str(), "increment", call.invoke_async(&mut connection));
        let sum: Option<i64> = sum.await?;
        sum.ok_or_else(|| no_number(key))
    }

    async fn delete(&self, key: &CacheKey) -> Result<()> {
        self.call(key, "delete", &self.command("DEL", key)).await
    }
}

fn giving_up(server: ConnectionInfo) -> ConnectionInfo {
    let settings = server.tcp_settings().clone().set_user_timeout(NETWORK_TIMEOUT);
    server.set_tcp_settings(settings)
}

async fn bounded<T>(
    id: &str,
    operation: &'static str,
    call: impl Future<Output = RedisResult<T>>,
) -> Result<T> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|source| failed(id, operation, source)),
        Err(_) => Err(overdue(id, operation)),
    }
}

fn no_number(key: &CacheKey) -> Error {
    let error = Error::new(ErrorKind::InvalidInput, "cache entry", key.as_str());
    error
        .operation("increment")
        .adapter(ADAPTER)
        .detail("the value is no number, or the sum does not fit 64 bits")
}

impl fmt::Debug for RedisCacheStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCacheStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
