//! A certificate from an ACME server (RFC 8555): of the domain and of all hosts below it, proven by DNS records that a
//! program of the user's sets (DNS-01), and renewed when a third of its life is left.
//!
//! What goes wrong is logged with its cause and tried again, later each time. Whatever certificate is there stays in force.

mod hook;
mod life;
mod order;
mod store;
mod transport;

#[cfg(test)]
mod double;
#[cfg(test)]
mod tests;

use super::certificate::{self, Files};
use crate::config;
use anyhow::Context;
use hook::Hook;
use instant_acme::{Account, NewAccount};
use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use transport::Http;

/// How often the certificate's age is looked at: a clock may be set, and a machine may sleep.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// Gets the certificate of one domain from one server, again and again.
#[derive(Debug)]
pub(super) struct Acme {
    directory: String,
    contact: Option<String>,
    domain: String,
    hook: Hook,
    http: Http,
    store: Store,
    provider: Arc<CryptoProvider>,
}

impl Acme {
    /// Asks nobody yet. Account and certificate are kept below the data directory `data`, for each server apart.
    pub(super) fn new(
        settings: &config::Acme,
        domain: String,
        data: &Path,
        provider: Arc<CryptoProvider>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            directory: settings.directory.clone(),
            contact: settings.contact.clone(),
            hook: Hook::new(settings.hook.clone()),
            http: Http::new()?,
            store: Store::new(data, &settings.directory, &domain),
            domain,
            provider,
        })
    }

    /// Where the certificate and its key are, or will be: in one file, so that they change in the same moment.
    pub(super) fn files(&self) -> Files {
        Files { certificate: self.store.certificate(), key: self.store.certificate() }
    }

    /// Gets a certificate when there is none, and whenever the one that is there is due.
    pub(super) async fn follow(&self) {
        let mut failures = 0;
        loop {
            let pause = self.turn(&mut failures).await;
            tokio::time::sleep(pause).await;
        }
    }

    /// Does what is due, and gives how long nothing will be.
    async fn turn(&self, failures: &mut u32) -> Duration {
        let wait = self.due_in();
        if !wait.is_zero() {
            return wait.min(LOOK_EVERY);
        }
        let (domain, server) = (&self.domain, &self.directory);
        tracing::info!(domain, server, "asking for a certificate");
        match self.renew().await {
            Ok(()) => {
                tracing::info!(domain, server, "a certificate was got");
                *failures = 0;
                // Not at once, should the new one be due already.
                LOOK_EVERY
            }
            Err(error) => {
                let (error, pause) = (format!("{error:#}"), life::pause(*failures));
                tracing::error!(
                    domain,
                    server,
                    error,
                    "no certificate was got: the next try is in {pause:?}"
                );
                *failures = failures.saturating_add(1);
                pause
            }
        }
    }

    /// Zero when there is no certificate that could be used.
    fn due_in(&self) -> Duration {
        match self.store.life() {
            Ok(Some(life)) => life.due_in(Timestamp::now().as_second()),
            Ok(None) => Duration::ZERO,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the kept certificate is not usable");
                Duration::ZERO
            }
        }
    }

    /// Gets a certificate and puts it in place of the one that is there.
    async fn renew(&self) -> anyhow::Result<()> {
        let account = self.account().await?;
        let pem = order::obtain(&account, &self.domain, &self.hook).await?;
        certificate::check(pem.as_bytes(), &self.provider)
            .context("the server's certificate is not usable")?;
        self.store.keep_certificate(&pem)
    }

    /// The one that is kept, or a new one.
    async fn account(&self) -> anyhow::Result<Account> {
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        if let Some(known) = self.store.account()? {
            return builder.from_credentials(known).await.context("the server could not be asked");
        }
        let contact: Vec<&str> = self.contact.iter().map(String::as_str).collect();
        let wanted =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = builder
            .create(&wanted, self.directory.clone(), None)
            .await
            .context("no account could be made")?;
        self.store.keep_account(&credentials)?;
        Ok(account)
    }
}
