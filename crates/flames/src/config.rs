//! The configuration: one TOML file, flags and environment above it, checked as a whole.
//!
//! Every mistake is reported with its file, line and key, all of them at once. What is legal is said in one
//! place, the types below: the schema that `flames config schema` prints is derived from them, and the file
//! is held against that schema.

use anyhow::Context;
use flames_node::UplinkConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

mod alerts;
mod check;
mod e2b;
mod locate;
mod vmm;

pub(crate) use alerts::Alerts;
pub(crate) use e2b::{Acme, E2b};
pub(crate) use vmm::{Jail, Limit, RestoreMemory, Vmm, VmmDriver};

/// Everything that can be set. An empty file is a good one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where things are.
    pub(crate) paths: Paths,
    /// The HTTP interface.
    pub(crate) api: Api,
    /// The interface of E2B, for its unmodified clients.
    pub(crate) e2b: E2b,
    /// Which infrastructure to use.
    pub(crate) providers: Providers,
    /// What a sandbox gets and may ask for.
    pub(crate) sandbox: Sandbox,
    /// What all sandboxes of this host may use together.
    pub(crate) limits: Limits,
    /// Warm pools, by template: `preset` (`minimal`, `standard`, `aggressive`, `ultra-fast`) and what differs from
    /// it. What `flames pool set` and `rm` say later wins.
    pub(crate) pools: std::collections::BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
    /// The virtual machine monitor.
    pub(crate) vmm: Vmm,
    /// This host.
    pub(crate) node: Node,
    /// The way out for sandboxes that may reach something, with root.
    pub(crate) network: Network,
    /// What is watched, and who is told.
    pub(crate) alerts: Alerts,
}

/// Where things are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Paths {
    /// Records, disks and templates. Default: /var/lib/flames for root, $XDG_DATA_HOME/flames otherwise.
    pub(crate) data_dir: Option<PathBuf>,
    /// The socket that the CLI finds the daemon by. Default: /run/flames for root,
    /// $XDG_RUNTIME_DIR/flames otherwise.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Kernel, agent and base images. Default: $FLAMES_ASSETS, then `../share/flames` beside the program,
    /// then /usr/local/share/flames and /usr/share/flames.
    pub(crate) assets_dir: Option<PathBuf>,
}

/// The HTTP interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Api {
    /// Where the daemon listens. Loopback only, unless you say otherwise.
    pub(crate) listen: SocketAddr,
    /// The largest file that may be uploaded into a sandbox, in MiB.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub(crate) max_upload_mib: u64,
    /// Requests a minute that one API key may send; 0 is any number.
    pub(crate) requests_per_minute: u32,
    /// Connections that one client address may have at once, to this interface and to that of E2B each; those beyond are
    /// closed at once. 0 is any number: for a listener behind a proxy of your own.
    pub(crate) connections_per_client: u32,
    /// Exposed ports of sandboxes are hosts `<port>-<sandbox>` below this domain.
    pub(crate) domain: String,
}

/// Which infrastructure to use, one URL each. Credentials may stand in the URL, or in the environment where
/// the backend's own clients look for them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Providers {
    /// Sandbox records and keys: `sqlite:///path`, `postgres://…`, `memory:`. Default: SQLite in the data
    /// directory.
    pub(crate) state: Option<ProviderUrl>,
    /// Logs and template images: `file:///path`, `s3://bucket/prefix?endpoint=…`, `memory:`. Default: a
    /// folder in the data directory.
    pub(crate) blob: Option<ProviderUrl>,
    /// Idempotency keys and rate limits: `redis://…`, `memory:`. Default: memory.
    pub(crate) cache: Option<ProviderUrl>,
    /// What can wait: `sqlite:///path`, `postgres://…`, `nats://…`, `memory:`. Default: SQLite in the data
    /// directory.
    pub(crate) queue: Option<ProviderUrl>,
    /// How the world reaches ports of sandboxes: `proxy://address:port` (built in),
    /// `caddy://admin-address:port?listen=address:port`, `memory:`. Default: the built-in proxy at
    /// the port next to `api.listen`.
    pub(crate) ingress: Option<ProviderUrl>,
}

/// What must not stand in the path of a URL as it is.
const PATH: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// A URL that may hold a password: shown without it.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct ProviderUrl(String);

impl ProviderUrl {
    /// The whole URL, for whoever connects.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// A path under a scheme.
    pub(crate) fn embedded(scheme: &str, path: &Path) -> Self {
        let path = percent_encoding::percent_encode(path.as_os_str().as_encoded_bytes(), PATH);
        Self(format!("{scheme}://{path}"))
    }

    /// Nothing outside of this process.
    pub(crate) fn memory() -> Self {
        Self("memory:".to_owned())
    }

    /// The built-in proxy, at the port next to the API's.
    pub(crate) fn proxy(api: SocketAddr) -> Self {
        let port = if api.port() == 0 { 0 } else { api.port().wrapping_add(1) };
        Self(format!("proxy://{}", SocketAddr::new(api.ip(), port)))
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> anyhow::Result<String> {
        let url = url::Url::parse(&self.0).context("not a URL")?;
        Ok(format!("{}:{}", url.host_str().unwrap_or_default(), url.port().context("it names no port")?))
    }

    /// A parameter behind the question mark.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let url = url::Url::parse(&self.0).ok()?;
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// What stands before the first colon.
    pub(crate) fn scheme(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// Without user, password and query, which may hold secrets.
    fn shown(&self) -> String {
        match url::Url::parse(&self.0) {
            Ok(mut url) => {
                let hidden = url.set_username("").is_err() || url.set_password(None).is_err();
                url.set_query(None);
                if hidden && !url.username().is_empty() {
                    format!("{}:…", self.scheme())
                } else {
                    url.to_string()
                }
            }
            Err(_) => format!("{}:…", self.scheme()),
        }
    }
}

impl fmt::Debug for ProviderUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Serialize for ProviderUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

/// What a sandbox gets and may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sandbox {
    /// Virtual CPUs when a create names none.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) default_vcpus: u8,
    /// Memory in MiB when a create names none.
    #[schemars(range(min = 64, max = 1_048_576))]
    pub(crate) default_memory_mib: u32,
    /// Writable disk in MiB when a create names none.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub(crate) default_disk_mib: u32,
    /// Seconds until a sandbox ends when a create does not say; 0 is never.
    pub(crate) default_timeout_s: u64,
    /// How fast a create is when it names no level: `standard`, `fast`, `ultra-fast`, `sub2-second`, `instant`.
    pub(crate) default_level: String,
    /// The most virtual CPUs a create may ask for.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) max_vcpus: u8,
    /// The most memory in MiB a create may ask for.
    #[schemars(range(min = 64, max = 1_048_576))]
    pub(crate) max_memory_mib: u32,
    /// The largest writable disk in MiB a create may ask for.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub(crate) max_disk_mib: u32,
    /// The longest timeout in seconds a sandbox may ask for; 0 allows any.
    pub(crate) max_timeout_s: u64,
    /// Seconds a guest may take to boot.
    #[schemars(range(min = 1, max = 3600))]
    pub(crate) boot_deadline_s: u64,
    /// Seconds a host may take to pause, capture or resume a sandbox.
    #[schemars(range(min = 1, max = 3600))]
    pub(crate) snapshot_deadline_s: u64,
    /// Hours that the log of a sandbox, and the record of a failed one, are kept.
    #[schemars(range(max = 8760))]
    pub(crate) retention_h: u32,
}

/// What all sandboxes of this host may use together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Memory in MiB that live and starting sandboxes may be expected to use; creates beyond that are refused at
    /// once. One whose kernel was booted counts its whole memory, a clone of a snapshot a quarter of it but at
    /// least 64 MiB, each 32 MiB more for its VMM. 0 is any amount. Default: 80 % of the memory that is free when the daemon starts.
    pub(crate) memory_mib: Option<u32>,
}

/// This host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Node {
    /// Network slots that are made before they are needed.
    #[schemars(range(max = 256))]
    pub(crate) ready_slots: u32,
    /// Disk space in MiB that creates leave free.
    pub(crate) reserve_disk_mib: u64,
    /// Whether a template gets a snapshot of its own after the first create that had to boot it. Later creates
    /// restore it.
    pub(crate) template_snapshots: bool,
}

/// The way out for sandboxes that may reach something, with root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Network {
    /// Addresses that such sandboxes have on this host, one each, before they leave it as the host itself. Private, and
    /// known to nobody near this host.
    #[schemars(with = "String")]
    pub(crate) range: ipnet::Ipv4Net,
    /// The file of the network namespace that they leave through. Default: the daemon's own.
    pub(crate) uplink_namespace: Option<PathBuf>,
}

impl Network {
    /// As the node takes it.
    pub(crate) fn uplink(&self) -> UplinkConfig {
        UplinkConfig { range: self.range, namespace: self.uplink_namespace.clone() }
    }
}

impl Default for Network {
    fn default() -> Self {
        let UplinkConfig { range, namespace } = UplinkConfig::default();
        Self { range, uplink_namespace: namespace }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7070)),
            max_upload_mib: 4096,
            requests_per_minute: 0,
            connections_per_client: 1024,
            domain: "sandbox.localhost".into(),
        }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            default_vcpus: 1,
            default_memory_mib: 256,
            default_disk_mib: 1024,
            default_timeout_s: 300,
            default_level: flames_pool::BootLevel::default().name().to_owned(),
            max_vcpus: 8,
            max_memory_mib: 8192,
            max_disk_mib: 65_536,
            max_timeout_s: 0,
            boot_deadline_s: 60,
            snapshot_deadline_s: 120,
            retention_h: 24,
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self { ready_slots: 4, reserve_disk_mib: 1024, template_snapshots: true }
    }
}

/// A configuration that cannot be used, with every mistake in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadConfig {
    pub(crate) mistakes: Vec<Mistake>,
}

/// One mistake and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mistake {
    /// The file, or the name of the flag.
    pub(crate) file: String,
    /// Line in the file, from 1; 0 if the mistake has no line.
    pub(crate) line: usize,
    /// The key, for example `sandbox.max_vcpus`.
    pub(crate) key: String,
    /// What is wrong, and what would be right.
    pub(crate) problem: String,
}

impl Config {
    /// Reads a file, or takes the defaults if there is none at the default place.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, BadConfig> {
        match file.map(Path::to_owned).or_else(existing_default) {
            Some(file) => Self::read(&file),
            None => Ok(Self::default()),
        }
    }

    fn read(file: &Path) -> Result<Self, BadConfig> {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| {
            BadConfig::one(&name, 0, "", format!("cannot be read: {error}; name another with --config"))
        })?;
        Self::parse(&name, &text)
    }

    /// Checks a whole text and gives the configuration, or every mistake.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, BadConfig> {
        check::against_schema(file, text)?;
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| locate::line_of(text, span.start));
            BadConfig::one(file, line, "", error.message().to_owned())
        })?;
        check::across_keys(file, text, &config)?;
        Ok(config)
    }

    /// The JSON schema of the file.
    pub(crate) fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}

impl BadConfig {
    fn one(file: &str, line: usize, key: &str, problem: String) -> Self {
        Self { mistakes: vec![Mistake { file: file.to_owned(), line, key: key.to_owned(), problem }] }
    }
}

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} mistake(s):", self.mistakes.len())?;
        for mistake in &self.mistakes {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for BadConfig {}

fn existing_default() -> Option<PathBuf> {
    let file = PathBuf::from("/etc/flames/flames.toml");
    file.exists().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        Config::parse("f.toml", text).unwrap_err().mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(Config::parse("f.toml", "").unwrap(), Config::default());
    }

    #[test]
    fn the_defaults_written_out_are_read_back() {
        let text = toml::to_string(&Config::default()).unwrap();
        assert_eq!(Config::parse("f.toml", &text).unwrap(), Config::default());
    }

    #[test]
    fn every_mistake_is_told_with_file_line_and_key() {
        let text = "[api]\nlisten = 7\n\n[sandbox]\nmax_vcpus = 0\nmax_cpus = 3\n[node]\nready_slots = 999\n";
        let told = mistakes(text);
        assert_eq!(told.len(), 4, "{told:#?}");
        let expected = [
            "f.toml:2: api.listen:",
            "f.toml:5: sandbox.max_vcpus:",
            "f.toml:6: sandbox.max_cpus:",
            "f.toml:8: node.ready_slots:",
        ];
        for place in expected {
            assert!(told.iter().any(|mistake| mistake.starts_with(place)), "{place} in {told:#?}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        assert!(
            mistakes("[api]\nlisten = \n")[0].starts_with("f.toml:2"),
            "{:?}",
            mistakes("[api]\nlisten = \n")
        );
    }

    #[test]
    fn a_word_for_the_kernel_that_is_two_is_refused() {
        let told = mistakes("[vmm]\nkernel_args = [\"quiet\", \"a b\"]\n");
        assert!(told[0].starts_with("f.toml:2: vmm.kernel_args"), "{told:?}");
    }

    #[test]
    fn an_address_that_is_none_names_its_line() {
        assert!(mistakes("[api]\nlisten = \"nowhere\"\n")[0].starts_with("f.toml:2"));
    }

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        let text = "[providers]\nstate = \"postgres://me:hunter2@db/flames?sslpassword=hunter2\"\n";
        let config = Config::parse("f.toml", text).unwrap();
        let shown = format!("{config:?}{}", toml::to_string(&config).unwrap());
        assert!(!shown.contains("hunter2") && shown.contains("postgres://db/flames"), "{shown}");
    }

    #[test]
    fn a_default_above_its_maximum_is_a_mistake() {
        let told = mistakes("[sandbox]\ndefault_memory_mib = 512\nmax_memory_mib = 256\n");
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("f.toml:2: sandbox.default_memory_mib: 512 is above"), "{told:?}");
    }
}
