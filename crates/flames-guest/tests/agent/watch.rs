//! Watching directories.

use crate::support::{Events, Guest};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

async fn watcher(guest: &Guest, message: Value) -> String {
    let made = guest.ok("filesystem.Filesystem/CreateWatcher", message).await;
    made["watcherId"].as_str().unwrap().to_owned()
}

async fn changes(guest: &Guest, id: &str) -> Vec<Value> {
    let answer = guest.ok("filesystem.Filesystem/GetWatcherEvents", json!({"watcherId": id})).await;
    answer["events"].as_array().cloned().unwrap_or_default()
}

fn short(events: &[Value]) -> Vec<String> {
    let text = |event: &Value| {
        let kind = event["type"].as_str().unwrap().trim_start_matches("EVENT_TYPE_");
        format!("{kind} {}", event["name"].as_str().unwrap())
    };
    events.iter().map(text).collect()
}

async fn upload(guest: &Guest, path: &str, content: &str) {
    let request = guest.post(&format!("/files?path={path}"));
    let request = request.header("Content-Type", "application/octet-stream").body(content.to_owned());
    assert!(request.send().await.unwrap().status().is_success());
}

#[tokio::test]
async fn an_upload_is_three_changes_that_are_there_as_soon_as_it_is_answered() {
    let guest = Guest::start().await;
    let id = watcher(&guest, json!({"path": guest.home()})).await;
    upload(&guest, &guest.path("new"), "content").await;
    assert_eq!(short(&changes(&guest, &id).await), ["CREATE new", "CHMOD new", "WRITE new"]);
    assert_eq!(changes(&guest, &id).await, [] as [Value; 0]);
    fs::rename(guest.path("new"), guest.path("other")).unwrap();
    fs::remove_file(guest.path("other")).unwrap();
    assert_eq!(short(&changes(&guest, &id).await), ["RENAME new", "CREATE other", "REMOVE other"]);
}

#[tokio::test]
async fn a_new_folder_is_watched_before_the_next_upload_into_it_is_answered() {
    let guest = Guest::start().await;
    let id = watcher(&guest, json!({"path": guest.home(), "recursive": true})).await;
    for round in 0..20 {
        guest.ok("filesystem.Filesystem/MakeDir", json!({"path": guest.path(&format!("d{round}/e"))})).await;
        upload(&guest, &guest.path(&format!("d{round}/e/file")), "x").await;
        let seen: BTreeSet<String> = short(&changes(&guest, &id).await).into_iter().collect();
        for wanted in ["CREATE d#", "CREATE d#/e", "CREATE d#/e/file", "WRITE d#/e/file"] {
            let wanted = wanted.replace('#', &round.to_string());
            assert!(seen.contains(&wanted), "no {wanted} in {seen:?}");
        }
    }
}

#[tokio::test]
async fn entries_are_described_when_asked_and_when_there_is_something() {
    let guest = Guest::start().await;
    let id = watcher(&guest, json!({"path": guest.home(), "includeEntry": true})).await;
    upload(&guest, &guest.path("file"), "12345").await;
    let made = changes(&guest, &id).await;
    assert_eq!(made[0]["entry"]["path"], guest.path("file"));
    assert_eq!(made[2]["entry"]["size"], "5");
    fs::remove_file(guest.path("file")).unwrap();
    let removed = changes(&guest, &id).await;
    assert_eq!((short(&removed), &removed[0]["entry"]), (vec!["REMOVE file".to_owned()], &Value::Null));
}

#[tokio::test]
async fn a_removed_watcher_is_not_found_and_tells_nothing() {
    let guest = Guest::start().await;
    let id = watcher(&guest, json!({"path": guest.home()})).await;
    guest.ok("filesystem.Filesystem/RemoveWatcher", json!({"watcherId": id})).await;
    for method in ["GetWatcherEvents", "RemoveWatcher"] {
        let code = guest.error(&format!("filesystem.Filesystem/{method}"), json!({"watcherId": id})).await;
        assert_eq!(code, "not_found");
    }
}

#[tokio::test]
async fn what_cannot_be_watched_says_why() {
    let guest = Guest::start().await;
    fs::write(guest.path("file"), "").unwrap();
    for (path, code) in [("missing", "not_found"), ("file", "invalid_argument")] {
        let message = json!({"path": guest.path(path)});
        assert_eq!(guest.error("filesystem.Filesystem/CreateWatcher", message.clone()).await, code);
        let story = guest.stream("filesystem.Filesystem/WatchDir", message, &[]).await;
        assert_eq!(error_of(story).await["code"], code);
    }
    let story = guest.stream("filesystem.Filesystem/WatchDir", json!({"path": 7}), &[]).await;
    assert_eq!(error_of(story).await["code"], "invalid_argument");
}

#[tokio::test]
async fn watchers_without_end_are_refused_and_those_that_are_there_go_on() {
    let guest = Guest::start().await;
    let first = watcher(&guest, json!({"path": guest.home()})).await;
    let mut refused = None;
    for _ in 0..150 {
        let (status, answer) =
            guest.call("filesystem.Filesystem/CreateWatcher", json!({"path": guest.home()})).await;
        if !status.is_success() {
            refused = Some(answer);
            break;
        }
    }
    assert_eq!(refused.unwrap()["code"], "resource_exhausted");
    fs::write(guest.path("new"), "").unwrap();
    assert_eq!(short(&changes(&guest, &first).await), ["CREATE new"]);
}

/// The message of the next frame.
async fn message(events: &mut Events) -> Value {
    let frame = tokio::time::timeout(Duration::from_secs(10), events.next_frame()).await.unwrap().unwrap();
    serde_json::from_slice(&frame.payload).unwrap()
}

async fn error_of(mut events: Events) -> Value {
    loop {
        let message = message(&mut events).await;
        if !message["error"].is_null() {
            return message["error"].clone();
        }
    }
}

async fn watch(guest: &Guest, message: Value, headers: &[(&str, &str)]) -> Events {
    let mut events = guest.stream("filesystem.Filesystem/WatchDir", message, headers).await;
    assert_eq!(self::message(&mut events).await, json!({"start": {}}));
    events
}

#[tokio::test]
async fn a_stream_begins_with_start_and_tells_changes_as_they_happen() {
    let guest = Guest::start().await;
    let mut events = watch(&guest, json!({"path": guest.home()}), &[]).await;
    fs::create_dir(guest.path("dir")).unwrap();
    assert_eq!(
        message(&mut events).await,
        json!({"filesystem": {"name": "dir", "type": "EVENT_TYPE_CREATE"}})
    );
    fs::remove_dir(guest.path("dir")).unwrap();
    assert_eq!(
        message(&mut events).await,
        json!({"filesystem": {"name": "dir", "type": "EVENT_TYPE_REMOVE"}})
    );
}

#[tokio::test]
async fn a_silent_watch_is_kept_alive_and_ends_with_its_deadline() {
    let guest = Guest::start().await;
    let headers = [("Keepalive-Ping-Interval", "1"), ("Connect-Timeout-Ms", "1500")];
    let mut events = watch(&guest, json!({"path": guest.home()}), &headers).await;
    assert_eq!(message(&mut events).await, json!({"keepalive": {}}));
    let last = message(&mut events).await;
    assert_eq!(last["error"]["code"], "deadline_exceeded");
    assert!(events.next_frame().await.is_none());
}

/// Makes folders in folders with files, as fast as it can, while somebody watches.
fn make_a_thousand_files(guest: &Guest) -> BTreeSet<String> {
    let mut made = BTreeSet::new();
    for dir in 0..30 {
        let dir = format!("a{}/b{dir}/c", dir % 3);
        fs::create_dir_all(guest.path(&dir)).unwrap();
        for file in 0..40 {
            let name = format!("{dir}/{file}");
            fs::write(guest.path(&name), "x").unwrap();
            made.insert(name);
        }
    }
    assert_eq!(made.len(), 1200);
    made
}

#[tokio::test]
async fn of_a_thousand_files_in_new_folders_a_stream_misses_none() {
    let guest = Guest::start().await;
    let mut events = watch(&guest, json!({"path": guest.home(), "recursive": true}), &[]).await;
    let mut missing = make_a_thousand_files(&guest);
    while !missing.is_empty() {
        let message = message(&mut events).await;
        let event = &message["filesystem"];
        if event["type"] == "EVENT_TYPE_CREATE" {
            missing.remove(event["name"].as_str().unwrap());
        }
    }
}

#[tokio::test]
async fn of_a_thousand_files_in_new_folders_a_poll_misses_none_and_tells_none_twice() {
    let guest = Guest::start().await;
    let id = watcher(&guest, json!({"path": guest.home(), "recursive": true})).await;
    let made = make_a_thousand_files(&guest);
    let seen = short(&changes(&guest, &id).await);
    let mut told: Vec<&str> = seen.iter().filter_map(|text| text.strip_prefix("CREATE ")).collect();
    told.retain(|name| made.contains(*name));
    assert_eq!(told.len(), made.len());
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>().len(), made.len());
}

#[tokio::test]
async fn a_watch_that_is_not_read_loses_changes_loudly_and_holds_no_memory() {
    let guest = Guest::start().await;
    let id = watcher(&guest, json!({"path": guest.home()})).await;
    let before = guest.resident_kib();
    for round in 0..40_000 {
        fs::write(guest.path(&(round % 100).to_string()), "x").unwrap();
    }
    let code = guest.error("filesystem.Filesystem/GetWatcherEvents", json!({"watcherId": id})).await;
    assert_eq!(code, "data_loss");
    let grown = guest.resident_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    fs::write(guest.path("after"), "").unwrap();
    assert_eq!(short(&changes(&guest, &id).await), ["CREATE after"]);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_watch_with_it() {
    let guest = Guest::start().await;
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", guest.child.id())).unwrap().count();
    let events = watch(&guest, json!({"path": guest.home()}), &[]).await;
    let during = descriptors();
    drop(events);
    let gone = async {
        while descriptors() >= during {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}
