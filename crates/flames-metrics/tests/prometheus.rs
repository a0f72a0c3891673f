//! The rule file for Prometheus that is committed: the same rules as the daemon's, and legal.
#![allow(clippy::unwrap_used, missing_docs)]

use flames_metrics::alert::{EVERY, defaults, rule_file};
use flames_metrics::{BootLevel, BootPath, Created, Execution, Metrics};
use flames_provider::conformance::skip;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ops/prometheus/flames-alerts.yml")
}

/// `UPDATE_ALERT_RULES=1` writes the file anew.
#[test]
fn the_committed_rule_file_is_made_of_the_daemon_s_own_rules() {
    let current = rule_file(&defaults(Execution::Hardware), EVERY);
    if std::env::var_os("UPDATE_ALERT_RULES").is_some() {
        std::fs::write(committed(), &current).unwrap();
    }
    let committed = std::fs::read_to_string(committed()).unwrap_or_default();
    assert!(
        committed == current,
        "ops/prometheus/flames-alerts.yml is behind the rules: run this test with UPDATE_ALERT_RULES=1"
    );
}

fn promtool(words: &[&str], input: &str) -> Option<std::process::Output> {
    let spawned = Command::new("promtool")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        skip("promtool", "install Debian's package `prometheus`");
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

#[test]
fn prometheus_accepts_the_rule_file() {
    let file = committed();
    let Some(checked) = promtool(&["check", "rules", file.to_str().unwrap()], "") else { return };
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}{}", String::from_utf8_lossy(&checked.stderr));
    assert!(said.contains(&format!("{} rules found", defaults(Execution::Hardware).len())), "{said}");
}

/// The names and labels that the rules ask for are those that the daemon shows.
#[test]
fn prometheus_fires_the_same_rules_on_the_same_numbers() {
    let metrics = Metrics::default();
    metrics.created(&Created {
        template: "mini",
        path: BootPath::Cold,
        level: BootLevel::Instant,
        seconds: 3.0,
        stages: &[],
    });
    metrics.show_resources("tap", 0, 1);
    metrics.show_targets(Execution::Emulated);
    let shown = metrics.encode();
    for series in [
        "flames_creates_total{outcome=\"ok\"",
        "flames_create_seconds_bucket{le=\"2.0\",path=\"cold\",level=\"instant\"}",
        "flames_create_seconds_count{path=\"cold\",level=\"instant\"}",
        "flames_resources_orphaned{kind=\"tap\"}",
        "flames_create_target_seconds{level=\"instant\"} 0.3",
        "flames_handshake_failures_total{",
    ] {
        assert!(shown.contains(series), "{series} in\n{shown}");
    }
    let folder = tempfile::tempdir().unwrap();
    let cases = folder.path().join("cases.yml");
    std::fs::write(&cases, CASES.replace("RULES", committed().canonicalize().unwrap().to_str().unwrap()))
        .unwrap();
    let Some(tested) = promtool(&["test", "rules", cases.to_str().unwrap()], "") else { return };
    let said = [tested.stdout, tested.stderr].concat();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// Ten minutes in which one in four creates fails, those of level `instant` take 3 s, and a TAP is left behind.
const CASES: &str = r#"
rule_files: [RULES]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {series: 'flames_creates_total{instance="a",outcome="ok",error="none"}', values: '0+30x40'}
      - {series: 'flames_creates_total{instance="a",outcome="failed",error="timed out"}', values: '0+10x40'}
      - {series: 'flames_creates_total{instance="b",outcome="ok",error="none"}', values: '0+30x40'}
      - {series: 'flames_create_seconds_bucket{instance="a",level="instant",path="cold",le="2.0"}', values: '0x40'}
      - {series: 'flames_create_seconds_bucket{instance="a",level="instant",path="cold",le="5.0"}', values: '0+30x40'}
      - {series: 'flames_create_seconds_bucket{instance="a",level="instant",path="cold",le="+Inf"}', values: '0+30x40'}
      - {series: 'flames_create_seconds_count{instance="a",level="instant",path="cold"}', values: '0+30x40'}
      - {series: 'flames_create_target_seconds{instance="a",level="instant"}', values: '0.3x40'}
      - {series: 'flames_resources_orphaned{instance="a",kind="tap"}', values: '1x40'}
      - {series: 'flames_resources_orphaned{instance="a",kind="disk"}', values: '0x40'}
      - {series: 'flames_pool_hits_total{instance="a",template="mini"}', values: '0+1x40'}
      - {series: 'flames_pool_misses_total{instance="a",template="mini"}', values: '0+9x40'}
    promql_expr_test:
      - expr: count by (alertname) (ALERTS{alertstate="firing"})
        eval_time: 10m
        exp_samples:
          - {labels: '{alertname="FlamesAllocationSuccess"}', value: 1}
          - {labels: '{alertname="FlamesCreateP99Instant"}', value: 1}
          - {labels: '{alertname="FlamesLeaks"}', value: 1}
          - {labels: '{alertname="FlamesPoolHitRate"}', value: 1}
"#;
