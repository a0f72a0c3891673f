//! What is stored with a file: extended attributes `user.e2b.*`, set by headers `X-Metadata-*`.

use crate::http::Failure;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use rustix::fs::{XattrFlags, flistxattr, fremovexattr, fsetxattr};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

pub(crate) type Metadata = BTreeMap<String, String>;

const HEADER: &str = "x-metadata-";
const ATTRIBUTE: &str = "user.e2b.";
/// The kernel's limit for a name, less the prefix.
const MAX_KEY: usize = 246;
/// Keys and values together.
const MAX_TOTAL: usize = 4096;
/// The kernel's limit for the list of names.
const MAX_LIST: usize = 64 << 10;

/// Reads what an upload wants stored.
///
/// # Errors
/// 400 for what does not fit into extended attributes.
pub(super) fn from_headers(headers: &HeaderMap) -> Result<Metadata, Failure> {
    let mut metadata = Metadata::new();
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(HEADER) else { continue };
        let value =
            value.to_str().ok().filter(|value| value.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        let value = value.ok_or_else(|| refused(key, "must be printable ASCII"))?;
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(refused(key, "has a name of no or more than 246 bytes"));
        }
        metadata.insert(key.to_owned(), value.to_owned());
    }
    match metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() {
        0..=MAX_TOTAL => Ok(metadata),
        _ => Err(refused("*", "is larger than 4096 bytes together")),
    }
}

fn refused(key: &str, why: &str) -> Failure {
    let key: String = key.chars().take(32).collect();
    Failure::http(StatusCode::BAD_REQUEST, format!("metadata `{key}` {why}"))
}

/// Stores exactly this set: what was there before goes.
pub(super) fn replace(file: &File, metadata: &Metadata) -> io::Result<()> {
    for old in keys(file) {
        if !metadata.contains_key(&old) {
            fremovexattr(file, format!("{ATTRIBUTE}{old}"))?;
        }
    }
    for (key, value) in metadata {
        fsetxattr(file, format!("{ATTRIBUTE}{key}"), value.as_bytes(), XattrFlags::empty())?;
    }
    Ok(())
}

/// What is stored with a path. Empty where attributes are not supported or not readable.
pub(super) fn of(path: &Path) -> Metadata {
    let mut list = vec![0; MAX_LIST];
    let length = rustix::fs::listxattr(path, &mut list[..]).unwrap_or_default();
    let mut value = vec![0; MAX_TOTAL];
    let read = |key: String| {
        let length = rustix::fs::getxattr(path, format!("{ATTRIBUTE}{key}"), &mut value[..]).ok()?;
        Some((key, String::from_utf8_lossy(&value[..length]).into_owned()))
    };
    own_keys(&list[..length]).filter_map(read).collect()
}

fn keys(file: &File) -> Vec<String> {
    let mut list = vec![0; MAX_LIST];
    // A file system without attributes has none of ours.
    let length = flistxattr(file, &mut list[..]).unwrap_or_default();
    own_keys(&list[..length]).collect()
}

/// The names among them that are ours, without their prefix.
fn own_keys(list: &[u8]) -> impl Iterator<Item = String> {
    list.split(|byte| *byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok()?.strip_prefix(ATTRIBUTE).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn only_metadata_headers_are_taken_with_lower_case_keys() {
        let metadata = from_headers(&headers(&[("X-Metadata-Owner", "me"), ("Accept", "*/*")])).unwrap();
        assert_eq!(metadata, Metadata::from([("owner".to_owned(), "me".to_owned())]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (long, large) = (format!("x-metadata-{}", "k".repeat(247)), "v".repeat(4096));
        for (name, value) in [("x-metadata-a", "ä"), (long.as_str(), "v"), ("x-metadata-a", large.as_str())]
        {
            assert!(from_headers(&headers(&[(name, value)])).is_err(), "{name}");
        }
    }
}
