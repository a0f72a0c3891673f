//! The store: each call one piece of work on a connection.

use crate::bell::Bell;
use crate::connect::Database;
use crate::error::{ADAPTER, Subject};
use crate::read::History;
use crate::{PostgresConfig, commit, lease, read};
use async_trait::async_trait;
use flames_state::backend::follow;
use flames_state::{
    Key, Lease, LeaseTtl, Page, Record, Result, Revision, StateStore, Watch, Write, validate_commit,
    validate_page_limit,
};
use tokio::time::Instant;

/// Records in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStateStore {
    database: Database,
    bell: Bell,
    history: u64,
}

impl PostgresStateStore {
    /// Connects, and brings the schema up to date under a lock.
    ///
    /// # Errors
    /// `Unavailable` when the server cannot be reached in time; `PermissionDenied` for wrong credentials;
    /// `NotFound` for a missing database; `Unsupported` when a newer Flames has migrated it.
    pub async fn open(config: PostgresConfig) -> Result<Self> {
        let database = Database::open(&config).await?;
        let subject = Subject::new("open", "database", config.place());
        let bell = Bell::hang(database.clone()).await.map_err(|error| subject.failed(error.into()))?;
        Ok(Self { database, bell, history: config.history })
    }

    /// Closes the connections.
    pub async fn close(self) {
        drop(self.bell);
        self.database.pool.close().await;
    }
}

#[async_trait]
impl StateStore for PostgresStateStore {
    fn adapter(&self) -> &'static str {
        ADAPTER
    }

    async fn revision(&self) -> Result<Revision> {
        let subject = Subject::new("revision", "store", "");
        self.database.run(&subject, |connection| Box::pin(commit::newest(connection))).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        let subject = Subject::new("get", "record", key.as_str());
        let key = key.clone();
        self.database
            .run(&subject, |connection| Box::pin(async move { read::get(connection, &key).await }))
            .await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page> {
        validate_page_limit(limit).map_err(|error| error.adapter(ADAPTER))?;
        let subject = Subject::new("list", "prefix", prefix);
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.database
            .run(&subject, |connection| {
                Box::pin(async move { read::list(connection, &prefix, after.as_ref(), limit).await })
            })
            .await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision> {
        validate_commit(&writes).map_err(|error| error.adapter(ADAPTER))?;
        let subject =
            Subject::new("commit", "record", writes.first().map_or("", |write| write.key().as_str()));
        let history = self.history;
        self.database
            .run(&subject, |connection| {
                Box::pin(async move { commit::commit(connection, &writes, history).await })
            })
            .await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        let source = History { database: self.database.clone(), ring: self.bell.ring() };
        follow(source, prefix, from).await
    }

    async fn acquire_lease(&self, name: &Key, holder: &Key, ttl: LeaseTtl) -> Result<Lease> {
        let valid_until = Instant::now() + ttl.get();
        let subject = Subject::new("acquire_lease", "lease", name.as_str());
        let (taken, by) = (name.clone(), holder.clone());
        let token = self
            .database
            .run(&subject, |connection| {
                Box::pin(async move { lease::acquire(connection, &taken, &by, ttl).await })
            })
            .await?;
        Ok(Lease { name: name.clone(), holder: holder.clone(), token, valid_until })
    }

    async fn renew_lease(&self, lease: &Lease, ttl: LeaseTtl) -> Result<Lease> {
        let valid_until = Instant::now() + ttl.get();
        let subject = Subject::new("renew_lease", "lease", lease.name.as_str());
        let renewed = Lease { valid_until, ..lease.clone() };
        let lease = lease.clone();
        self.database
            .run(&subject, |connection| Box::pin(async move { lease::renew(connection, &lease, ttl).await }))
            .await?;
        Ok(renewed)
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let subject = Subject::new("release_lease", "lease", lease.name.as_str());
        let lease = lease.clone();
        self.database
            .run(&subject, |connection| Box::pin(async move { lease::release(connection, &lease).await }))
            .await
    }
}
