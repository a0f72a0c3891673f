//! Metrics, alerts and `top` of the real daemon.

use crate::home::{Home, WITHOUT_INGRESS};
use crate::host;
use flames_testkit::Exposition;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

/// A look at `/metrics` over TCP, with the key, as Prometheus makes it.
fn scrape(url: &str, key: &str) -> Exposition {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "GET /metrics HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    Exposition::parse(body).unwrap_or_else(|problem| panic!("{problem}\n{body}"))
}

/// A webhook: the bodies that were posted to it, as they come.
fn webhook() -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/secret", listener.local_addr().unwrap());
    let (posted, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if posted.send(take_post(&stream.unwrap())).is_err() {
                return;
            }
        }
    });
    (url, bodies)
}

fn take_post(mut stream: &TcpStream) -> Value {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn failing_creates_fire_an_alert_that_is_resolved_later_and_the_webhook_gets_both() {
    let mut home = Home::bare();
    // Everything but a kernel: each create is refused by the host.
    let assets = home.file("assets");
    fs::create_dir_all(assets.join("images")).unwrap();
    for name in ["agent.erofs", "images/mini.erofs"] {
        fs::write(assets.join(name), "").unwrap();
    }
    let (url, posted) = webhook();
    let config = home.file("alerts.toml");
    let text = format!(
        "{WITHOUT_INGRESS}[alerts]\nevery_s = 1\nwebhook = \"{url}\"\n[alerts.rules.allocation-success]\n\
         window_s = 4\nfor_s = 0\nkeep_firing_for_s = 1\nmin_count = 1\n"
    );
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let daemon = home.up_with(&["--config", config, "--assets-dir", assets.to_str().unwrap()]);
    let (url, key) = (daemon.url.clone(), daemon.key.clone().unwrap());
    assert_eq!(home.ok(&["alerts"]).trim(), "no alerts");
    let rules = home.json(&["alerts", "--rules"]);
    let instant = rules.as_array().unwrap().iter().find(|rule| rule["name"] == "create-p99-instant").unwrap();
    let target = scrape(&url, &key).value("flames_create_target_seconds", &[("level", "instant")]);
    assert_eq!(
        (instant["above"].as_f64(), target.is_some()),
        (target, true),
        "the machine's target: {rules}"
    );
    home.refused(&["create"]);

    let fired = posted.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!((&fired["version"], &fired["state"]), (&1.into(), &"firing".into()));
    assert_eq!(fired["alert"]["rule"], "allocation-success");
    assert_eq!((&fired["alert"]["value"], &fired["alert"]["threshold"]), (&0.0.into(), &0.95.into()));
    let resolved = posted.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(
        (&resolved["state"], &resolved["alert"]["rule"]),
        (&"resolved".into(), &fired["alert"]["rule"])
    );
    assert_eq!(home.json(&["alerts"])[0]["state"], "resolved");

    let seen = scrape(&url, &key);
    for state in ["firing", "resolved"] {
        let turned = [("rule", "allocation-success"), ("state", state)];
        assert_eq!(seen.value("flames_alerts_total", &turned), Some(1.0), "{state}");
    }
    assert_eq!(seen.sum("flames_creates_total", &[("outcome", "ok")]), 0.0);
    assert!(seen.sum("flames_creates_total", &[]) >= 1.0);
    assert!(seen.sum("flames_provider_calls_total", &[("interface", "state"), ("adapter", "sqlite")]) > 0.0);
    assert!(seen.sum("process_resident_memory_bytes", &[]) > 1e6);
}

#[test]
fn the_rules_in_force_are_printed_for_prometheus() {
    let home = Home::bare();
    let file = home.file("rules.toml");
    fs::write(&file, "[alerts]\nevery_s = 30\n[alerts.rules.leaks]\nenabled = false\n").unwrap();
    let rules = home.ok(&["--config", file.to_str().unwrap(), "config", "alert-rules"]);
    assert!(rules.contains("interval: 30s") && rules.contains("FlamesAllocationSuccess"), "{rules}");
    assert!(!rules.contains("FlamesLeaks"), "{rules}");
}

#[test]
fn vm_create_is_seen_in_a_scrape_and_in_top() {
    let Some(mut home) = Home::with_vms() else { return };
    let daemon = home.up();
    let (url, key) = (daemon.url.clone(), daemon.key.clone().unwrap());
    let id = home.create(&[]);
    home.ok(&["exec", "-n", &id, "--", "true"]);
    let seen = scrape(&url, &key);
    assert_eq!(seen.value("flames_creates_total", &[("outcome", "ok")]), Some(1.0));
    let boot = [("stage", "kernel_to_agent"), ("template", "mini"), ("path", "cold")];
    assert!(seen.value("flames_create_stage_seconds_sum", &boot).unwrap() > 0.0);
    // What merely is, is looked at for a bounded share of a processor: the next look may be a second away.
    let running = || scrape(&url, &key).value("flames_sandboxes", &[("state", "running")]);
    host::wait_for("the sandbox among the running", || running() == Some(1.0));
    let owned = || scrape(&url, &key).value("flames_resources_owned", &[("kind", "process")]);
    host::wait_for("the VM among the resources", || owned().is_some_and(|count| count >= 1.0));
    assert_eq!(scrape(&url, &key).sum("flames_resources_orphaned", &[]), 0.0);

    let top = home.json(&["top"]);
    let row = &top["sandboxes"][0];
    assert_eq!((&row["id"], &row["state"]), (&id.as_str().into(), &"running".into()));
    assert!(row["resident_bytes"].as_u64().unwrap() > 1 << 20 && row["cpu_seconds"].as_f64().unwrap() > 0.0);
    let table = home.ok(&["top", "--once"]);
    assert!(table.contains(&id) && table.contains("1 running"), "{table}");
}
