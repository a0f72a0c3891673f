//! `[e2b]`: the interface of E2B.

use rustls::pki_types::DnsName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use url::{Host, Url};

/// The interface of E2B, for its unmodified clients: REST calls and the way into sandboxes, on one listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct E2b {
    /// Where it listens. Default: the port two above `api.listen`.
    pub(crate) listen: Option<SocketAddr>,
    /// Ports of sandboxes are hosts `<port>-<sandbox>` below this domain; the API is there as `api.<domain>`.
    /// With a port if clients must name one. Default: `api.domain` and the listener's port.
    pub(crate) domain: Option<String>,
    /// A PEM file with the certificate of the domain and of `*.<domain>`, and those above it. With it the
    /// listener speaks TLS.
    pub(crate) tls_certificate: Option<PathBuf>,
    /// A PEM file with the certificate's private key.
    pub(crate) tls_key: Option<PathBuf>,
    /// Whether sandboxes of E2B's clients reach the public internet when the client does not deny it, as they do at
    /// E2B. Needs root and a host that forwards. Destinations that a client names are reached either way.
    pub(crate) internet: bool,
    /// Seconds between two measurements of what each running sandbox uses, which `get_metrics` answers from. They begin
    /// with the first request of an E2B client; 0 is never, and only the present is answered.
    #[schemars(range(max = 3600))]
    pub(crate) metrics_every_s: u32,
    /// An ACME server that gives and renews the certificate, in place of files. The listener then speaks TLS.
    #[schemars(with = "Acme")]
    pub(crate) acme: Option<Acme>,
}

/// An ACME server, and the way to prove to it by DNS records (DNS-01) whose the domain is. Whoever names one agrees to its
/// terms of service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acme {
    /// The server's directory, for example `https://acme-v02.api.letsencrypt.org/directory`.
    pub(crate) directory: String,
    /// Where the server may write to about the account: `mailto:` and an address.
    pub(crate) contact: Option<String>,
    /// The program that sets and removes TXT records: it is called with `present` or `cleanup`, the record's name and its
    /// value, and ends when all name servers of the domain tell so.
    pub(crate) hook: PathBuf,
}

/// A key below `e2b`.
type Place = &'static [&'static str];

impl Default for E2b {
    fn default() -> Self {
        Self {
            listen: None,
            domain: None,
            tls_certificate: None,
            tls_key: None,
            internet: false,
            metrics_every_s: 10,
            acme: None,
        }
    }
}

impl E2b {
    /// Where it listens.
    pub(crate) fn address(&self, api: SocketAddr) -> SocketAddr {
        let port = if api.port() == 0 { 0 } else { api.port().wrapping_add(2) };
        self.listen.unwrap_or_else(|| SocketAddr::new(api.ip(), port))
    }

    /// The domain without a port, as a certificate names it.
    pub(crate) fn host(&self) -> Option<String> {
        let domain = self.domain.as_ref()?;
        Some(domain.split(':').next().unwrap_or(domain).to_ascii_lowercase())
    }

    /// What `acme` cannot mean, by the key that should change.
    pub(super) fn acme_mistakes(&self) -> Vec<(Place, String)> {
        let Some(acme) = &self.acme else { return Vec::new() };
        let mut mistakes: Vec<(Place, String)> = Vec::new();
        if self.tls_certificate.is_some() || self.tls_key.is_some() {
            let problem = "asks for a certificate: take e2b.tls_certificate and e2b.tls_key away, or this";
            mistakes.push((&["acme"], problem.to_owned()));
        }
        match self.host() {
            None => mistakes.push((&["acme"], "needs e2b.domain beside it".to_owned())),
            Some(host) if DnsName::try_from(host.as_str()).is_err() => {
                mistakes.push((&["domain"], format!("`{host}` is not a name that a certificate can have")));
            }
            Some(_) => {}
        }
        mistakes.extend(acme.mistakes());
        mistakes
    }
}

impl Acme {
    fn mistakes(&self) -> Vec<(Place, String)> {
        let mut mistakes: Vec<(Place, String)> = Vec::new();
        if !is_trustworthy(&self.directory) {
            let problem = "must be a URL that begins with https:// (http:// for this machine alone)";
            mistakes.push((&["acme", "directory"], problem.to_owned()));
        }
        if self.contact.as_ref().is_some_and(|contact| !contact.starts_with("mailto:")) {
            mistakes.push((&["acme", "contact"], "must begin with mailto:".to_owned()));
        }
        if !self.hook.is_absolute() {
            mistakes.push((&["acme", "hook"], "must be an absolute path".to_owned()));
        }
        mistakes
    }
}

/// Whether nobody between here and there can pretend to be the server.
fn is_trustworthy(directory: &str) -> bool {
    let Ok(url) = Url::parse(directory) else { return false };
    let is_here = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        _ => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_here)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn mistakes(text: &str) -> Vec<String> {
        Config::parse("f.toml", text).unwrap_err().mistakes.iter().map(ToString::to_string).collect()
    }

    const ACME: &str = "[e2b.acme]\ndirectory = \"https://acme.test/directory\"\nhook = \"/hook\"\n";

    #[test]
    fn an_acme_server_is_read_and_written_back_and_the_domain_may_have_a_port() {
        let text = format!("[e2b]\ndomain = \"Box.test:8443\"\n{ACME}");
        let config = Config::parse("f.toml", &text).unwrap();
        assert_eq!(config.e2b.host().as_deref(), Some("box.test"));
        let again = Config::parse("f.toml", &toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn an_acme_server_without_a_domain_or_beside_files_is_a_mistake() {
        assert!(mistakes(ACME)[0].contains("needs e2b.domain"), "{:?}", mistakes(ACME));
        let text =
            format!("[e2b]\ndomain = \"box.test\"\ntls_certificate = \"/c\"\ntls_key = \"/k\"\n{ACME}");
        let told = mistakes(&text);
        assert!(told.len() == 1 && told[0].starts_with("f.toml:5: e2b.acme: asks for"), "{told:?}");
        let told = mistakes(&format!("[e2b]\ndomain = \"../box\"\n{ACME}"));
        assert!(told.len() == 1 && told[0].starts_with("f.toml:2: e2b.domain: "), "{told:?}");
    }

    #[test]
    fn every_key_of_the_acme_server_is_checked() {
        let text = "[e2b]\ndomain = \"box.test\"\n[e2b.acme]\ndirectory = \"http://acme.test/\"\n\
             contact = \"me\"\nhook = \"hook\"\n";
        let told = mistakes(text);
        assert_eq!(told.len(), 3, "{told:?}");
        for (told, place) in told.iter().zip([
            "f.toml:4: e2b.acme.directory: ",
            "f.toml:5: e2b.acme.contact: ",
            "f.toml:6: e2b.acme.hook: ",
        ]) {
            assert!(told.starts_with(place), "{told}");
        }
        let text =
            "[e2b]\ndomain = \"box.test\"\n[e2b.acme]\ndirectory = \"https://acme.test/\"\nhok = \"/h\"\n";
        assert!(mistakes(text).iter().any(|told| told.contains("e2b.acme.hok")), "{:?}", mistakes(text));
    }
}
