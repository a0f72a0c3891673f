//! Files and directories in the guest.

use super::transport::{Body, from_json, full};
use super::types::{
    ByteStream, Entry, EntryKind, FileDownload, GuestError, GuestErrorKind, GuestResult, WriteFile,
};
use super::{CALL_DEADLINE, GuestClient};
use flames_guest::files::WriteInfo;
use flames_guest::filesystem::{
    EntryInfo, EntryResponse, FileType, ListDirRequest, ListDirResponse, MoveRequest, PathRequest,
};
use futures::{StreamExt, TryStreamExt};
use http::{Method, header};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Frame;
use std::time::Duration;

/// For a whole upload: the guest may have to write gigabytes.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(3600);
const MAX_UPLOAD_ANSWER: usize = 64 << 10;

impl GuestClient {
    /// Reads a file.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a directory; `Unauthenticated` for an unknown user.
    pub async fn read_file(&self, path: &str, user: Option<&str>) -> GuestResult<FileDownload> {
        let request = self.transport.builder(Method::GET, &files_uri(path, user));
        let response = self.transport.send(request, full(bytes::Bytes::new()), CALL_DEADLINE).await?;
        let length = response.headers().get(header::CONTENT_LENGTH);
        let size = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let body = response.into_body().into_data_stream().map_err(std::io::Error::other).boxed();
        Ok(FileDownload { size, body })
    }

    /// Writes a file, replacing what was there, and gives its absolute path.
    ///
    /// # Errors
    /// `InvalidArgument` for a directory; `ResourceExhausted` when the guest's disk is full;
    /// `Unauthenticated` for an unknown user; `Unavailable` when `content` breaks off.
    pub async fn write_file(&self, file: &WriteFile, content: ByteStream) -> GuestResult<String> {
        let request = self
            .transport
            .builder(Method::POST, &files_uri(&file.path, file.user.as_deref()))
            .header(header::CONTENT_TYPE, "application/octet-stream");
        let body: Body = StreamBody::new(content.map_ok(Frame::data)).boxed_unsync();
        let response = self.transport.send(request, body, UPLOAD_DEADLINE).await?;
        let answer =
            Limited::new(response.into_body(), MAX_UPLOAD_ANSWER).collect().await.map_err(|error| {
                GuestError::new(GuestErrorKind::Unavailable, "the agent's answer broke off")
                    .with_source(error)
            })?;
        let written: Vec<WriteInfo> = from_json(&answer.to_bytes())?;
        Ok(written.into_iter().next().map(|file| file.path).unwrap_or_default())
    }

    /// What is at a path.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stat(&self, path: &str, user: Option<&str>) -> GuestResult<Entry> {
        self.call("/filesystem.Filesystem/Stat", user, &path_request(path)).await.map(one)
    }

    /// What is in a directory, down to `depth` levels (at least 1).
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a file.
    pub async fn list_dir(&self, path: &str, depth: u32, user: Option<&str>) -> GuestResult<Vec<Entry>> {
        let message = ListDirRequest { path: path.to_owned(), depth };
        let answer: ListDirResponse = self.call("/filesystem.Filesystem/ListDir", user, &message).await?;
        Ok(answer.entries.into_iter().map(entry_of).collect())
    }

    /// Makes a directory and its parents.
    ///
    /// # Errors
    /// `AlreadyExists` for a directory; `InvalidArgument` for a file.
    pub async fn make_dir(&self, path: &str, user: Option<&str>) -> GuestResult<Entry> {
        self.call("/filesystem.Filesystem/MakeDir", user, &path_request(path)).await.map(one)
    }

    /// Renames or moves.
    ///
    /// # Errors
    /// `NotFound` without the source.
    pub async fn rename(&self, from: &str, to: &str, user: Option<&str>) -> GuestResult<Entry> {
        let message = MoveRequest { source: from.to_owned(), destination: to.to_owned() };
        self.call("/filesystem.Filesystem/Move", user, &message).await.map(one)
    }

    /// Removes a file, or a directory with what is in it. What is not there is fine.
    ///
    /// # Errors
    /// `PermissionDenied` when the user may not.
    pub async fn remove(&self, path: &str, user: Option<&str>) -> GuestResult<()> {
        let message = path_request(path);
        self.call::<serde::de::IgnoredAny>("/filesystem.Filesystem/Remove", user, &message).await.map(drop)
    }
}

fn files_uri(path: &str, user: Option<&str>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::from("/files?"));
    query.append_pair("path", path);
    if let Some(user) = user {
        query.append_pair("username", user);
    }
    query.finish()
}

fn path_request(path: &str) -> PathRequest {
    PathRequest { path: path.to_owned() }
}

fn one(answer: EntryResponse) -> Entry {
    entry_of(answer.entry.unwrap_or_default())
}

fn entry_of(wire: EntryInfo) -> Entry {
    Entry {
        name: wire.name,
        path: wire.path,
        kind: kind_of(wire.file_type),
        size: wire.size.unsigned_abs(),
        mode: wire.mode,
        permissions: wire.permissions,
        owner: wire.owner,
        group: wire.group,
        modified: wire.modified_time.unwrap_or_default(),
        symlink_target: wire.symlink_target,
    }
}

fn kind_of(wire: FileType) -> EntryKind {
    match wire {
        FileType::File => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Unspecified => EntryKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_every_awkward_character_survive_the_query() {
        let uri = files_uri("/a b/ü&c=?#%", Some("me"));
        let query = uri.split_once('?').unwrap().1;
        let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        assert_eq!(pairs[0], ("path".into(), "/a b/ü&c=?#%".into()));
        assert_eq!(pairs[1], ("username".into(), "me".into()));
    }
}
