//! Access tokens are derived, not stored: the same sandbox has the same token after a restart and on every
//! daemon that shares the state store, and a stolen record opens nothing.

use crate::SandboxId;
use flames_node::AccessToken;
use flames_provider::{ErrorKind, Result};
use flames_state::{Key, StateStore, StateStoreExt};
use hmac::{Hmac, KeyInit, Mac};
use rand::TryRng;
use sha2::Sha256;
use std::fmt;

/// Derives tokens from the installation's own secret.
#[derive(Clone)]
pub struct TokenKey(Hmac<Sha256>);

const SECRET_KEY: &str = "secret/token-key";
const SECRET_BYTES: usize = 32;

impl TokenKey {
    /// Reads the secret from the store, or makes it at the first start.
    ///
    /// # Errors
    /// What the store answers; `Corrupt` for a secret that is not 32 bytes.
    pub async fn load_or_create(store: &dyn StateStore) -> Result<Self> {
        let key = Key::parse(SECRET_KEY)?;
        if let Some(record) = store.get(&key).await? {
            return Self::from_secret(&record.value);
        }
        let secret = random_secret()?;
        match store.create(key.clone(), secret.to_vec().into()).await {
            Ok(_) => Self::from_secret(&secret),
            // Another daemon was first: its secret counts.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let found = store.get(&key).await?.ok_or(error)?;
                Self::from_secret(&found.value)
            }
            Err(error) => Err(error),
        }
    }

    /// The token that clients of a sandbox present to its agent.
    pub fn access(&self, sandbox: &SandboxId) -> AccessToken {
        self.derive(b"access/", sandbox)
    }

    /// The token that clients of its servers present, if its traffic needs one.
    pub fn traffic(&self, sandbox: &SandboxId) -> AccessToken {
        self.derive(b"traffic/", sandbox)
    }

    fn derive(&self, purpose: &[u8], sandbox: &SandboxId) -> AccessToken {
        let mut mac = self.0.clone();
        mac.update(purpose);
        mac.update(sandbox.as_str().as_bytes());
        AccessToken::new(hex::encode(mac.finalize().into_bytes()))
    }

    fn from_secret(secret: &[u8]) -> Result<Self> {
        let corrupt = || flames_provider::Error::new(ErrorKind::Corrupt, "record", SECRET_KEY);
        if secret.len() != SECRET_BYTES {
            return Err(
                corrupt().detail("must hold 32 bytes; removing it makes a new one and voids all tokens")
            );
        }
        Hmac::new_from_slice(secret).map(Self).map_err(|error| corrupt().source(error))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(secret)")
    }
}

/// Bytes from the operating system's generator.
pub(crate) fn random_secret() -> Result<[u8; SECRET_BYTES]> {
    let mut secret = [0; SECRET_BYTES];
    rand::rngs::SysRng.try_fill_bytes(&mut secret).map_err(|error| {
        flames_provider::Error::new(ErrorKind::Unavailable, "random bytes", "getrandom").source(error)
    })?;
    Ok(secret)
}
