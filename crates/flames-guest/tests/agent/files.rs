//! `/files`.

use crate::support::{Guest, TOKEN, answer, is_root, uid};
use flate2::Compression;
use flate2::write::GzEncoder;
use inotify::{EventMask, Inotify, WatchMask};
use reqwest::multipart::{Form, Part};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

fn octets(guest: &Guest, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    guest.post(&format!("/files?path={path}")).header("Content-Type", "application/octet-stream").body(body)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn part(content: &str, name: &str) -> Part {
    Part::text(content.to_owned()).file_name(name.to_owned())
}

#[tokio::test]
async fn a_part_goes_where_its_file_name_says() {
    let guest = Guest::start().await;
    let form =
        Form::new().part("file", part("one", &guest.path("deep/a.txt"))).part("file", part("two", "b.txt"));
    let (status, written) = answer(guest.post("/files").multipart(form)).await;
    let want = json!([
        {"name": "a.txt", "path": guest.path("deep/a.txt"), "type": "file"},
        {"name": "b.txt", "path": guest.path("b.txt"), "type": "file"},
    ]);
    assert_eq!((status, written), (StatusCode::OK, want));
    assert_eq!(fs::read_to_string(guest.path("deep/a.txt")).unwrap(), "one");
    assert_eq!(fs::read_to_string(guest.path("b.txt")).unwrap(), "two");
}

#[tokio::test]
async fn the_query_overrules_the_file_name_and_can_replace_it() {
    let guest = Guest::start().await;
    for form in [Form::new().part("file", part("x", "/other")), Form::new().text("file", "x")] {
        let (status, written) = answer(guest.post("/files?path=here").multipart(form)).await;
        assert_eq!((status, &written[0]["path"]), (StatusCode::OK, &json!(guest.path("here"))));
    }
}

#[tokio::test]
async fn uploads_that_name_no_file_are_refused() {
    let guest = Guest::start().await;
    let two = Form::new().part("file", part("1", "a")).part("file", part("2", "b"));
    for request in [
        guest.post("/files").multipart(Form::new().text("file", "x")),
        guest.post("/files").multipart(Form::new().text("other", "x")),
        guest.post("/files?path=here").multipart(two),
        guest.post("/files").header("Content-Type", "application/octet-stream").body("x"),
        guest.post("/files?path=here").header("Content-Type", "text/plain").body("x"),
        guest.post("/files?path=here").header("Content-Type", "multipart/form-data").body("x"),
        guest
            .post("/files?path=here")
            .header("Content-Type", "multipart/form-data; boundary=b")
            .body("--b\r\ngarbage"),
    ] {
        let (status, body) = answer(request).await;
        assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!(400)), "{body}");
    }
}

#[tokio::test]
async fn a_new_file_and_its_directories_belong_to_the_user() {
    let guest = Guest::start().await;
    assert_eq!(answer(octets(&guest, "new/dir/f", "x")).await.0, StatusCode::OK);
    for (path, mode) in [("new", 0o755), ("new/dir", 0o755), ("new/dir/f", 0o644)] {
        let found = fs::metadata(guest.path(path)).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (uid(), uid(), mode), "{path}");
    }
}

#[tokio::test]
async fn a_small_upload_is_three_events_for_who_watches() {
    if !is_root() {
        eprintln!("SKIPPED: only root gives new files to another user");
        return;
    }
    let guest = Guest::start().await;
    let mut inotify = Inotify::init().unwrap();
    inotify
        .watches()
        .add(guest.home(), WatchMask::CREATE | WatchMask::MODIFY | WatchMask::ATTRIB | WatchMask::MOVE)
        .unwrap();
    let form = Form::new().part("file", part("content", &guest.path("f")));
    answer(guest.post("/files").multipart(form)).await;
    let mut buffer = [0; 4096];
    let events: Vec<EventMask> = inotify.read_events(&mut buffer).unwrap().map(|event| event.mask).collect();
    assert_eq!(events, [EventMask::CREATE, EventMask::ATTRIB, EventMask::MODIFY]);
}

#[tokio::test]
async fn an_upload_replaces_what_was_there_and_a_large_one_arrives_whole() {
    let guest = Guest::start().await;
    let large: Vec<u8> = (0..5_000_000u32).map(|index| index.to_le_bytes()[index as usize % 4]).collect();
    answer(octets(&guest, "f", large.clone())).await;
    let read = guest.get("/files?path=f").send().await.unwrap().bytes().await.unwrap();
    assert!(read == large, "{} bytes", read.len());
    answer(octets(&guest, "f", "short")).await;
    assert_eq!(fs::read_to_string(guest.path("f")).unwrap(), "short");
}

#[tokio::test]
async fn compressed_uploads_are_stored_uncompressed() {
    let guest = Guest::start().await;
    let content = vec![b'z'; 3_000_000];
    let request = octets(&guest, "f", gzip(&content)).header("Content-Encoding", "gzip");
    assert_eq!(answer(request).await.0, StatusCode::OK);
    assert!(fs::read(guest.path("f")).unwrap() == content);
}

#[tokio::test]
async fn broken_compression_leaves_no_new_file() {
    let guest = Guest::start().await;
    let whole = gzip(b"some content that is long enough");
    for body in [b"no gzip".to_vec(), whole[..whole.len() - 3].to_vec()] {
        let (status, answer) = answer(octets(&guest, "f", body).header("Content-Encoding", "gzip")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(!fs::exists(guest.path("f")).unwrap());
    }
    let unknown = octets(&guest, "f", "x").header("Content-Encoding", "br");
    assert_eq!(answer(unknown).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_part_whose_headers_have_no_end_is_refused_and_holds_no_memory() {
    let guest = Guest::start().await;
    let head = "--b\r\nContent-Disposition: form-data; name=file; filename=f\r\nX-Endless: ";
    let body = [head.as_bytes(), &vec![b'x'; 32 << 20]].concat();
    let request = guest.post("/files").header("Content-Type", "multipart/form-data; boundary=b").body(body);
    assert_eq!(answer(request).await.0, StatusCode::BAD_REQUEST);
    assert!(!fs::exists(guest.path("f")).unwrap());
    assert!(guest.resident_kib() < 48 << 10, "{} KiB", guest.resident_kib());
}

#[tokio::test]
async fn metadata_is_stored_with_the_file_and_replaced_as_a_set() {
    let guest = Guest::start().await;
    let first = octets(&guest, "f", "x").header("X-Metadata-Author", "me").header("X-Metadata-Old", "1");
    let (_, written) = answer(first).await;
    assert_eq!(written[0]["metadata"], json!({"author": "me", "old": "1"}), "{written}");
    answer(octets(&guest, "f", "x").header("X-Metadata-Author", "you")).await;
    let stat = guest.ok("filesystem.Filesystem/Stat", json!({"path": "f"})).await;
    assert_eq!(stat["entry"]["metadata"], json!({"author": "you"}));
    answer(octets(&guest, "f", "x")).await;
    let stat = guest.ok("filesystem.Filesystem/Stat", json!({"path": "f"})).await;
    assert_eq!(stat["entry"].get("metadata"), None);
    let bad = octets(&guest, "g", "x").header("X-Metadata-A", "v".repeat(5000));
    assert_eq!(answer(bad).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_cannot_be_read_says_why() {
    let guest = Guest::start().await;
    for (query, status) in [
        ("path=none", StatusCode::NOT_FOUND),
        ("path=.", StatusCode::BAD_REQUEST),
        ("path=/dev/null", StatusCode::BAD_REQUEST),
        ("path=/etc/passwd/below", StatusCode::BAD_REQUEST),
        ("path=f&username=who", StatusCode::UNAUTHORIZED),
    ] {
        let (got, body) = answer(guest.get(&format!("/files?{query}"))).await;
        assert_eq!((got, &body["code"]), (status, &json!(status.as_u16())), "{query}: {body}");
        assert!(!body["message"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_cannot_be_written_says_why() {
    let guest = Guest::start().await;
    for path in [".", "/dev/null", "/etc/passwd/below"] {
        assert_eq!(answer(octets(&guest, path, "x")).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
}

#[tokio::test]
async fn parts_of_a_file_can_be_read() {
    let guest = Guest::start().await;
    fs::write(guest.path("f"), "0123456789").unwrap();
    let response = guest.get("/files?path=f").header("Range", "bytes=2-4").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(response.headers()["content-range"], "bytes 2-4/10");
    assert_eq!(response.text().await.unwrap(), "234");
    let response = guest.get("/files?path=f").header("Range", "bytes=10-").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(response.headers()["content-range"], "bytes */10");
}

#[tokio::test]
async fn an_unchanged_file_is_not_sent_again() {
    let guest = Guest::start().await;
    fs::write(guest.path("f"), "x").unwrap();
    let modified = guest.get("/files?path=f").send().await.unwrap().headers()["last-modified"].clone();
    let again = guest.get("/files?path=f").header("If-Modified-Since", &modified).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let older = guest.get("/files?path=f").header("If-Unmodified-Since", "Thu, 01 Jan 2015 00:00:00 GMT");
    assert_eq!(older.send().await.unwrap().status(), StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_download_is_named_and_compressed_only_for_who_takes_nothing_else() {
    let guest = Guest::start().await;
    fs::write(guest.path("ä b"), "content").unwrap();
    let request = || guest.get("/files?path=%C3%A4+b");
    let plain = request().header("Accept-Encoding", "gzip").send().await.unwrap();
    assert_eq!(
        plain.headers()["content-disposition"],
        "attachment; filename=\"_ b\"; filename*=UTF-8''%C3%A4%20b"
    );
    assert_eq!(plain.headers()["content-length"], "7");
    assert_eq!(plain.text().await.unwrap(), "content");
    let packed = request().header("Accept-Encoding", "gzip, identity;q=0").send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = packed.bytes().await.unwrap();
    let mut unpacked = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked, b"content");
    let none = request().header("Accept-Encoding", "br, identity;q=0").send().await.unwrap();
    assert_eq!(none.status(), StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn files_of_the_kernel_that_say_they_are_empty_are_read() {
    let guest = Guest::start().await;
    let text = guest.get("/files?path=/proc/sys/kernel/ostype").send().await.unwrap().text().await.unwrap();
    assert_eq!(text, "Linux\n");
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_no_half_file() {
    if !is_root() {
        eprintln!("SKIPPED: only root can mount a small file system");
        return;
    }
    // In a mount namespace of its own: the file system goes with the agent.
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().to_string_lossy().into_owned();
    let script = format!("mount -t tmpfs -o size=1m tmpfs {small} && exec \"$@\"");
    let guest = Guest::start_raw(&["unshare", "-m", "sh", "-c", &script, "sh"].map(str::to_owned));
    guest.init(json!({"accessToken": TOKEN})).await;
    let announced = octets(&guest, &format!("{small}/f"), vec![0; 2 << 20]);
    assert_eq!(answer(announced).await.0, StatusCode::INSUFFICIENT_STORAGE);
    // Compressed content does not tell its size before.
    let packed =
        octets(&guest, &format!("{small}/f"), gzip(&vec![0; 2 << 20])).header("Content-Encoding", "gzip");
    let (status, body) = answer(packed).await;
    assert_eq!(
        (status, body),
        (
            StatusCode::INSUFFICIENT_STORAGE,
            json!({"code": 507, "message": "not enough disk space available"})
        )
    );
    assert_eq!(
        guest.error("filesystem.Filesystem/Stat", json!({"path": format!("{small}/f")})).await,
        "not_found"
    );
}

#[tokio::test]
async fn several_files_become_one_that_belongs_to_the_user_and_are_gone() {
    let guest = Guest::start().await;
    for (name, text) in [("one", "1"), ("two", "22"), ("three", "333")] {
        fs::write(guest.path(name), text).unwrap();
    }
    fs::write(guest.path("whole"), "old").unwrap();
    let sources: Vec<String> = ["one", "two", "three"].map(|name| guest.path(name)).into();
    let compose = |message: Value| answer(guest.post("/files/compose").json(&message));
    let (status, made) =
        compose(json!({"source_paths": sources, "destination": guest.path("new/whole")})).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    assert_eq!(made, json!({"name": "whole", "path": guest.path("new/whole"), "type": "file"}));
    assert_eq!(fs::read_to_string(guest.path("new/whole")).unwrap(), "122333");
    assert_eq!(fs::metadata(guest.path("new/whole")).unwrap().uid(), uid());
    assert!(sources.iter().all(|source| !Path::new(source).exists()));
    assert_eq!(fs::read_dir(guest.path("new")).unwrap().count(), 1, "no draft is left");
}

#[tokio::test]
async fn what_cannot_be_composed_says_why_and_changes_nothing() {
    let guest = Guest::start().await;
    fs::write(guest.path("one"), "1").unwrap();
    fs::write(guest.path("whole"), "old").unwrap();
    let (one, whole) = (guest.path("one"), guest.path("whole"));
    for (message, status) in [
        (json!({}), 400),
        (json!({"source_paths": [], "destination": whole}), 400),
        (json!({"source_paths": [one]}), 400),
        (json!({"source_paths": [one, whole], "destination": whole}), 400),
        (json!({"source_paths": [one, guest.home()], "destination": whole}), 400),
        (json!({"source_paths": [one, guest.path("missing")], "destination": whole}), 404),
        (json!({"source_paths": [one], "destination": whole, "username": "who"}), 401),
        (json!({"source_paths": "one", "destination": whole}), 400),
        (json!({"source_paths": [one], "destination": guest.path("one/below")}), 400),
    ] {
        let (got, body) = answer(guest.post("/files/compose").json(&message)).await;
        assert_eq!((got.as_u16(), &body["code"]), (status, &json!(status)), "{message}: {body}");
    }
    assert_eq!(fs::read_to_string(&whole).unwrap(), "old");
    assert_eq!(fs::read_to_string(&one).unwrap(), "1");
    let bare = guest.http.post(format!("{}/files/compose", guest.url));
    assert_eq!(answer(bare.json(&json!({}))).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_page_of_any_origin_may_call_and_read() {
    let guest = Guest::start().await;
    let asked = guest.http.request(reqwest::Method::OPTIONS, format!("{}/files?path=x", guest.url));
    let asked =
        asked.header("Origin", "https://page").header("Access-Control-Request-Headers", "x-access-token");
    let allowed = asked.send().await.unwrap();
    assert_eq!(allowed.status(), StatusCode::NO_CONTENT);
    for (name, value) in [
        ("allow-origin", "*"),
        ("allow-headers", "x-access-token"),
        ("allow-methods", "GET, HEAD, POST, OPTIONS"),
    ] {
        assert_eq!(allowed.headers()[format!("access-control-{name}")], value);
    }
    let refused = guest.http.get(format!("{}/files?path=x", guest.url)).header("Origin", "https://page");
    let refused = refused.send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["access-control-allow-origin"], "*", "a page must see why");
}
