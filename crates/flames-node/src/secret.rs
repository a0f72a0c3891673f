//! Random bytes of the kernel: tokens, names, entropy for guests.

use crate::AccessToken;
use flames_vmm::{Error, ErrorKind, Result};
use rustix::rand::{GetRandomFlags, getrandom};

/// Fresh random bytes.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty());
    match filled {
        Ok(count) if count == N => Ok(bytes),
        Ok(_) => {
            Err(Error::new(ErrorKind::Unavailable, "random source", "getrandom").detail("gave too little"))
        }
        Err(error) => Err(Error::new(ErrorKind::Unavailable, "random source", "getrandom").source(error)),
    }
}

/// A new secret of 256 bits, in hex.
pub(crate) fn new_token() -> Result<AccessToken> {
    random_bytes::<32>().map(|bytes| AccessToken::new(hex::encode(bytes)))
}
