//! Domain names as rules and DNS name them: small letters, ASCII, no dot at the end.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest name that DNS can carry.
const MAX_NAME: usize = 253;
/// The longest part between two dots.
const MAX_LABEL: usize = 63;

/// A host's name in its one form: ASCII (`xn--` for other scripts), small letters, no dot at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(String);

/// Which names a rule means.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DomainPattern {
    /// This name alone.
    Exact(DomainName),
    /// Every name below this one at any depth, and not the name itself: `*.example.com`.
    Below(DomainName),
}

/// Why a text is no domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidDomain {
    /// What is wrong with it.
    pub problem: &'static str,
    /// What to write instead.
    pub mend: &'static str,
}

impl DomainName {
    /// # Errors
    /// A text that no host can be called, or that is an address.
    pub fn parse(text: &str) -> Result<Self, InvalidDomain> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        if bare.contains("://") || bare.contains('/') {
            return Err(invalid("it is a URL", "write the host alone, as in example.com"));
        }
        let ascii = idna::domain_to_ascii(bare)
            .map_err(|_| invalid("it is no domain name", "write it as in example.com"))?;
        check(&ascii)?;
        Ok(Self(ascii))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_below(&self, parent: &Self) -> bool {
        self.0.strip_suffix(parent.as_str()).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
    }
}

impl DomainPattern {
    /// # Errors
    /// A text that is neither a name nor `*.` and a name.
    pub fn parse(text: &str) -> Result<Self, InvalidDomain> {
        let parsed = match text.strip_prefix("*.") {
            Some(parent) => Self::Below(DomainName::parse(parent)?),
            None if text.contains('*') => return Err(misplaced_star()),
            None => Self::Exact(DomainName::parse(text)?),
        };
        match &parsed {
            Self::Exact(name) if !name.0.contains('.') => {
                Err(invalid("it has no dot", "write the whole name, as in api.example.com"))
            }
            Self::Below(parent) if parent.0.contains('*') => Err(misplaced_star()),
            _ => Ok(parsed),
        }
    }

    /// Whether a name is one of those meant.
    pub fn matches(&self, name: &DomainName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(parent) => name.is_below(parent),
        }
    }
}

fn check(ascii: &str) -> Result<(), InvalidDomain> {
    if ascii.is_empty() {
        return Err(invalid("it is empty", "write it as in example.com"));
    }
    if ascii.len() > MAX_NAME || ascii.split('.').any(|label| label.len() > MAX_LABEL) {
        return Err(invalid("it is too long", "DNS carries 253 characters, 63 between two dots"));
    }
    // An underscore stands in names of services, not in those of hosts; DNS carries both.
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    let edge = |label: &str| label.starts_with('-') || label.ends_with('-');
    if ascii.split('.').any(|label| label.is_empty() || edge(label) || !label.bytes().all(legal)) {
        return Err(invalid("it is no domain name", "use letters, digits and '-' between single dots"));
    }
    let last = ascii.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid("it is neither a name nor an address", "write 4 numbers up to 255, or a name"));
    }
    Ok(())
}

fn misplaced_star() -> InvalidDomain {
    invalid("a star stands only at the beginning, before a dot", "write it as in *.example.com")
}

fn invalid(problem: &'static str, mend: &'static str) -> InvalidDomain {
    InvalidDomain { problem, mend }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

impl TryFrom<String> for DomainName {
    type Error = InvalidDomain;
    fn try_from(text: String) -> Result<Self, InvalidDomain> {
        Self::parse(&text)
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn one_name_has_one_form() {
        assert_eq!(name("API.Example.COM."), name("api.example.com"));
        assert_eq!(name("bücher.example").as_str(), "xn--bcher-kva.example");
        assert_eq!(name("_acme.example.com").as_str(), "_acme.example.com");
    }

    #[test]
    fn a_star_means_what_is_below_and_not_the_name_itself() {
        let below = DomainPattern::parse("*.example.com").unwrap();
        assert!(below.matches(&name("a.example.com")) && below.matches(&name("b.a.example.com")));
        assert!(!below.matches(&name("example.com")) && !below.matches(&name("badexample.com")));
        let exact = DomainPattern::parse("example.com").unwrap();
        assert!(exact.matches(&name("example.com")) && !exact.matches(&name("a.example.com")));
    }

    #[test]
    fn what_is_no_domain_is_refused_with_a_mend() {
        let long = "a".repeat(64) + ".com";
        for bad in [
            "",
            ".",
            "*",
            "a.*.com",
            "*a.com",
            "*.*.com",
            "https://a.com",
            "a.com/x",
            "a..com",
            "-a.com",
            "a-.com",
            "a b.com",
            "a.com:x",
            "300.1.1.1",
            "1.2.3",
            "localhost",
            "a\0.com",
            &long,
        ] {
            let refused = DomainPattern::parse(bad).unwrap_err();
            assert!(!refused.mend.is_empty(), "{bad:?}");
        }
    }
}
