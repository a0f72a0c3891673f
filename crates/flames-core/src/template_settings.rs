//! What is said of a template besides its image, until it is said otherwise: `template-settings/<name>`.
//!
//! Every create asks, so they are held in memory: read at a start, changed by whoever sets them, and read again at every
//! sweep, since other daemons may share the records.

use crate::plane::ControlPlane;
use flames_node::{BootLevel, TemplateName};
use flames_provider::{Error, ErrorKind, Result};
use flames_state::{Key, Precondition, StateStoreExt};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What creates from a template get when they do not say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateSettings {
    /// How fast a create is; `None` is the daemon's default.
    pub level: Option<BootLevel>,
}

/// The settings in force, by template.
#[derive(Debug, Default)]
pub(crate) struct SettingsInForce(Mutex<HashMap<String, TemplateSettings>>);

impl SettingsInForce {
    /// Those of a template; a tag of which nothing was said has those of its template. The defaults where nothing was said.
    pub(crate) fn of(&self, template: &str) -> TemplateSettings {
        let all = self.all();
        let bare = || template.split(':').next().and_then(|bare| all.get(bare));
        all.get(template).or_else(bare).copied().unwrap_or_default()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, TemplateSettings>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlPlane {
    /// What was said of a template.
    ///
    /// # Errors
    /// `NotFound` for an unknown template.
    pub async fn template_settings(&self, name: &TemplateName) -> Result<TemplateSettings> {
        self.must_exist(name).await?;
        Ok(self.template_settings.of(name.as_str()))
    }

    /// Says it anew, from now on and after a restart.
    ///
    /// # Errors
    /// `NotFound` for an unknown template; what the store answers.
    pub async fn set_template_settings(&self, name: &TemplateName, settings: TemplateSettings) -> Result<()> {
        self.must_exist(name).await?;
        self.providers.state.put_json(key(name)?, &settings, Precondition::None).await?;
        self.template_settings.all().insert(name.to_string(), settings);
        Ok(())
    }

    /// With a template goes what was said of it.
    pub(crate) async fn forget_template_settings(&self, name: &TemplateName) -> Result<()> {
        self.template_settings.all().remove(name.as_str());
        self.providers.state.delete(key(name)?, Precondition::None).await.map(drop)
    }

    /// Reads all of them.
    pub(crate) async fn read_template_settings(&self) -> Result<()> {
        let mut found = HashMap::new();
        let mut records = self.providers.state.list_all(PREFIX);
        while let Some(record) = records.try_next().await? {
            let name = record.key.as_str().trim_start_matches(PREFIX).to_owned();
            match serde_json::from_slice(&record.value) {
                Ok(settings) => drop(found.insert(name, settings)),
                Err(error) => tracing::error!(template = name, %error, "its settings cannot be read"),
            }
        }
        drop(records);
        *self.template_settings.all() = found;
        Ok(())
    }

    async fn must_exist(&self, name: &TemplateName) -> Result<()> {
        let found = self.node.templates().await?.into_iter().any(|template| template.name == *name);
        let unknown = || Error::new(ErrorKind::NotFound, "template", name.as_str());
        found.then_some(()).ok_or_else(unknown)
    }
}

const PREFIX: &str = "template-settings/";

fn key(name: &TemplateName) -> Result<Key> {
    Key::parse(format!("{PREFIX}{name}"))
}
