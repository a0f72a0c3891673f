//! `filesystem.Filesystem`: looking at and changing paths, as JSON on the wire.

use crate::json::{self, is_zero, proto_enum};
use crate::process::Empty;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Path of a method of this service, for example `/filesystem.Filesystem/Stat`.
pub const SERVICE: &str = "filesystem.Filesystem";

/// One file, directory or symbolic link.
///
/// Of a symbolic link, type, size and mode are those of its target, and `symlink_target` says where it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EntryInfo {
    /// Last part of the path.
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    /// What it is.
    #[serde(rename = "type", skip_serializing_if = "is_zero")]
    pub file_type: FileType,
    /// Absolute path.
    #[serde(skip_serializing_if = "is_zero")]
    pub path: String,
    /// Bytes.
    #[serde(with = "json::int64", skip_serializing_if = "is_zero")]
    pub size: i64,
    /// Permission bits.
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: u32,
    /// The same for people: `-rw-r--r--`.
    #[serde(skip_serializing_if = "is_zero")]
    pub permissions: String,
    /// Name of the owner, or its number when it has none.
    #[serde(skip_serializing_if = "is_zero")]
    pub owner: String,
    /// Name of the group, or its number when it has none.
    #[serde(skip_serializing_if = "is_zero")]
    pub group: String,
    /// Last change of the content (RFC 3339, UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified_time: Option<String>,
    /// Where a symbolic link ends, fully resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symlink_target: Option<String>,
    /// What was stored with an upload.
    #[serde(skip_serializing_if = "is_zero")]
    pub metadata: BTreeMap<String, String>,
}

proto_enum! {
    /// What a path names.
    FileType {
        /// None of the others: a socket, a device, a pipe.
        #[default]
        Unspecified = 0 "FILE_TYPE_UNSPECIFIED",
        /// A regular file.
        File = 1 "FILE_TYPE_FILE",
        /// A directory.
        Directory = 2 "FILE_TYPE_DIRECTORY",
        /// A symbolic link that leads nowhere.
        Symlink = 3 "FILE_TYPE_SYMLINK",
    }
}

/// A request about one path: `Stat`, `MakeDir`, `Remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PathRequest {
    /// Absolute, `~`, or relative to the user's home.
    #[serde(skip_serializing_if = "is_zero")]
    pub path: String,
}

/// `Move`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MoveRequest {
    /// What to move.
    #[serde(skip_serializing_if = "is_zero")]
    pub source: String,
    /// Where to. Missing parents are made.
    #[serde(skip_serializing_if = "is_zero")]
    pub destination: String,
}

/// Answer of `Stat`, `MakeDir` and `Move`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EntryResponse {
    /// The path as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryInfo>,
}

/// `ListDir`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListDirRequest {
    /// A directory.
    #[serde(skip_serializing_if = "is_zero")]
    pub path: String,
    /// How many levels; zero means one.
    #[serde(skip_serializing_if = "is_zero")]
    pub depth: u32,
}

/// Answer of `ListDir`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListDirResponse {
    /// Depth first, by name.
    #[serde(skip_serializing_if = "is_zero")]
    pub entries: Vec<EntryInfo>,
}

/// `WatchDir` and `CreateWatcher`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WatchRequest {
    /// A directory.
    #[serde(skip_serializing_if = "is_zero")]
    pub path: String,
    /// Whether everything below it is watched, too.
    #[serde(skip_serializing_if = "is_zero")]
    pub recursive: bool,
    /// Whether events describe what they are about.
    #[serde(skip_serializing_if = "is_zero")]
    pub include_entry: bool,
    /// Whether it may be on a network file system, where changes by others are not seen.
    #[serde(skip_serializing_if = "is_zero")]
    pub allow_network_mounts: bool,
}

/// One message of the stream of `WatchDir`: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WatchResponse {
    /// First of every stream: what happens from now on is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Empty>,
    /// Something changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<FilesystemEvent>,
    /// Nothing happened for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Empty>,
}

/// One change below a watched directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FilesystemEvent {
    /// Path relative to the watched directory; `.` is that directory itself.
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    /// What happened.
    #[serde(rename = "type", skip_serializing_if = "is_zero")]
    pub event_type: EventType,
    /// What is there now, if that was asked for and something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryInfo>,
}

proto_enum! {
    /// What happened to a path.
    EventType {
        /// None of the others.
        #[default]
        Unspecified = 0 "EVENT_TYPE_UNSPECIFIED",
        /// It was made, or moved here.
        Create = 1 "EVENT_TYPE_CREATE",
        /// Its content changed.
        Write = 2 "EVENT_TYPE_WRITE",
        /// It was removed.
        Remove = 3 "EVENT_TYPE_REMOVE",
        /// It was moved away.
        Rename = 4 "EVENT_TYPE_RENAME",
        /// Its owner, permissions, times or attributes changed.
        Chmod = 5 "EVENT_TYPE_CHMOD",
    }
}

/// Names a watcher: the answer of `CreateWatcher`, and what `GetWatcherEvents` and `RemoveWatcher` ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WatcherRef {
    /// Given by `CreateWatcher`.
    #[serde(skip_serializing_if = "is_zero")]
    pub watcher_id: String,
}

/// Answer of `GetWatcherEvents`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WatcherEvents {
    /// What happened since the last call, oldest first.
    #[serde(skip_serializing_if = "is_zero")]
    pub events: Vec<FilesystemEvent>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_travel_as_strings_and_are_read_as_numbers_too() {
        let entry = EntryInfo { size: 1 << 40, file_type: FileType::File, ..Default::default() };
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(text, r#"{"type":"FILE_TYPE_FILE","size":"1099511627776"}"#);
        assert_eq!(serde_json::from_str::<EntryInfo>(&text).unwrap(), entry);
        assert_eq!(serde_json::from_str::<EntryInfo>(r#"{"size":7,"type":2}"#).unwrap().size, 7);
    }
}
