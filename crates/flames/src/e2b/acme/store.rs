//! What is kept: the account and the certificate with its key, readable by the daemon's user alone, and replaced as a whole.

use super::life::Life;
use crate::places::make_private_dir;
use anyhow::Context;
use instant_acme::AccountCredentials;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use x509_parser::parse_x509_certificate;

/// A folder for each server: one for tries and the real one have nothing in common.
#[derive(Clone, Debug)]
pub(super) struct Store {
    folder: PathBuf,
    domain: String,
}

impl Store {
    pub(super) fn new(data: &Path, directory: &str, domain: &str) -> Self {
        Self { folder: data.join("acme").join(folder_name(directory)), domain: domain.to_owned() }
    }

    /// The file with the certificate and its key.
    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.domain))
    }

    fn account_file(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    /// That of the kept certificate, if there is one.
    pub(super) fn life(&self) -> anyhow::Result<Option<Life>> {
        let file = self.certificate();
        let Some(pem) = read(&file)? else { return Ok(None) };
        life_of(&pem).map(Some).with_context(|| format!("{} cannot be used", file.display()))
    }

    pub(super) fn account(&self) -> anyhow::Result<Option<AccountCredentials>> {
        let file = self.account_file();
        let Some(json) = read(&file)? else { return Ok(None) };
        let account = serde_json::from_slice(&json);
        account
            .map(Some)
            .with_context(|| format!("{} cannot be used: without it a new account is made", file.display()))
    }

    pub(super) fn keep_account(&self, account: &AccountCredentials) -> anyhow::Result<()> {
        self.replace(&self.account_file(), &serde_json::to_vec(account)?)
    }

    pub(super) fn keep_certificate(&self, pem: &str) -> anyhow::Result<()> {
        self.replace(&self.certificate(), pem.as_bytes())
    }

    fn replace(&self, file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        self.written(bytes)
            .and_then(|written| Ok(written.persist(file)?))
            .map(drop)
            .with_context(|| format!("{} cannot be written", file.display()))
    }

    /// A file of mode 0600 that is not in its place yet.
    fn written(&self, bytes: &[u8]) -> std::io::Result<tempfile::NamedTempFile> {
        make_private_dir(&self.folder)?;
        let mut written = tempfile::NamedTempFile::new_in(&self.folder)?;
        written.write_all(bytes)?;
        written.as_file().sync_all()?;
        Ok(written)
    }
}

/// `None` if there is no such file.
fn read(file: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", file.display())),
    }
}

/// Of the first certificate.
fn life_of(pem: &[u8]) -> anyhow::Result<Life> {
    let der = CertificateDer::from_pem_slice(pem)?;
    let (_, certificate) = parse_x509_certificate(&der).map_err(|error| anyhow::anyhow!("{error}"))?;
    let validity = certificate.validity();
    Ok(Life { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
}

/// A URL as the name of a folder.
fn folder_name(directory: &str) -> String {
    let rest = directory.split_once("://").map_or(directory, |(_, rest)| rest);
    rest.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_a_folder_and_none_leads_out() {
        let name = folder_name("https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!(name, "acme-v02.api.letsencrypt.org-directory");
        assert_eq!(folder_name("https://host:14000/../dir"), "host-14000-..-dir");
    }

    #[test]
    fn an_account_that_cannot_be_read_is_told_and_not_replaced() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::new(data.path(), "https://acme.test/directory", "box.test");
        assert!(store.account().unwrap().is_none() && store.life().unwrap().is_none());
        store.replace(&store.account_file(), b"rubbish").unwrap();
        let Err(error) = store.account() else { panic!("rubbish is an account") };
        assert!(format!("{error:#}").contains("account.json cannot be used"), "{error:#}");
        store.keep_certificate("rubbish").unwrap();
        assert!(store.life().is_err());
    }
}
