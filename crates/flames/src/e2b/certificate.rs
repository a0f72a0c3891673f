//! The listener's certificate: read from its files again when they change, so that whoever renews it need not restart
//! anything.

use anyhow::Context;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often the files are looked at: two small reads.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate with its key, and the files that it comes from.
#[derive(Debug)]
pub(super) struct Certificate {
    files: Files,
    provider: Arc<CryptoProvider>,
    /// None yet: every handshake fails.
    in_force: RwLock<Option<Arc<CertifiedKey>>>,
    /// What was read first: a change before somebody follows is one, too.
    first: Option<Pem>,
}

/// May be the same file twice.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What the two files hold.
#[derive(Clone, PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    /// Reads the files, which must hold a certificate and the key that belongs to it.
    pub(super) fn read(files: Files, provider: Arc<CryptoProvider>) -> anyhow::Result<Self> {
        let first = files.pem()?;
        let in_force = RwLock::new(Some(Arc::new(files.certified(&first, &provider)?)));
        Ok(Self { files, provider, in_force, first: Some(first) })
    }

    /// Reads files that somebody will write, if they are not there.
    pub(super) fn awaited(files: Files, provider: Arc<CryptoProvider>) -> Self {
        let nothing = Self {
            files: files.clone(),
            provider: Arc::clone(&provider),
            in_force: RwLock::default(),
            first: None,
        };
        match files.certificate.exists() {
            true => Self::read(files, provider).unwrap_or_else(|error| {
                tracing::error!(error = format!("{error:#}"), "the certificate is not usable");
                nothing
            }),
            false => nothing,
        }
    }

    /// Takes what the files hold whenever that has changed. What cannot be used is told once and not taken: a
    /// certificate and its key are seldom replaced in the same moment.
    pub(super) async fn follow(&self) {
        let mut turn = tokio::time::interval(LOOK_EVERY);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.first.clone();
        loop {
            turn.tick().await;
            let now = self.files.pem();
            if now.as_ref().ok() == seen.as_ref() {
                continue;
            }
            match now
                .as_ref()
                .map_err(ToString::to_string)
                .and_then(|pem| self.take(pem).map_err(|error| format!("{error:#}")))
            {
                Ok(()) => {
                    tracing::info!(file = %self.files.certificate.display(), "a new certificate is in force")
                }
                Err(error) => tracing::error!(%error, "the new certificate is not usable: the old one stays"),
            }
            seen = now.ok();
        }
    }

    fn take(&self, pem: &Pem) -> anyhow::Result<()> {
        let certified = Arc::new(self.files.certified(pem, &self.provider)?);
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Some(certified);
        Ok(())
    }

    fn in_force(&self) -> Option<Arc<CertifiedKey>> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.in_force()
    }
}

/// Whether PEM holds a certificate and the key that belongs to it.
pub(super) fn check(pem: &[u8], provider: &CryptoProvider) -> anyhow::Result<()> {
    let pem = Pem { certificate: pem.to_vec(), key: pem.to_vec() };
    pem.certified(pem.chain()?, provider).map(drop)
}

impl Files {
    fn pem(&self) -> anyhow::Result<Pem> {
        let read = |path: &Path, setting: &str| {
            std::fs::read(path).with_context(|| format!("{} cannot be used", self.named(path, setting)))
        };
        let certificate = read(&self.certificate, "tls_certificate")?;
        // Of one file both are of the same moment.
        let key = if self.is_one() { certificate.clone() } else { read(&self.key, "tls_key")? };
        Ok(Pem { certificate, key })
    }

    fn certified(&self, pem: &Pem, provider: &CryptoProvider) -> anyhow::Result<CertifiedKey> {
        let unusable = |path: &Path, setting: &str| format!("{} cannot be used", self.named(path, setting));
        let chain = pem.chain().with_context(|| unusable(&self.certificate, "tls_certificate"))?;
        pem.certified(chain, provider).with_context(|| unusable(&self.key, "tls_key"))
    }

    fn is_one(&self) -> bool {
        self.certificate == self.key
    }

    fn named(&self, path: &Path, setting: &str) -> String {
        if self.is_one() { path.display().to_string() } else { format!("e2b.{setting}: {}", path.display()) }
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem")
    }
}

impl Pem {
    fn chain(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<Vec<_>, _>>()?;
        anyhow::ensure!(!chain.is_empty(), "it holds no certificate");
        Ok(chain)
    }

    /// Refuses a key of another certificate.
    fn certified(
        &self,
        chain: Vec<CertificateDer<'static>>,
        provider: &CryptoProvider,
    ) -> anyhow::Result<CertifiedKey> {
        let key = PrivateKeyDer::from_pem_slice(&self.key)?;
        Ok(CertifiedKey::from_der(chain, key, provider)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn files(&self) -> Files {
            Files { certificate: self.0.path().join("tls.pem"), key: self.0.path().join("tls.key") }
        }

        /// Puts a new certificate in place and gives it.
        fn renew(&self) -> Vec<u8> {
            let rcgen::CertifiedKey { cert, signing_key } =
                rcgen::generate_simple_self_signed(["box.test".to_owned()]).unwrap();
            std::fs::write(self.files().certificate, cert.pem()).unwrap();
            std::fs::write(self.files().key, signing_key.serialize_pem()).unwrap();
            cert.der().to_vec()
        }
    }

    fn read(files: Files) -> anyhow::Result<Certificate> {
        Certificate::read(files, Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
    }

    fn shown(certificate: &Certificate) -> Vec<u8> {
        certificate.in_force().unwrap().cert[0].to_vec()
    }

    /// Until it is in force; the clock of the test jumps ahead while nobody works.
    async fn wait_for(certificate: &Certificate, expected: &[u8]) {
        let (began, mut look) = (Instant::now(), tokio::time::interval(LOOK_EVERY));
        while shown(certificate) != expected {
            assert!(began.elapsed() < Duration::from_secs(20), "it is not taken");
            look.tick().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
        let folder = Folder::new();
        let first = folder.renew();
        let certificate = Arc::new(read(folder.files()).unwrap());
        assert_eq!(shown(&certificate), first);
        let follower = Arc::clone(&certificate);
        let following = tokio::spawn(async move { follower.follow().await });
        let second = folder.renew();
        wait_for(&certificate, &second).await;

        for broken in ["", "rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(folder.files().certificate, broken).unwrap();
            tokio::time::sleep(3 * LOOK_EVERY).await;
            assert_eq!(shown(&certificate), second, "{broken:?}");
        }
        std::fs::remove_file(folder.files().certificate).unwrap();
        tokio::time::sleep(3 * LOOK_EVERY).await;
        assert_eq!(shown(&certificate), second);
        let third = folder.renew();
        wait_for(&certificate, &third).await;
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_is_awaited_is_taken_once_it_is_there() {
        let folder = Folder::new();
        let file = folder.files().certificate;
        let files = Files { certificate: file.clone(), key: file.clone() };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificate = Arc::new(Certificate::awaited(files.clone(), Arc::clone(&provider)));
        assert!(certificate.in_force().is_none());
        let follower = Arc::clone(&certificate);
        let following = tokio::spawn(async move { follower.follow().await });
        let expected = folder.renew();
        let both = [std::fs::read(folder.files().key).unwrap(), std::fs::read(&file).unwrap()].concat();
        std::fs::write(&file, both).unwrap();
        let mut look = tokio::time::interval(LOOK_EVERY);
        for _ in 0..10 {
            look.tick().await;
        }
        assert_eq!(shown(&certificate), expected);
        assert_eq!(shown(&Certificate::awaited(files, provider)), expected);
        following.abort();
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_at_the_start() {
        let (one, other) = (Folder::new(), Folder::new());
        one.renew();
        other.renew();
        let mixed = Files { key: other.files().key, ..one.files() };
        let error = format!("{:#}", read(mixed).unwrap_err());
        assert!(error.contains("e2b.tls_key"), "{error}");
    }
}
