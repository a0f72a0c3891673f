//! The only place that names adapters: from a URL or a name to a provider.

use crate::config::Config;
use anyhow::{Context, bail};
use flames_state::MemoryStateStore;
use flames_state::StateStore;
use flames_state_sqlite::{SqliteConfig, SqliteStateStore};
use flames_vmm::VmmDriver;
use flames_vmm_qemu::{QemuConfig, QemuDriver};
use std::path::Path;
use std::sync::Arc;

/// Opens the state store that a URL names; without one, SQLite in the data directory.
pub(crate) async fn state(url: Option<&str>, data_dir: &Path) -> anyhow::Result<Arc<dyn StateStore>> {
    let scheme = url.map(|url| url.split(':').next().unwrap_or_default());
    match (scheme, url) {
        (None, _) => sqlite(SqliteConfig::new(data_dir.join("state.db"))).await,
        (Some("sqlite"), Some(url)) => sqlite(SqliteConfig::parse(url).context("providers.state")?).await,
        (Some("memory"), _) => Ok(Arc::new(MemoryStateStore::new())),
        (Some(scheme), _) => bail!(
            "providers.state: this build has no state store for `{scheme}:`; it has `sqlite:///path` and `memory:`"
        ),
    }
}

async fn sqlite(config: SqliteConfig) -> anyhow::Result<Arc<dyn StateStore>> {
    Ok(Arc::new(SqliteStateStore::open(config).await.context("the state store cannot be opened")?))
}

/// The VMM driver of this machine.
pub(crate) fn driver(config: &Config) -> Arc<dyn VmmDriver> {
    let qemu = QemuConfig { binary: config.vmm.qemu.clone(), ..QemuConfig::default() };
    Arc::new(QemuDriver::new(qemu))
}
