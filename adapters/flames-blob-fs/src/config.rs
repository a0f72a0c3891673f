//! Where the directory is.

use flames_blob::{Error, ErrorKind, Result};
use std::path::PathBuf;
use url::Url;

/// Settings of a [`crate::FsBlobStore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsConfig {
    /// The directory; it is made if it does not exist. It must be one file system and is nobody else's.
    pub root: PathBuf,
}

impl FsConfig {
    /// Reads `file:///absolute/path`.
    ///
    /// # Errors
    /// `InvalidInput` for any other URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let refused = |mend: &str| {
            let detail = format!("{mend}: write it as file:///absolute/path");
            Error::new(ErrorKind::InvalidInput, "blob URL", url).adapter("fs").detail(detail)
        };
        let parsed = Url::parse(url).map_err(|source| refused("this is no URL").source(source))?;
        if parsed.scheme() != "file" || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(refused("a directory has a file URL without query"));
        }
        let root = parsed.to_file_path().map_err(|()| refused("the path must be absolute and local"))?;
        Ok(Self { root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_url_names_an_absolute_path() {
        let config = FsConfig::from_url("file:///var/lib/flames%20x/blobs").unwrap();
        assert_eq!(config.root, PathBuf::from("/var/lib/flames x/blobs"));
    }

    #[test]
    fn other_urls_are_refused_with_the_mend() {
        for url in ["", "/var/lib", "s3://bucket", "file://host/path", "file:///a?b=c"] {
            let error = FsConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            assert!(error.to_string().contains("file:///absolute/path"), "{error}");
        }
    }
}
