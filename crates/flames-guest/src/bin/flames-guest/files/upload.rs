//! `POST /files`: one file as the whole body, or several as parts.

use super::metadata::{self, Metadata};
use super::multipart::Parts;
use super::plain;
use super::source::Source;
use super::write::{Writer, check_space};
use crate::agent::Agent;
use crate::http::{Answer, Failure, header, json, query};
use crate::users::User;
use flames_guest::files::WriteInfo;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Request, StatusCode};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// More files than this in one upload are refused.
const MAX_FILES: usize = 1024;

pub(crate) async fn upload(
    agent: Arc<Agent>,
    request: Request<Incoming>,
    user: Option<String>,
) -> Result<Answer, Failure> {
    let upload = Upload {
        user: agent.user(user.as_deref()).map_err(plain)?,
        path: query(&request, "path").filter(|path| !path.is_empty()),
        metadata: metadata::from_headers(request.headers())?,
        agent,
    };
    let content_type = header(request.headers(), CONTENT_TYPE.as_str()).unwrap_or_default().to_owned();
    let announced = announced(&request);
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let written = match essence.as_str() {
        "multipart/form-data" => {
            upload.parts(Parts::of(Source::of(request)?.not_compressed()?, &content_type)?, announced).await?
        }
        "application/octet-stream" => vec![upload.whole(Source::of(request)?, announced).await?],
        _ => {
            return Err(Failure::http(
                StatusCode::BAD_REQUEST,
                format!("unsupported content type `{content_type}`"),
            ));
        }
    };
    Ok(json(&written))
}

/// What holds for every file of an upload.
struct Upload {
    agent: Arc<Agent>,
    user: User,
    path: Option<String>,
    metadata: Metadata,
}

impl Upload {
    async fn whole(&self, mut source: Source, announced: Option<u64>) -> Result<WriteInfo, Failure> {
        let path = self.path.as_deref().ok_or_else(|| bad_request("the query parameter path is missing"))?;
        let mut writer = self.create(path, announced).await?;
        while let Some(piece) = source.next().await? {
            writer.write(piece).await?;
        }
        writer.finish(self.metadata.clone()).await.map(|path| self.describe(&path))
    }

    async fn parts(&self, mut parts: Parts, announced: Option<u64>) -> Result<Vec<WriteInfo>, Failure> {
        let mut written = Vec::new();
        while let Some(mut part) = parts.next().await? {
            if written.len() == MAX_FILES || (self.path.is_some() && !written.is_empty()) {
                return Err(bad_request("too many files: one for a given path, at most 1024 otherwise"));
            }
            let path = self.path.clone().or_else(|| part.file_name.take());
            let path =
                path.ok_or_else(|| bad_request("a part has no filename, and the query has no path"))?;
            let mut writer = self.create(&path, announced).await?;
            while let Some(piece) = part.piece().await? {
                writer.write(piece).await?;
            }
            written.push(self.describe(&writer.finish(self.metadata.clone()).await?));
        }
        if written.is_empty() {
            return Err(bad_request("the upload has no part named `file`"));
        }
        Ok(written)
    }

    async fn create(&self, path: &str, announced: Option<u64>) -> Result<Writer, Failure> {
        let path = self.agent.resolve(path, &self.user).map_err(plain)?;
        check_space(&path, announced)?;
        Writer::create(path, self.user.clone()).await
    }

    fn describe(&self, path: &Path) -> WriteInfo {
        WriteInfo {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            path: PathBuf::from(path).to_string_lossy().into_owned(),
            kind: "file".to_owned(),
            metadata: self.metadata.clone(),
        }
    }
}

/// How large the content will be at least, if that is known. Compressed content only grows.
fn announced(request: &Request<Incoming>) -> Option<u64> {
    let length = header(request.headers(), CONTENT_LENGTH.as_str())?.parse::<u64>().ok()?;
    let is_plain = header(request.headers(), CONTENT_ENCODING.as_str())
        .is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
    is_plain.then_some(length)
}

fn bad_request(message: &str) -> Failure {
    Failure::http(StatusCode::BAD_REQUEST, message)
}
