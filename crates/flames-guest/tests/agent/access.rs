//! Who may call what, and what an init does.

use crate::support::{CONTROL, Guest, TOKEN, answer};
use base64::Engine as _;
use flames_guest::files::{Operation, Signed, signature};
use reqwest::StatusCode;
use serde_json::json;
use std::fs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn health_is_open_before_init_and_without_a_token() {
    let guest = Guest::start_raw(&[]);
    let health = guest.http.get(format!("{}/health", guest.url)).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn before_init_no_data_call_is_served() {
    let guest = Guest::start_raw(&[]);
    for request in [
        guest.post("/process.Process/List").json(&json!({})),
        guest.get("/files?path=/etc/passwd"),
        guest.get("/envs"),
    ] {
        let (status, body) = answer(request).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, json!({"code": 503, "message": "the sandbox is not initialised yet"}));
    }
}

#[tokio::test]
async fn control_calls_need_the_control_token() {
    let guest = Guest::start_raw(&[]);
    for path in ["/flames/v1/init", "/flames/v1/shutdown"] {
        for token in [None, Some("wrong"), Some(TOKEN)] {
            let mut request =
                guest.http.post(format!("{}{path}", guest.url)).json(&json!({"accessToken": TOKEN}));
            if let Some(token) = token {
                request = request.header("X-Flames-Control", token);
            }
            assert_eq!(answer(request).await.0, StatusCode::UNAUTHORIZED, "{path} {token:?}");
        }
    }
    let (status, _) = answer(guest.post("/process.Process/List").json(&json!({}))).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "a refused init must not initialise");
}

#[tokio::test]
async fn data_calls_need_the_access_token() {
    let guest = Guest::start().await;
    for token in ["", "wrong", CONTROL, "access-token-of-the-test"] {
        let request =
            guest.http.post(format!("{}/process.Process/List", guest.url)).header("X-Access-Token", token);
        let (status, body) = answer(request.json(&json!({}))).await;
        assert_eq!((status, body["code"].clone()), (StatusCode::UNAUTHORIZED, json!(401)), "{token}");
    }
    assert_eq!(guest.ok("process.Process/List", json!({})).await, json!({}));
}

#[tokio::test]
async fn an_init_that_is_wrong_changes_nothing() {
    let guest = Guest::start().await;
    for wrong in [
        json!({"accessToken": ""}),
        json!({"accessToken": "with space"}),
        json!({"accessToken": "new", "entropy": "AAAA"}),
        json!({"accessToken": "new", "controlToken": "short"}),
        json!({"accessToken": "new", "controlToken": "with a space in its middle"}),
        json!({"accessToken": "new", "closeConnections": 1}),
        json!({"accessToken": "new", "hostname": "a b"}),
        json!({"accessToken": "new", "defaultUser": "who"}),
        json!({"accessToken": "new", "defaultWorkdir": "relative"}),
        json!({"accessToken": "new", "envVars": {"A=B": "c"}}),
        json!({"accessToken": "new", "timeUnixNanos": "-1"}),
        json!({"accessToken": 7}),
    ] {
        let (status, body) = guest.init(wrong.clone()).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (StatusCode::BAD_REQUEST, Some("invalid_argument")),
            "{wrong}"
        );
    }
    guest.ok("process.Process/List", json!({})).await;
}

#[tokio::test]
async fn the_first_init_must_carry_a_token() {
    let guest = Guest::start_raw(&[]);
    assert_eq!(guest.init(json!({"hostname": "a"})).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_repeated_init_replaces_what_it_names_and_keeps_the_rest() {
    let guest = Guest::start().await;
    let (status, done) = guest.init(json!({"accessToken": "second", "defaultUser": "root"})).await;
    assert_eq!(
        (status, &done["accessTokenSet"], &done["envVars"]),
        (StatusCode::OK, &json!(true), &json!(1)),
        "{done}"
    );
    assert_eq!(guest.call("process.Process/List", json!({})).await.0, StatusCode::UNAUTHORIZED);
    let envs = guest.http.get(format!("{}/envs", guest.url)).header("X-Access-Token", "second");
    assert_eq!(answer(envs).await.1, json!({"FROM_INIT": "1"}));
}

#[tokio::test]
async fn init_gives_the_guest_its_name_and_a_new_machine_id() {
    let guest = Guest::start_raw(&[]);
    let message = json!({"accessToken": TOKEN, "hostname": "sbx-1", "renewMachineId": true});
    let (_, first) = guest.init(message.clone()).await;
    let (_, second) = guest.init(message).await;
    assert_eq!(first["machineId"].as_str().unwrap().len(), 32);
    assert_ne!(first["machineId"], second["machineId"]);
    assert_eq!(first["bootId"], second["bootId"]);
    let read = |name: &str| fs::read_to_string(guest.root.path().join(name)).unwrap();
    assert_eq!(read("etc/hostname"), "sbx-1\n");
    assert_eq!(read("etc/hosts"), "127.0.0.1 localhost\n127.0.1.1 sbx-1\n");
}

#[tokio::test]
async fn init_replaces_the_control_token_and_the_old_one_opens_nothing() {
    let guest = Guest::start().await;
    let (status, done) = guest.init(json!({"controlToken": "control-token-of-the-clone"})).await;
    assert_eq!((status, &done["controlTokenReplaced"]), (StatusCode::OK, &json!(true)), "{done}");
    assert_eq!(guest.init(json!({})).await.0, StatusCode::UNAUTHORIZED);
    let request = guest.http.post(format!("{}/flames/v1/init", guest.url));
    let request = request.header("X-Flames-Control", "control-token-of-the-clone").json(&json!({}));
    let (status, done) = answer(request).await;
    assert_eq!((status, &done["controlTokenReplaced"]), (StatusCode::OK, &json!(false)), "{done}");
}

#[tokio::test]
async fn init_resets_every_connection_but_its_own_and_processes_go_on() {
    let guest = Guest::start().await;
    let address = guest.url.trim_start_matches("http://").to_owned();
    let mut stream = guest.sh("echo begun; exec sleep 1000").await;
    let pid = stream.pid().await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut connection = TcpStream::connect(&address).await.unwrap();
        connection.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(connection.read(&mut [0; 512]).await.unwrap() > 0);
        idle.push(connection);
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let init = |message: serde_json::Value| {
        let request = client.post(format!("{}/flames/v1/init", guest.url));
        answer(request.header("X-Flames-Control", CONTROL).json(&message))
    };
    let (status, done) = init(json!({"closeConnections": true})).await;
    let closed = done["connectionsClosed"].as_u64().unwrap();
    // The pool of the test's own client has idle connections, too: how many depends on its timing.
    assert!(status.is_success() && (4..=6).contains(&closed), "{done}");
    for mut connection in idle {
        assert_eq!(
            connection.read(&mut [0; 1]).await.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset
        );
    }
    assert!(stream.is_cut().await, "a stream that is reset has no end frame");
    assert_eq!(init(json!({"closeConnections": true})).await.1["connectionsClosed"], 0, "its own is kept");
    let listed = guest.ok("process.Process/List", json!({})).await;
    assert_eq!(listed["processes"][0]["pid"], pid);
}

#[tokio::test]
async fn in_plain_mode_the_hosts_clock_is_left_alone() {
    let guest = Guest::start_raw(&[]);
    let entropy = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    let message = json!({"accessToken": TOKEN, "timeUnixNanos": "1000000000", "entropy": entropy});
    let (status, done) = guest.init(message).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&done["clockStepped"], &done["entropyCredited"]), (&json!(false), &json!(false)));
}

fn signed(path: &str, operation: Operation, expires: Option<i64>) -> String {
    let value = signature(Signed { path, operation, username: "", expires }, TOKEN);
    let value = value.replace('+', "%2B").replace('/', "%2F");
    let expires = expires.map(|expires| format!("&signature_expiration={expires}")).unwrap_or_default();
    format!("/files?path={path}&signature={value}{expires}")
}

#[tokio::test]
async fn a_signed_url_allows_its_one_call_without_a_token() {
    let guest = Guest::start().await;
    let path = guest.path("signed");
    fs::write(&path, "content").unwrap();
    let get = |url: String| answer(guest.http.get(format!("{}{url}", guest.url)));
    assert_eq!(get(signed(&path, Operation::Read, None)).await.1, json!("content"));
    assert_eq!(get(signed(&path, Operation::Read, Some(i64::MAX))).await.1, json!("content"));
    assert_eq!(get(signed(&path, Operation::Write, None)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(
        get(signed("/etc/passwd", Operation::Read, None).replace("/etc/passwd", &path)).await.0,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(get(format!("/files?path={path}")).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_signature_that_was_right_and_is_expired_is_told_apart() {
    let guest = Guest::start().await;
    let get = |url: String| guest.http.get(format!("{}{url}", guest.url));
    let expired = get(signed("/x", Operation::Read, Some(1_000_000_000))).send().await.unwrap();
    assert_eq!(expired.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(expired.text().await.unwrap(), r#"{"code":401,"message":"signature is already expired"}"#);
    let forged = signed("/x", Operation::Read, Some(1_000_000_000)).replace("1000000000", "1000000001");
    assert_eq!(answer(get(forged)).await.1["message"], "invalid signature");
}

#[tokio::test]
async fn what_does_not_exist_yet_says_so() {
    let guest = Guest::start().await;
    assert_eq!(guest.error("filesystem.Filesystem/Levitate", json!({})).await, "unimplemented");
    assert_eq!(guest.error("process.Process/Teleport", json!({})).await, "unimplemented");
    assert_eq!(guest.call("no.Service/Call", json!({})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn metrics_are_about_this_machine() {
    let guest = Guest::start().await;
    let (status, metrics) = answer(guest.get("/metrics")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(metrics["cpu_count"].as_u64().unwrap() >= 1);
    assert!(metrics["mem_used"].as_u64().unwrap() < metrics["mem_total"].as_u64().unwrap());
    assert!(metrics["disk_used"].as_u64().unwrap() <= metrics["disk_total"].as_u64().unwrap());
}

#[tokio::test]
async fn shutdown_ends_the_agent_and_its_processes() {
    let mut guest = Guest::start().await;
    let pid = guest.sh("exec sleep 1000").await.pid().await;
    let request =
        guest.http.post(format!("{}/flames/v1/shutdown", guest.url)).header("X-Flames-Control", CONTROL);
    assert_eq!(answer(request).await.0, StatusCode::ACCEPTED);
    let ended = tokio::task::spawn_blocking(move || {
        let status = guest.child.wait().unwrap();
        (guest, status)
    });
    let (_guest, status) = ended.await.unwrap();
    assert!(status.success());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
