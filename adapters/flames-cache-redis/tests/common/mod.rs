//! What the tests share.
#![allow(dead_code, unreachable_pub)]

use flames_cache_redis::{RedisCacheStore, RedisConfig};
use flames_testkit::Redis;

pub async fn open(server: &Redis, prefix: &str) -> RedisCacheStore {
    RedisCacheStore::open(config(server, prefix)).await.unwrap()
}

pub fn config(server: &Redis, prefix: &str) -> RedisConfig {
    RedisConfig::from_url(&format!("{}?prefix={prefix}", server.url())).unwrap()
}

/// Loses all keys of a prefix, as a server that is short of memory might.
pub async fn wipe(url: String, prefix: String) {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<Vec<u8>> =
        redis::cmd("KEYS").arg(format!("{prefix}*")).query_async(&mut connection).await.unwrap();
    if !keys.is_empty() {
        let () = redis::cmd("DEL").arg(keys).query_async(&mut connection).await.unwrap();
    }
}
