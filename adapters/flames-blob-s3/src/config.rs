//! Which bucket, where, and as whom.

use crate::error::ADAPTER;
use flames_blob::{Error, ErrorKind, Result};
use percent_encoding::percent_decode_str;
use std::fmt;
use std::path::PathBuf;
use url::Url;

/// Settings of a [`crate::S3BlobStore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// It must exist.
    pub bucket: String,
    /// Start of all object names, without slashes at its ends; empty for none.
    pub prefix: String,
    /// Another service than AWS, for example `http://127.0.0.1:9000`. Plain HTTP only if it says so.
    pub endpoint: Option<String>,
    /// For example `eu-central-1`.
    pub region: String,
    /// As whom.
    pub credentials: Credentials,
    /// Where large bodies of unknown hash wait; the system's temporary folder without one.
    pub spool: PathBuf,
}

/// As whom requests are signed. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// With a key pair.
    Keys {
        /// The key's id.
        access_key_id: String,
        /// Its secret.
        secret_access_key: String,
        /// Of temporary keys.
        session_token: Option<String>,
    },
    /// With what the machine or the container is given by AWS.
    Instance,
}

const DEFAULT_REGION: &str = "us-east-1";

impl S3Config {
    /// Reads `s3://bucket/prefix?endpoint=…&region=…&spool=…`. Keys come from the URL
    /// (`s3://id:secret@bucket`), else from `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and
    /// `AWS_SESSION_TOKEN`) of `env`; `credentials=instance` takes the machine's.
    ///
    /// # Errors
    /// `InvalidInput`, with the part that is wrong. The error never shows the user part of the URL.
    pub fn from_url(url: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let url = Url::parse(url).map_err(|_| refused("s3", "this is no URL: write s3://bucket/prefix"))?;
        if url.scheme() != "s3" {
            return Err(refused(url.scheme(), "S3 has URLs of the form s3://bucket/prefix"));
        }
        let bucket = url.host_str().filter(|host| !host.is_empty());
        let bucket =
            bucket.ok_or_else(|| refused("bucket", "the URL names none: write s3://bucket/prefix"))?;
        let mut config = Self {
            bucket: bucket.to_owned(),
            prefix: prefix(&url)?,
            endpoint: None,
            region: DEFAULT_REGION.to_owned(),
            credentials: Credentials::Instance,
            spool: std::env::temp_dir(),
        };
        let wants_instance = config.read_query(&url)?;
        config.credentials = credentials(&url, wants_instance, env)?;
        Ok(config)
    }

    /// True if the machine's credentials are wanted.
    fn read_query(&mut self, url: &Url) -> Result<bool> {
        let mut wants_instance = false;
        for (name, value) in url.query_pairs() {
            match (&*name, &*value) {
                ("endpoint", endpoint) => self.endpoint = Some(endpoint_url(endpoint)?),
                ("region", region) => self.region = region.to_owned(),
                ("spool", folder) => self.spool = folder.into(),
                ("credentials", "instance") => wants_instance = true,
                ("credentials", _) => return Err(refused("credentials", "the only value is `instance`")),
                (other, _) => {
                    return Err(refused(other, "known are endpoint, region, spool and credentials"));
                }
            }
        }
        Ok(wants_instance)
    }
}

fn prefix(url: &Url) -> Result<String> {
    let prefix = url.path().trim_matches('/');
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    if prefix.bytes().all(legal) && !prefix.contains("//") && prefix.len() <= 300 {
        return Ok(prefix.to_owned());
    }
    Err(refused("prefix", "at most 300 of A-Z a-z 0-9 . _ - and single slashes"))
}

fn endpoint_url(text: &str) -> Result<String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.username().is_empty() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(refused("endpoint", "must be an http or https URL without user")),
    }
}

fn credentials(url: &Url, wants_instance: bool, env: impl Fn(&str) -> Option<String>) -> Result<Credentials> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    if wants_instance {
        return Ok(Credentials::Instance);
    }
    if let (false, Some(secret)) = (url.username().is_empty(), url.password()) {
        let (access_key_id, secret_access_key) = (decode(url.username()), decode(secret));
        return Ok(Credentials::Keys { access_key_id, secret_access_key, session_token: None });
    }
    let keys = (env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY"));
    let (Some(access_key_id), Some(secret_access_key)) = keys else {
        let mend = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or say credentials=instance in the URL";
        return Err(refused("credentials", mend));
    };
    Ok(Credentials::Keys { access_key_id, secret_access_key, session_token: env("AWS_SESSION_TOKEN") })
}

/// `part` is no secret: the name of a part of the URL.
fn refused(part: &str, mend: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, "blob URL", part).operation("open").adapter(ADAPTER).detail(mend)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys { access_key_id, .. } => write!(f, "Keys({access_key_id}, secret)"),
            Self::Instance => f.write_str("Instance"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_env(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_url_says_everything() {
        let url =
            "s3://id:se%2Fcret@bucket/a/b/?endpoint=http://127.0.0.1:9000&region=eu-west-1&spool=/var/spool";
        let config = S3Config::from_url(url, no_env).unwrap();
        assert_eq!((config.bucket.as_str(), config.prefix.as_str()), ("bucket", "a/b"));
        assert_eq!(
            (config.endpoint.as_deref(), config.region.as_str()),
            (Some("http://127.0.0.1:9000"), "eu-west-1")
        );
        assert_eq!(config.spool, PathBuf::from("/var/spool"));
        let Credentials::Keys { access_key_id, secret_access_key, .. } = config.credentials else { panic!() };
        assert_eq!((access_key_id.as_str(), secret_access_key.as_str()), ("id", "se/cret"));
    }

    #[test]
    fn keys_come_from_the_environment_when_the_url_has_none() {
        let config = S3Config::from_url("s3://bucket", |name| Some(format!("value of {name}"))).unwrap();
        let Credentials::Keys { access_key_id, session_token, .. } = config.credentials else { panic!() };
        assert_eq!(access_key_id, "value of AWS_ACCESS_KEY_ID");
        assert_eq!(session_token.as_deref(), Some("value of AWS_SESSION_TOKEN"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("", "no URL"),
            ("s3://", "names none"),
            ("gs://bucket", "s3://bucket/prefix"),
            ("s3://bucket", "AWS_ACCESS_KEY_ID"),
            ("s3://a:b@bucket?colour=red", "colour"),
            ("s3://a:b@bucket?endpoint=ftp://x", "endpoint"),
            ("s3://a:b@bucket?credentials=mine", "instance"),
            ("s3://a:b@bucket/a b", "prefix"),
        ];
        for (url, part) in cases {
            let error = S3Config::from_url(url, no_env).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let config = S3Config::from_url("s3://id:topsecret@bucket", no_env).unwrap();
        assert!(!format!("{config:?}").contains("topsecret"));
        for url in ["s3://id:topsecret@bucket?x=y", "s3://id:topsecret@:bad", "xx://id:topsecret@bucket"] {
            let error = S3Config::from_url(url, no_env).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("topsecret"), "{error:?}");
        }
    }
}
