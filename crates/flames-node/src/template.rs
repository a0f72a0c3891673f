//! Templates: images that came with Flames, and images that were built on this node.
//!
//! A built image is a file named by its hash that is never changed; the template's name is a small JSON
//! file next to it that is replaced in one step. So a run keeps its image, whatever happens to the name.

mod build;

use crate::disk::blocking;
use crate::paths::{Assets, DataDir, io_error};
use crate::{BuildProgress, BuildTemplate, StartUp, Template, TemplateName, TemplateOrigin};
use flames_vmm::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Finds, lists, builds and removes templates.
#[derive(Clone, Debug)]
pub struct TemplateStore {
    built_in: PathBuf,
    user: PathBuf,
    user_images: PathBuf,
    /// Held while names change: an image goes when its last name does, and must not get another in that moment.
    names: Arc<Mutex<()>>,
}

impl TemplateStore {
    /// The templates of these two folders.
    pub fn new(assets: &Assets, data: &DataDir) -> Self {
        Self {
            built_in: assets.images(),
            user: data.templates(),
            user_images: data.template_images(),
            names: Arc::default(),
        }
    }

    /// The template with a name.
    ///
    /// # Errors
    /// `NotFound`, naming those there are; `Corrupt` when its record cannot be read.
    pub async fn find(&self, name: &TemplateName) -> Result<Template> {
        let (this, wanted) = (self.clone(), name.clone());
        blocking("template", move || this.find_now(&wanted)).await
    }

    /// All templates by name.
    ///
    /// # Errors
    /// `Unavailable` when a folder cannot be read.
    pub async fn list(&self) -> Result<Vec<Template>> {
        let this = self.clone();
        blocking("template", move || this.list_now()).await
    }

    /// Builds a template; see [`crate::Node::build_template`].
    ///
    /// # Errors
    /// As there.
    pub async fn build(
        &self,
        request: BuildTemplate,
        progress: &mpsc::Sender<BuildProgress>,
    ) -> Result<Template> {
        self.refuse_built_in(&request.name)?;
        let built = build::image(&request.from, &self.user_images, progress).await?;
        let this = self.clone();
        blocking("template", move || this.publish(request.name, built, request.start_up)).await
    }

    /// Gives a build a further name; see [`crate::Node::tag_template`].
    ///
    /// # Errors
    /// As there.
    pub async fn tag(&self, target: &TemplateName, name: TemplateName) -> Result<Template> {
        self.refuse_built_in(&name)?;
        let (this, target) = (self.clone(), target.clone());
        blocking("template", move || this.tag_now(&target, name)).await
    }

    /// Removes a template that was built here, and its image if no other name has it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a built-in one.
    pub async fn remove(&self, name: &TemplateName) -> Result<()> {
        self.refuse_built_in(name)?;
        let (this, name) = (self.clone(), name.clone());
        blocking("template", move || this.remove_now(&name)).await
    }

    fn find_now(&self, name: &TemplateName) -> Result<Template> {
        if let Some(template) = self.built_in(name)? {
            return Ok(template);
        }
        if let Some(template) = self.built_here(name)? {
            return Ok(template);
        }
        let known: Vec<String> =
            self.list_now()?.into_iter().map(|template| template.name.to_string()).collect();
        let known = if known.is_empty() { "there are none".to_owned() } else { known.join(", ") };
        Err(Error::new(ErrorKind::NotFound, "template", name.as_str())
            .detail(format!("known templates: {known}")))
    }

    fn list_now(&self) -> Result<Vec<Template>> {
        let mut all = BTreeMap::new();
        for name in names_in(&self.user, "json")? {
            all.insert(name.clone(), self.built_here(&name)?);
        }
        for name in names_in(&self.built_in, "erofs")? {
            all.insert(name.clone(), self.built_in(&name)?);
        }
        Ok(all.into_values().flatten().collect())
    }

    fn built_in(&self, name: &TemplateName) -> Result<Option<Template>> {
        let image = self.built_in.join(format!("{name}.erofs"));
        let Some(size_bytes) = file_size(&image)? else { return Ok(None) };
        // What describes the image is written by the image builds; an image without it works all the same.
        let facts = std::fs::read(self.built_in.join(format!("{name}.erofs.json"))).unwrap_or_default();
        let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap_or_default();
        let text = |key: &str| facts[key].as_str().unwrap_or_default().to_owned();
        Ok(Some(Template {
            name: name.clone(),
            origin: TemplateOrigin::BuiltIn,
            size_bytes,
            sha256: text("sha256"),
            created_unix: modified_unix(&image),
            built_from: text("builtFrom"),
            start_up: start_up(&facts),
            image,
        }))
    }

    fn built_here(&self, name: &TemplateName) -> Result<Option<Template>> {
        let record = self.read_record(name)?;
        Ok(record.map(|record| record.into_template(name.clone(), &self.user_images)))
    }

    fn read_record(&self, name: &TemplateName) -> Result<Option<Record>> {
        let path = self.record(name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("template", path, "read", error)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "template", name.as_str()).source(error))
    }

    fn refuse_built_in(&self, name: &TemplateName) -> Result<()> {
        match self.built_in(name)? {
            None => Ok(()),
            Some(_) => Err(Error::new(ErrorKind::Conflict, "template", name.as_str())
                .detail("came with Flames: choose another name")),
        }
    }

    fn publish(
        &self,
        name: TemplateName,
        built: build::Image,
        start_up: Option<StartUp>,
    ) -> Result<Template> {
        let record = Record {
            sha256: built.sha256,
            size_bytes: built.size_bytes,
            created_unix: unix(SystemTime::now()),
            built_from: built.built_from,
            start_up,
        };
        let _turn = self.turn();
        let template = record.clone().into_template(name.clone(), &self.user_images);
        std::fs::rename(&built.path, &template.image)
            .map_err(|error| io_error("template", &template.image, "rename", error))?;
        built.temporary.keep();
        self.name(&name, &record)?;
        Ok(template)
    }

    fn tag_now(&self, target: &TemplateName, name: TemplateName) -> Result<Template> {
        let _turn = self.turn();
        let Some(record) = self.read_record(target)? else {
            let found = self.find_now(target)?;
            return Err(Error::new(ErrorKind::Conflict, "template", found.name.as_str()).detail(
                "came with Flames, and only what was built here can be tagged: build a template of your own",
            ));
        };
        let record = Record { created_unix: unix(SystemTime::now()), ..record };
        self.name(&name, &record)?;
        Ok(record.into_template(name, &self.user_images))
    }

    /// Writes what a name stands for; what it stood for before goes unless another name has it.
    fn name(&self, name: &TemplateName, record: &Record) -> Result<()> {
        let previous = self.built_here(name).unwrap_or_default();
        write_json(&self.record(name), record)?;
        previous.map_or(Ok(()), |previous| self.remove_unnamed(&previous.sha256))
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_now(&self, name: &TemplateName) -> Result<()> {
        let _turn = self.turn();
        let found = self.built_here(name)?;
        let gone = || Error::new(ErrorKind::NotFound, "template", name.as_str());
        let template = found.ok_or_else(gone)?;
        let path = self.record(name);
        std::fs::remove_file(&path).map_err(|error| io_error("template", path, "remove", error))?;
        self.remove_unnamed(&template.sha256)
    }

    /// Removes an image that no name has. A VM that runs from it keeps the open file.
    fn remove_unnamed(&self, sha256: &str) -> Result<()> {
        if self.list_now()?.iter().any(|template| template.sha256 == sha256) {
            return Ok(());
        }
        let image = image_path(&self.user_images, sha256);
        match std::fs::remove_file(&image) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("template", image, "remove", error))
            }
            _ => Ok(()),
        }
    }

    fn record(&self, name: &TemplateName) -> PathBuf {
        self.user.join(format!("{name}.json"))
    }
}

/// What is stored about a template that was built here.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    sha256: String,
    size_bytes: u64,
    created_unix: u64,
    built_from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_up: Option<StartUp>,
}

impl Record {
    fn into_template(self, name: TemplateName, images: &Path) -> Template {
        Template {
            name,
            origin: TemplateOrigin::User,
            image: image_path(images, &self.sha256),
            size_bytes: self.size_bytes,
            sha256: self.sha256,
            created_unix: self.created_unix,
            built_from: self.built_from,
            start_up: self.start_up,
        }
    }
}

fn image_path(images: &Path, sha256: &str) -> PathBuf {
    images.join(format!("{sha256}.erofs"))
}

/// What an image build wrote about what its guests run.
fn start_up(facts: &serde_json::Value) -> Option<StartUp> {
    let text = |key: &str| facts[key].as_str().map(str::to_owned);
    Some(StartUp { command: text("startCommand")?, ready: text("readyCommand") })
}

/// The valid template names among the files of a folder with an extension; a folder that is missing is empty.
fn names_in(folder: &Path, extension: &str) -> Result<Vec<TemplateName>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("template folder", folder, "list", error)),
    };
    let name = |entry: io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path();
        let matches = path.extension().is_some_and(|found| found == extension);
        let stem = path.file_stem()?.to_str()?.to_owned();
        TemplateName::parse(stem).ok().filter(|_| matches)
    };
    Ok(entries.filter_map(name).collect())
}

fn file_size(path: &Path) -> Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("template", path, "stat", error)),
    }
}

fn modified_unix(path: &Path) -> u64 {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).map(unix).unwrap_or_default()
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

/// Replaces a small JSON file in one step; its owner alone may read it.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |operation| move |error| io_error("file", path, operation, error);
    let json = serde_json::to_vec_pretty(value).map_err(|error| failed("serialise")(error.into()))?;
    let temporary = path.with_extension("tmp");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed("create"))?;
    file.write_all(&json).map_err(failed("write"))?;
    std::fs::rename(&temporary, path).map_err(failed("rename"))
}
