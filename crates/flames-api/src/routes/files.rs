//! Files in a sandbox: read, write, list, make directories, remove.

use crate::Api;
use crate::extract::{Path, Query};
use crate::model::{EntryList, WrittenFile};
use crate::problem::Problem;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flames_core::SandboxId;
use flames_core::activity::Work;
use flames_node::WriteFile;
use futures::{Stream, StreamExt};
use http_body_util::BodyDataStream;
use serde::Deserialize;
use std::io;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(read, write, remove))
        // Uploads are streamed and counted by `bounded`.
        .layer(DefaultBodyLimit::disable())
        .merge(OpenApiRouter::new().routes(routes!(list, make)))
}

/// Read a file.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/files", tag = "files", params(("id" = String, Path), FileQuery),
    responses(
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 400, description = "it is a directory", body = Problem), (status = 404, body = Problem),
    ),
)]
async fn read(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<FileQuery>,
) -> Result<Response, Problem> {
    let guest = api.plane.guest(&SandboxId::parse(&id)?).await?;
    let file = guest.read_file(&query.path, query.user.as_deref()).await?;
    let size = file.size.map(|size| (header::CONTENT_LENGTH, size.into()));
    let headers: HeaderMap = size.into_iter().collect();
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    let body = while_read(guest.into_work(), file.body);
    Ok((kind, headers, Body::from_stream(body)).into_response())
}

/// Write a file; parents are made, what was there is replaced.
#[utoipa::path(
    put, path = "/v1/sandboxes/{id}/files", tag = "files", params(("id" = String, Path), FileQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = WrittenFile), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 413, description = "larger than the daemon allows", body = Problem),
        (status = 507, description = "the sandbox's disk is full", body = Problem),
    ),
)]
async fn write(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<FileQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<WrittenFile>, Problem> {
    let limit = api.max_upload_bytes;
    refuse_oversized(&headers, limit)?;
    let guest = api.plane.guest(&SandboxId::parse(&id)?).await?;
    let file = WriteFile { path: query.path, user: query.user };
    let (content, exceeded) = bounded(body, limit);
    match guest.write_file(&file, content).await {
        Ok(path) => Ok(axum::Json(WrittenFile { path })),
        Err(_) if exceeded.load(std::sync::atomic::Ordering::Relaxed) => Err(too_large(limit)),
        Err(error) => Err(error.into()),
    }
}

/// Remove a file, or a directory with what is in it. What is not there is fine.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/files", tag = "files", params(("id" = String, Path), FileQuery),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem)),
)]
async fn remove(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<FileQuery>,
) -> Result<StatusCode, Problem> {
    api.plane.guest(&SandboxId::parse(&id)?).await?.remove(&query.path, query.user.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is in a directory.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/directories", tag = "files", params(("id" = String, Path), DirectoryQuery),
    responses((status = 200, body = EntryList), (status = 400, body = Problem), (status = 404, body = Problem)),
)]
async fn list(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<DirectoryQuery>,
) -> Result<axum::Json<EntryList>, Problem> {
    let guest = api.plane.guest(&SandboxId::parse(&id)?).await?;
    let depth = query.depth.unwrap_or(1);
    if !(1..=MAX_DEPTH).contains(&depth) {
        return Err(Problem::invalid("depth", format!("must be 1 to {MAX_DEPTH}")));
    }
    let entries = guest.list_dir(&query.path, depth, query.user.as_deref()).await?;
    Ok(axum::Json(EntryList { entries }))
}

/// Make a directory and its parents.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/directories", tag = "files", params(("id" = String, Path), FileQuery),
    responses((status = 201), (status = 404, body = Problem), (status = 409, description = "it exists", body = Problem)),
)]
async fn make(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<FileQuery>,
) -> Result<StatusCode, Problem> {
    api.plane.guest(&SandboxId::parse(&id)?).await?.make_dir(&query.path, query.user.as_deref()).await?;
    Ok(StatusCode::CREATED)
}

/// The same stream; the sandbox is in use until it is dropped.
fn while_read<S: Stream>(work: Work, stream: S) -> impl Stream<Item = S::Item> {
    stream.map(move |item| {
        let _in_use = &work;
        item
    })
}

const MAX_DEPTH: u32 = 32;

/// Which file.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FileQuery {
    /// Absolute, or relative to the user's home.
    path: String,
    /// As whom; default: the sandbox's user.
    user: Option<String>,
}

/// Which directory.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DirectoryQuery {
    /// Absolute, or relative to the user's home.
    path: String,
    /// Levels below it, 1 to 32; default 1.
    depth: Option<u32>,
    /// As whom; default: the sandbox's user.
    user: Option<String>,
}

/// Refuses by the announced length, before a byte is read.
fn refuse_oversized(headers: &HeaderMap, limit: u64) -> Result<(), Problem> {
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match announced {
        Some(length) if length > limit => Err(too_large(limit)),
        _ => Ok(()),
    }
}

type Exceeded = std::sync::Arc<std::sync::atomic::AtomicBool>;

/// The body as a stream that breaks off behind `limit` bytes and says so in the flag.
fn bounded(body: Body, limit: u64) -> (flames_node::ByteStream, Exceeded) {
    let exceeded = Exceeded::default();
    let flag = exceeded.clone();
    let mut seen: u64 = 0;
    let stream = BodyDataStream::new(body).map(move |chunk| {
        let chunk = chunk.map_err(io::Error::other)?;
        seen += chunk.len() as u64;
        if seen <= limit {
            return Ok(chunk);
        }
        flag.store(true, std::sync::atomic::Ordering::Relaxed);
        Err(io::Error::new(io::ErrorKind::FileTooLarge, "the upload is larger than the daemon allows"))
    });
    (stream.boxed(), exceeded)
}

fn too_large(limit: u64) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "upload_too_large",
        format!("at most {limit} bytes may be uploaded"),
    )
    .mend("raise `api.max_upload_mib` in the daemon's configuration")
}
