//! `POST /files/compose`: one file made of several, without their bytes leaving the kernel.

use super::write::{give_to, make_parents};
use super::{blocking, http_failure, plain};
use crate::agent::Agent;
use crate::http::{Answer, Failure, json, read_json};
use crate::users::User;
use flames_guest::files::{ComposeRequest, WriteInfo};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// More files than this at once are refused.
const MAX_SOURCES: usize = 10_000;

pub(crate) async fn compose(agent: Arc<Agent>, request: Request<Incoming>) -> Result<Answer, Failure> {
    let message: ComposeRequest = read_json(request).await.map_err(plain)?;
    let user = agent.user(message.username.as_deref()).map_err(plain)?;
    if message.source_paths.is_empty() || message.source_paths.len() > MAX_SOURCES {
        return Err(bad_request(format!("source_paths must name 1 to {MAX_SOURCES} files")));
    }
    if message.destination.is_empty() {
        return Err(bad_request("destination is required"));
    }
    let resolve = |path: &String| agent.resolve(path, &user).map_err(plain);
    let sources = message.source_paths.iter().map(resolve).collect::<Result<Vec<_>, _>>()?;
    let destination = resolve(&message.destination)?;
    let work = blocking(move || join(&sources, &destination, &user).map(|()| destination));
    let made = work.await.map_err(|error| http_failure(Path::new(""), &error))??;
    Ok(json(&WriteInfo {
        name: made.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        path: made.to_string_lossy().into_owned(),
        kind: "file".to_owned(),
        metadata: Default::default(),
    }))
}

/// Everything is checked first. What was at the destination stays until the new file is whole.
fn join(sources: &[PathBuf], destination: &Path, user: &User) -> Result<(), Failure> {
    for source in sources {
        check(source, destination)?;
    }
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| http_failure(&path, &error)
    };
    make_parents(destination.parent().unwrap_or(Path::new("/")), user).map_err(at(destination))?;
    let draft = Draft(destination.with_file_name(draft_name(destination)));
    let file = File::options().write(true).create_new(true).open(&draft.0).map_err(at(destination))?;
    give_to(&file, user).map_err(at(destination))?;
    for source in sources {
        let copied = File::open(source).and_then(|mut from| io::copy(&mut from, &mut &file));
        copied.map_err(at(source))?;
    }
    fs::rename(&draft.0, destination).map_err(at(destination))?;
    // The new file is whole: a source that stays, or is gone, does not change that.
    sources.iter().for_each(|source| drop(fs::remove_file(source)));
    Ok(())
}

fn check(source: &Path, destination: &Path) -> Result<(), Failure> {
    if source == destination {
        return Err(bad_request(format!("source path '{}' is the destination", source.display())));
    }
    let found = fs::metadata(source).map_err(|error| http_failure(source, &error))?;
    if found.is_file() {
        return Ok(());
    }
    Err(bad_request(format!("source path '{}' is not a regular file", source.display())))
}

/// Hidden, next to its destination so that a rename does it, and nobody else's.
fn draft_name(destination: &Path) -> String {
    let name = destination.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().take(40).collect();
    format!(".{name}.{}.compose", crate::system::now_unix_nanos())
}

/// A file that goes unless it was renamed.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // Not there any more when all went well.
        let _renamed = fs::remove_file(&self.0);
    }
}

fn bad_request(message: impl Into<String>) -> Failure {
    Failure::http(StatusCode::BAD_REQUEST, message)
}
