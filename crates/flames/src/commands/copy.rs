//! `flames cp`: files both ways, directories with `--recursive`.

use crate::cli::Cp;
use crate::client::Client;
use anyhow::{Context, bail};
use futures::StreamExt;
use std::path::{Component, Path, PathBuf};
use tokio::fs::File;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::ReaderStream;

pub(crate) async fn run(client: &Client, command: &Cp) -> anyhow::Result<()> {
    let sandbox = |id, path| Remote { client, id, path, user: command.user.as_deref() };
    match (Side::parse(&command.source), Side::parse(&command.target)) {
        (Side::Here(from), Side::Sandbox { id, path }) => {
            upload(from, &sandbox(id, path.to_owned()), command.recursive).await
        }
        (Side::Sandbox { id, path }, Side::Here(to)) => {
            download(&sandbox(id, path.to_owned()), to, command.recursive).await
        }
        (Side::Here(_), Side::Here(_)) => bail!("neither side is SANDBOX:PATH"),
        (Side::Sandbox { .. }, Side::Sandbox { .. }) => bail!("one side must be here: copy in two steps"),
    }
}

/// What `SANDBOX:PATH` or a plain path means.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Here(&'a str),
    Sandbox { id: &'a str, path: &'a str },
}

impl<'a> Side<'a> {
    fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((id, path)) if !id.is_empty() && !id.contains(['/', '.']) => Self::Sandbox { id, path },
            _ => Self::Here(text),
        }
    }
}

/// A path in a sandbox.
struct Remote<'a> {
    client: &'a Client,
    id: &'a str,
    path: String,
    user: Option<&'a str>,
}

impl Remote<'_> {
    fn at(&self, path: String) -> Self {
        Self { path, ..*self }
    }

    fn query(&self) -> Vec<(&str, &str)> {
        let user = self.user.map(|user| ("user", user));
        [("path", self.path.as_str())].into_iter().chain(user).collect()
    }
}

async fn upload(from: &str, to: &Remote<'_>, recursive: bool) -> anyhow::Result<()> {
    if from == "-" {
        let content = reqwest::Body::wrap_stream(ReaderStream::new(tokio::io::stdin()));
        return to.client.write_file(to.id, &to.query(), content).await;
    }
    let from = Path::new(from);
    match std::fs::metadata(from).with_context(|| from.display().to_string())?.is_dir() {
        true if recursive => upload_tree(from, to).await,
        true => bail!("{} is a directory: copy it with --recursive", from.display()),
        false => upload_file(from, &to.at(into_directory(&to.path, from))).await,
    }
}

async fn upload_tree(from: &Path, to: &Remote<'_>) -> anyhow::Result<()> {
    let mut waiting = vec![(from.to_owned(), to.path.trim_end_matches('/').to_owned())];
    while let Some((from, path)) = waiting.pop() {
        for entry in std::fs::read_dir(&from).with_context(|| from.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().with_context(|| format!("{} is not UTF-8", entry.path().display()))?;
            let path = format!("{path}/{name}");
            match entry.file_type()? {
                kind if kind.is_dir() => waiting.push((entry.path(), path)),
                kind if kind.is_file() => upload_file(&entry.path(), &to.at(path)).await?,
                _ => {
                    tracing::warn!(path = %entry.path().display(), "left out: neither a file nor a directory")
                }
            }
        }
    }
    Ok(())
}

async fn upload_file(from: &Path, to: &Remote<'_>) -> anyhow::Result<()> {
    let file = File::open(from).await.with_context(|| from.display().to_string())?;
    let content = reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, 256 * 1024));
    to.client.write_file(to.id, &to.query(), content).await
}

/// A target that ends in a slash is a directory to put the file in.
fn into_directory(target: &str, source: &Path) -> String {
    match (target.ends_with('/'), source.file_name()) {
        (true, Some(name)) => format!("{target}{}", name.to_string_lossy()),
        _ => target.to_owned(),
    }
}

async fn download(from: &Remote<'_>, to: &str, recursive: bool) -> anyhow::Result<()> {
    if to == "-" {
        return write_to(from, &mut tokio::io::stdout()).await;
    }
    if recursive {
        return download_tree(from, Path::new(to)).await;
    }
    let mut target = PathBuf::from(to);
    if target.is_dir() {
        target.push(from.path.rsplit('/').next().unwrap_or_default());
    }
    download_file(from, &target).await
}

async fn download_tree(from: &Remote<'_>, to: &Path) -> anyhow::Result<()> {
    let mut query = from.query();
    query.push(("depth", "32"));
    let list = from.client.list_directory(from.id, &query).await?;
    std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in list["entries"].as_array().into_iter().flatten() {
        let path = entry["path"].as_str().unwrap_or_default();
        let target = to.join(below(&from.path, path)?);
        match entry["kind"].as_str() {
            Some("directory") => std::fs::create_dir_all(&target)?,
            Some("file") => download_file(&from.at(path.to_owned()), &target).await?,
            _ => tracing::warn!(path, "left out: neither a file nor a directory"),
        }
    }
    Ok(())
}

/// The part of `path` below `base`. A sandbox decides what it answers: a path that would climb out of the
/// target is refused.
fn below(base: &str, path: &str) -> anyhow::Result<PathBuf> {
    let rest = path.strip_prefix(base.trim_end_matches('/')).unwrap_or(path).trim_start_matches('/');
    let rest = PathBuf::from(rest);
    if rest.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(rest);
    }
    bail!("the sandbox answered with a path outside of {base}: {path}")
}

/// Writes beside the target and renames, so that a broken download leaves what was there.
async fn download_file(from: &Remote<'_>, to: &Path) -> anyhow::Result<()> {
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let part = tempfile::NamedTempFile::new_in(directory).with_context(|| directory.display().to_string())?;
    let mut file = File::from_std(part.reopen()?);
    write_to(from, &mut file).await?;
    part.persist(to).with_context(|| to.display().to_string())?;
    Ok(())
}

async fn write_to(from: &Remote<'_>, to: &mut (impl AsyncWrite + Unpin)) -> anyhow::Result<()> {
    let mut content = from.client.read_file(from.id, &from.query()).await?;
    while let Some(chunk) = content.next().await {
        to.write_all(&chunk?).await?;
    }
    Ok(to.flush().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_with_a_colon_is_a_sandbox_unless_it_is_a_path() {
        assert_eq!(Side::parse("iabc:/etc/hosts"), Side::Sandbox { id: "iabc", path: "/etc/hosts" });
        for here in ["./a:b", "/a:b", ":x", "-", "file"] {
            assert_eq!(Side::parse(here), Side::Here(here));
        }
    }

    #[test]
    fn a_path_that_climbs_out_of_the_target_is_refused() {
        assert_eq!(below("/data", "/data/a/b").unwrap(), PathBuf::from("a/b"));
        for evil in ["/data/../etc/passwd", "../x", "/data/a/../../x"] {
            assert!(below("/data", evil).is_err(), "{evil}");
        }
    }

    #[test]
    fn a_target_that_ends_in_a_slash_keeps_the_name() {
        assert_eq!(into_directory("/tmp/", Path::new("x/y.txt")), "/tmp/y.txt");
        assert_eq!(into_directory("/tmp/z", Path::new("x/y.txt")), "/tmp/z");
    }
}
