//! The only place that names adapters: from a URL to a provider.
//!
//! Each adapter is behind a feature of its own, so that a build can leave out what it does not need. A URL
//! whose adapter is not compiled in is refused by name.

mod vmm;

pub(crate) use vmm::driver;

use crate::config::{Config, ProviderUrl};
use anyhow::{Context, anyhow};
use flames_blob::{BlobStore, MemoryBlobStore};
use flames_cache::{CacheStore, MemoryCacheStore};
use flames_core::Providers;
use flames_ingress::{IngressProvider, MemoryIngress};
use flames_queue::WorkQueue;
use flames_queue::memory::MemoryQueue;
use flames_state::{MemoryStateStore, StateStore};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

/// Opens all five; what no URL names is embedded.
pub(crate) async fn open(config: &Config, data_dir: &Path) -> anyhow::Result<Providers> {
    let (urls, api) = (&config.providers, &config.api);
    let per_client = NonZeroU32::new(api.connections_per_client);
    let embedded = |scheme: &str, name: &str| ProviderUrl::embedded(scheme, &data_dir.join(name));
    let or = |url: &Option<ProviderUrl>, default| url.clone().unwrap_or(default);
    Ok(Providers {
        state: state(&or(&urls.state, embedded("sqlite", "state.db"))).await.context("providers.state")?,
        blob: blob(&or(&urls.blob, embedded("file", "blobs"))).await.context("providers.blob")?,
        cache: cache(&or(&urls.cache, ProviderUrl::memory())).await.context("providers.cache")?,
        queue: queue(&or(&urls.queue, embedded("sqlite", "queue.db"))).await.context("providers.queue")?,
        ingress: ingress(&or(&urls.ingress, ProviderUrl::proxy(api.listen)), per_client)
            .await
            .context("providers.ingress")?,
    })
}

async fn state(url: &ProviderUrl) -> anyhow::Result<Arc<dyn StateStore>> {
    Ok(match url.scheme() {
        "memory" => Arc::new(MemoryStateStore::new()),
        #[cfg(feature = "state-sqlite")]
        "sqlite" => {
            use flames_state_sqlite::{SqliteConfig, SqliteStateStore};
            Arc::new(SqliteStateStore::open(SqliteConfig::parse(url.expose())?).await?)
        }
        #[cfg(feature = "state-postgres")]
        "postgres" | "postgresql" => {
            use flames_state_postgres::{PostgresConfig, PostgresStateStore};
            Arc::new(PostgresStateStore::open(PostgresConfig::parse(url.expose())?).await?)
        }
        scheme => return Err(refused("state store", scheme, STATE)),
    })
}

async fn blob(url: &ProviderUrl) -> anyhow::Result<Arc<dyn BlobStore>> {
    Ok(match url.scheme() {
        "memory" => Arc::new(MemoryBlobStore::new()),
        #[cfg(feature = "blob-fs")]
        "file" => {
            use flames_blob_fs::{FsBlobStore, FsConfig};
            Arc::new(FsBlobStore::open(FsConfig::from_url(url.expose())?).await?)
        }
        #[cfg(feature = "blob-s3")]
        "s3" => {
            use flames_blob_s3::{S3BlobStore, S3Config};
            let config = S3Config::from_url(url.expose(), |name| std::env::var(name).ok())?;
            Arc::new(S3BlobStore::open(config).await?)
        }
        scheme => return Err(refused("blob store", scheme, BLOB)),
    })
}

async fn cache(url: &ProviderUrl) -> anyhow::Result<Arc<dyn CacheStore>> {
    Ok(match url.scheme() {
        "memory" => Arc::new(MemoryCacheStore::new()),
        #[cfg(feature = "cache-redis")]
        "redis" | "rediss" => {
            use flames_cache_redis::{RedisCacheStore, RedisConfig};
            Arc::new(RedisCacheStore::open(RedisConfig::from_url(url.expose())?).await?)
        }
        scheme => return Err(refused("cache", scheme, CACHE)),
    })
}

async fn queue(url: &ProviderUrl) -> anyhow::Result<Arc<dyn WorkQueue>> {
    Ok(match url.scheme() {
        "memory" => Arc::new(MemoryQueue::default()),
        #[cfg(feature = "queue-sqlite")]
        "sqlite" => {
            use flames_queue_sqlite::{SqliteQueue, SqliteQueueConfig};
            Arc::new(SqliteQueue::open(SqliteQueueConfig::from_url(url.expose())?).await?)
        }
        #[cfg(feature = "queue-postgres")]
        "postgres" | "postgresql" => {
            use flames_queue_postgres::{PostgresQueue, PostgresQueueConfig};
            Arc::new(PostgresQueue::open(PostgresQueueConfig::from_url(url.expose())?).await?)
        }
        #[cfg(feature = "queue-nats")]
        "nats" | "tls" => {
            use flames_queue_nats::{NatsQueue, NatsQueueConfig};
            Arc::new(NatsQueue::open(NatsQueueConfig::from_url(url.expose())?).await?)
        }
        scheme => return Err(refused("work queue", scheme, QUEUE)),
    })
}

async fn ingress(
    url: &ProviderUrl,
    #[cfg_attr(not(feature = "ingress-proxy"), expect(unused_variables, reason = "the proxy's alone"))]
    connections_per_client: Option<NonZeroU32>,
) -> anyhow::Result<Arc<dyn IngressProvider>> {
    Ok(match url.scheme() {
        "memory" => Arc::new(MemoryIngress::new()),
        #[cfg(feature = "ingress-proxy")]
        "proxy" => {
            use flames_ingress_proxy::{Proxy, ProxyConfig};
            let listen = url
                .authority()?
                .parse()
                .context("use proxy://address:port, for example proxy://0.0.0.0:80")?;
            let config = ProxyConfig { connections_per_client, ..ProxyConfig::new(listen) };
            Arc::new(Proxy::start(config).await?)
        }
        #[cfg(feature = "ingress-caddy")]
        "caddy" => {
            use flames_ingress_caddy::{CaddyConfig, CaddyIngress};
            const FORM: &str = "use caddy://admin-address:port?listen=address:port";
            let admin = url::Url::parse(&format!("http://{}", url.authority()?)).context(FORM)?;
            let listen = url.query("listen").ok_or_else(|| anyhow!(FORM))?.parse().context(FORM)?;
            Arc::new(CaddyIngress::new(CaddyConfig::new(admin, listen))?)
        }
        scheme => return Err(refused("ingress", scheme, INGRESS)),
    })
}

/// A scheme that some build knows, and the feature that brings its adapter.
type Known = (&'static str, &'static str);

const STATE: &[Known] =
    &[("sqlite", "state-sqlite"), ("postgres", "state-postgres"), ("postgresql", "state-postgres")];
const BLOB: &[Known] = &[("file", "blob-fs"), ("s3", "blob-s3")];
const CACHE: &[Known] = &[("redis", "cache-redis"), ("rediss", "cache-redis")];
const QUEUE: &[Known] = &[
    ("sqlite", "queue-sqlite"),
    ("postgres", "queue-postgres"),
    ("postgresql", "queue-postgres"),
    ("nats", "queue-nats"),
    ("tls", "queue-nats"),
];
const INGRESS: &[Known] = &[("proxy", "ingress-proxy"), ("caddy", "ingress-caddy")];

/// Tells a scheme that nobody knows from one that this build was made without.
fn refused(what: &str, scheme: &str, known: &[Known]) -> anyhow::Error {
    match known.iter().find(|(name, _)| *name == scheme) {
        Some((_, feature)) => {
            anyhow!("this build has no {what} for `{scheme}:`; build Flames with the feature `{feature}`")
        }
        None => {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).chain(["memory"]).collect();
            anyhow!("`{scheme}:` names no {what}; there are: {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open_refused(urls: &str) -> String {
        let config = Config::parse("f.toml", &format!("[providers]\n{urls}\n")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        format!("{:#}", open(&config, directory.path()).await.unwrap_err())
    }

    #[tokio::test]
    async fn an_unknown_scheme_names_the_setting_and_what_there_is() {
        let told = open_refused("state = \"mysql://x\"").await;
        assert!(
            told.starts_with("providers.state: `mysql:` names no state store; there are: sqlite"),
            "{told}"
        );
    }

    /// Each with what this build answers to a URL of the scheme: the same table in every build.
    const INTERFACES: [(&str, &[Known]); 5] =
        [("state", STATE), ("blob", BLOB), ("cache", CACHE), ("queue", QUEUE), ("ingress", INGRESS)];

    #[test]
    fn a_build_without_an_adapter_names_the_feature_that_brings_it() {
        for (what, known) in INTERFACES {
            for (scheme, feature) in known {
                let told = refused(what, scheme, known).to_string();
                let expected = format!(
                    "this build has no {what} for `{scheme}:`; build Flames with the feature `{feature}`"
                );
                assert_eq!(told, expected);
            }
        }
    }

    #[test]
    fn every_feature_of_the_manifest_is_named_by_a_refusal_and_no_other() {
        let manifest: toml::Table = toml::from_str(include_str!("../Cargo.toml")).unwrap();
        let features = manifest["features"].as_table().unwrap().keys().filter(|name| *name != "default");
        let declared: std::collections::BTreeSet<_> = features.map(String::as_str).collect();
        let named = INTERFACES.iter().flat_map(|(_, known)| known.iter().map(|(_, feature)| *feature));
        assert_eq!(named.collect::<std::collections::BTreeSet<_>>(), declared);
    }

    /// What a build can show of itself: a scheme is refused exactly if its feature is left out.
    #[tokio::test]
    async fn a_scheme_is_refused_by_name_exactly_when_its_feature_is_left_out() {
        let built_without = |told: &str| told.contains("this build has no");
        for (url, feature, built_in) in [
            ("state = \"postgres://me:x@:x/\"", "state-postgres", cfg!(feature = "state-postgres")),
            ("blob = \"s3://\"", "blob-s3", cfg!(feature = "blob-s3")),
            ("cache = \"redis://host:port\"", "cache-redis", cfg!(feature = "cache-redis")),
            ("queue = \"nats://host:port\"", "queue-nats", cfg!(feature = "queue-nats")),
            ("ingress = \"proxy://nowhere\"", "ingress-proxy", cfg!(feature = "ingress-proxy")),
            ("ingress = \"caddy://nowhere\"", "ingress-caddy", cfg!(feature = "ingress-caddy")),
        ] {
            let told = open_refused(url).await;
            assert_eq!(built_without(&told), !built_in, "{told}");
            assert!(built_in || told.ends_with(&format!("`{feature}`")), "{told}");
        }
    }

    #[tokio::test]
    async fn a_malformed_url_names_the_setting_and_keeps_its_secret() {
        for (setting, url) in [
            ("state", "postgres://me:hunter2@:x/"),
            ("cache", "redis://:hunter2@host:port"),
            ("queue", "nats://me:hunter2@host:port"),
            ("blob", "s3://"),
            ("ingress", "proxy://nowhere"),
            ("ingress", "caddy://127.0.0.1:2019"),
        ] {
            let told = open_refused(&format!("{setting} = \"{url}\"")).await;
            assert!(
                told.starts_with(&format!("providers.{setting}: ")) && !told.contains("hunter2"),
                "{told}"
            );
        }
    }
}
