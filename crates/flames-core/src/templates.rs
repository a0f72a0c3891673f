//! Templates: built on a host, remembered in the records, stored in the blob store for other hosts.

use crate::jobs::Job;
use crate::plane::ControlPlane;
use crate::reconcile::as_provider_error;
use crate::sandbox::record::Sandbox;
use flames_blob::{BlobKey, BlobStoreExt, PutOptions};
use flames_node::{BuildProgress, BuildTemplate, Template, TemplateName};
use flames_provider::{Error, ErrorKind, Result};
use flames_state::{Key, Precondition, StateStoreExt};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::mpsc;

/// Where a template's image is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTemplate {
    /// Its name.
    pub name: TemplateName,
    /// Hash of the image, hex: its name in the blob store.
    pub sha256: String,
    /// Size of the image.
    pub size_bytes: u64,
}

impl ControlPlane {
    /// Builds a template, and has a copy of its image stored.
    ///
    /// # Errors
    /// What the node answers.
    pub async fn build_template(
        &self,
        request: BuildTemplate,
        progress: mpsc::Sender<BuildProgress>,
    ) -> Result<Template> {
        let template = self.node.build_template(request, progress).await?;
        self.enqueue_logged(Job::StoreTemplate { name: template.name.clone() }, Duration::ZERO).await;
        Ok(template)
    }

    /// Gives the build that `target` names a further name, and has that remembered.
    ///
    /// # Errors
    /// What the node answers.
    pub async fn tag_template(&self, target: &TemplateName, name: TemplateName) -> Result<Template> {
        let template = self.node.tag_template(target, name).await?;
        self.enqueue_logged(Job::StoreTemplate { name: template.name.clone() }, Duration::ZERO).await;
        Ok(template)
    }

    /// Removes several templates: all of them, or none when one is needed.
    ///
    /// # Errors
    /// As [`ControlPlane::remove_template`].
    pub async fn remove_templates(&self, names: &[TemplateName]) -> Result<()> {
        self.must_not_be_needed(names).await?;
        for name in names {
            self.remove_unneeded(name).await?;
        }
        Ok(())
    }

    /// Removes a template. Its image stays in the blob store as long as another name has it.
    ///
    /// # Errors
    /// `Conflict` while sandboxes of it live: to be captured they need its image. Snapshots have it already.
    /// What the node and the stores answer.
    pub async fn remove_template(&self, name: &TemplateName) -> Result<()> {
        self.remove_templates(std::slice::from_ref(name)).await
    }

    async fn remove_unneeded(&self, name: &TemplateName) -> Result<()> {
        self.node.remove_template(name).await?;
        self.forget_template_settings(name).await?;
        let key = record_key(name)?;
        let Some(found) = self.providers.state.get_json::<StoredTemplate>(&key).await? else { return Ok(()) };
        self.providers.state.delete(key, Precondition::Revision(found.revision)).await?;
        if !self.has_image(&found.value.sha256).await? {
            self.providers.blob.delete(&image_key(&found.value.sha256)?).await?;
        }
        Ok(())
    }

    async fn must_not_be_needed(&self, names: &[TemplateName]) -> Result<()> {
        let records = self.records.all().await.map_err(as_provider_error)?;
        let needs =
            |sandbox: &Sandbox, name: &TemplateName| sandbox.template == *name && sandbox.state.has_vm();
        let live = |name| records.iter().filter(|stored| needs(&stored.sandbox, name)).count();
        match names.iter().map(|name| (name, live(name))).find(|(_, live)| *live > 0) {
            None => Ok(()),
            Some((name, live)) => {
                Err(Error::new(ErrorKind::Conflict, "template", name.as_str()).detail(format!(
                    "{live} sandbox(es) of it live and need its image: end them, or pause them to disk, first"
                )))
            }
        }
    }

    /// Copies an image into the blob store, then says so in a record: never the other way round.
    pub(crate) async fn store_template(&self, name: &TemplateName) -> Result<()> {
        let templates = self.node.templates().await?;
        // Removed again before its turn came.
        let Some(template) = templates.into_iter().find(|template| template.name == *name) else {
            return Ok(());
        };
        let key = image_key(&template.sha256)?;
        match self.providers.blob.put_file(&key, PutOptions::CREATE_ONLY, &template.image).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let stored =
            StoredTemplate { name: template.name, sha256: template.sha256, size_bytes: template.size_bytes };
        self.providers.state.put_json(record_key(name)?, &stored, Precondition::None).await?;
        Ok(())
    }

    async fn has_image(&self, sha256: &str) -> Result<bool> {
        let mut records = self.providers.state.list_all(PREFIX);
        while let Some(record) = records.try_next().await? {
            let stored = serde_json::from_slice::<StoredTemplate>(&record.value);
            if stored.is_ok_and(|it| it.sha256 == sha256) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

const PREFIX: &str = "template/";

fn record_key(name: &TemplateName) -> Result<Key> {
    Key::parse(format!("{PREFIX}{name}"))
}

fn image_key(sha256: &str) -> Result<BlobKey> {
    if sha256.is_empty() {
        return Err(Error::new(ErrorKind::Corrupt, "template", "image").detail("its hash was not recorded"));
    }
    BlobKey::parse(format!("templates/{sha256}"))
}
