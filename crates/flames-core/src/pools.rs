//! Warm pools as they are asked for: the configuration file names some, records add, change and remove.
//!
//! The records win: `pool/<template>` holds a configuration, or `null` for a pool of the file that was removed.
//! The node keeps what it was told until it is told otherwise, and is told anew at every start.

use crate::plane::ControlPlane;
use crate::sandbox::identity::Ahead;
use flames_node::{Newcomers, PoolConfig, PoolStatus, TemplateName};
use flames_pool::{Mistake, Preset};
use flames_provider::{Error, ErrorKind};
use flames_state::{Key, Precondition, StateStoreExt};
use futures::TryStreamExt;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What can go wrong with pools.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The configuration cannot be meant.
    #[error("pool `{template}`: {}", list(mistakes))]
    Invalid {
        /// Which pool.
        template: String,
        /// Everything that is wrong with it.
        mistakes: Vec<Mistake>,
    },
    /// No pool of this template is kept.
    #[error("there is no pool of template `{0}`")]
    NotFound(TemplateName),
    /// The node or a store refused.
    #[error(transparent)]
    Refused(#[from] Error),
}

/// A configuration from what somebody wrote: `preset` (default `standard`), and fields that differ from it.
///
/// # Errors
/// Every mistake.
pub fn pool_config(template: &str, written: &Map<String, Value>) -> Result<PoolConfig, Vec<Mistake>> {
    let mut overrides = written.clone();
    let preset = preset(overrides.remove("preset")).map_err(|mistake| vec![mistake])?;
    let mut merged = serde_json::to_value(preset.config(template)).unwrap_or_default();
    merge(&mut merged, Value::Object(overrides));
    let config: PoolConfig = serde_json::from_value(merged)
        .map_err(|error| vec![mistake("", error.to_string(), "see `flames pool set --help`")])?;
    config.validate()?;
    if config.template != template {
        let what = format!("is `{}` for the pool of `{template}`", config.template);
        return Err(vec![mistake("template", what, "leave it out")]);
    }
    Ok(config)
}

impl ControlPlane {
    /// The pools that are kept, with how they do.
    pub async fn pools(&self) -> Vec<PoolStatus> {
        self.node.pools().await
    }

    /// One of them.
    ///
    /// # Errors
    /// `NotFound` when no pool of this template is kept.
    pub async fn pool(&self, template: &TemplateName) -> Result<PoolStatus, PoolError> {
        let mut pools = self.node.pools().await.into_iter();
        let found = pools.find(|pool| pool.config.template == template.as_str());
        found.ok_or_else(|| PoolError::NotFound(template.clone()))
    }

    /// Keeps a pool as it is written here, from now on and after a restart.
    ///
    /// # Errors
    /// `Invalid` with every mistake; `Refused` for an unknown template or a driver without snapshots. What was
    /// kept before is kept on then.
    pub async fn set_pool(
        &self,
        template: &TemplateName,
        written: &Map<String, Value>,
    ) -> Result<PoolConfig, PoolError> {
        let config = pool_config(template.as_str(), written)
            .map_err(|mistakes| PoolError::Invalid { template: template.to_string(), mistakes })?;
        let before = self.pool(template).await.ok().map(|pool| pool.config);
        self.node.set_pool(config.clone(), self.newcomers()).await?;
        if let Err(error) = self.remember_pool(template, Some(&config)).await {
            self.put_back(template, before).await;
            return Err(error.into());
        }
        self.show_pools().await;
        Ok(config)
    }

    /// Empties a pool and keeps none of this template, also after a restart. Sandboxes go on.
    ///
    /// # Errors
    /// `NotFound` when none is kept.
    pub async fn remove_pool(&self, template: &TemplateName) -> Result<(), PoolError> {
        self.pool(template).await?;
        self.remember_pool(template, None).await?;
        match self.node.remove_pool(template).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => Ok(removed?),
        }
    }

    /// Tells the node what to keep. A pool that it refuses is left out, and told in the log: sandboxes can be
    /// created without.
    pub(crate) async fn apply_pools(&self) -> Result<(), Error> {
        let mut wanted: BTreeMap<String, Option<PoolConfig>> =
            self.limits.pools.iter().map(|(name, config)| (name.clone(), Some(config.clone()))).collect();
        wanted.extend(self.recorded_pools().await?);
        for config in wanted.into_values().flatten() {
            let template = config.template.clone();
            if let Err(error) = self.node.set_pool(config, self.newcomers()).await {
                tracing::error!(template, %error, "no warm pool of this template");
            }
        }
        Ok(())
    }

    /// What the members are: sandboxes that nobody asked for yet.
    fn newcomers(&self) -> Arc<dyn Newcomers> {
        Arc::new(Ahead { tokens: self.tokens.clone() })
    }

    async fn recorded_pools(&self) -> Result<BTreeMap<String, Option<PoolConfig>>, Error> {
        let mut found = BTreeMap::new();
        let mut records = self.providers.state.list_all(PREFIX);
        while let Some(record) = records.try_next().await? {
            let name = record.key.as_str().trim_start_matches(PREFIX).to_owned();
            match serde_json::from_slice(&record.value) {
                Ok(config) => drop(found.insert(name, config)),
                Err(error) => tracing::error!(template = name, %error, "its pool's record cannot be read"),
            }
        }
        Ok(found)
    }

    async fn remember_pool(&self, template: &TemplateName, config: Option<&PoolConfig>) -> Result<(), Error> {
        let key = Key::parse(format!("{PREFIX}{template}"))?;
        let state = &self.providers.state;
        if config.is_none() && !self.limits.pools.contains_key(template.as_str()) {
            return state.delete(key, Precondition::None).await.map(drop);
        }
        state.put_json(key, &config, Precondition::None).await.map(drop)
    }

    async fn put_back(&self, template: &TemplateName, before: Option<PoolConfig>) {
        let done = match before {
            Some(before) => self.node.set_pool(before, self.newcomers()).await,
            None => self.node.remove_pool(template).await,
        };
        if let Err(error) = done {
            tracing::warn!(%template, %error, "a pool is as it was asked for until the next start only");
        }
    }
}

const PREFIX: &str = "pool/";

fn preset(named: Option<Value>) -> Result<Preset, Mistake> {
    let Some(named) = named else { return Ok(Preset::Standard) };
    let names = Preset::ALL.map(Preset::name).join(", ");
    let text = named.as_str().unwrap_or_default();
    text.parse()
        .map_err(|_| mistake("preset", format!("{named} is no preset"), &format!("use one of {names}")))
}

/// Puts the fields of `over` over those of `base`, tables inside tables too.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                merge(base.entry(name).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

fn mistake(field: &str, what: String, mend: &str) -> Mistake {
    Mistake { field: field.to_owned(), what, mend: mend.to_owned() }
}

fn list(mistakes: &[Mistake]) -> String {
    let each = mistakes.iter().map(|it| format!("{} {} ({})", it.field, it.what, it.mend).trim().to_owned());
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(written: Value) -> Result<PoolConfig, Vec<Mistake>> {
        pool_config("mini", written.as_object().unwrap())
    }

    #[test]
    fn what_is_written_goes_over_its_preset_field_by_field() {
        let config = config(json!({ "preset": "minimal", "tiers": { "running": 0 } })).unwrap();
        let preset = Preset::Minimal.config("mini");
        assert_eq!((config.tiers.running, config.tiers.prepared), (0, preset.tiers.prepared));
        assert_eq!(config.maximum, preset.maximum);
    }

    #[test]
    fn every_mistake_is_told_with_its_field_and_its_mend() {
        let told = config(json!({ "minimum": 9, "maximum": 2, "refill_concurrency": 0 })).unwrap_err();
        let fields: Vec<_> = told.iter().map(|mistake| mistake.field.as_str()).collect();
        assert!(fields.contains(&"minimum") && fields.contains(&"refill_concurrency"), "{told:?}");
        assert!(told.iter().all(|mistake| !mistake.mend.is_empty()));
    }

    #[test]
    fn an_unknown_strategy_preset_or_field_is_told_with_what_there_is() {
        let told = |written| list(&config(written).unwrap_err());
        assert!(told(json!({ "strategy": "best" })).contains("round-robin"));
        assert!(told(json!({ "preset": "huge" })).contains("aggressive"));
        assert!(told(json!({ "minimun": 1 })).contains("minimun"));
        assert!(told(json!({ "template": "base" })).contains("base"));
    }
}
