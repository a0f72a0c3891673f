//! The text that a scrape gets.
#![allow(clippy::unwrap_used, missing_docs)]

use flames_metrics::{
    BootLevel, BootPath, Created, EgressFigures, Metrics, Moved, Operation, Outcome, PoolStatus,
    ProcessFigures,
};
use flames_pool::{PoolConfig, Quantiles, Reason, Tier, Tiers};
use flames_testkit::Exposition;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

fn create<'a>(template: &'a str, stages: &'a [(&'static str, f64)]) -> Created<'a> {
    Created { template, path: BootPath::Cold, level: BootLevel::Fast, seconds: 0.45, stages }
}

fn read(metrics: &Metrics) -> Exposition {
    let text = metrics.encode();
    Exposition::parse(&text).unwrap_or_else(|problem| panic!("{problem}\n{text}"))
}

/// Every family has at least one series.
fn busy() -> Metrics {
    let metrics = Metrics::new("1.2.3");
    metrics.created(&create("mini", &[("record", 0.0007), ("kernel_to_agent", 0.4)]));
    metrics.create_ended(Outcome::Failed, "timed out");
    metrics.create_ended(Outcome::Rejected, "invalid input");
    metrics.first_command(Duration::from_millis(3));
    metrics.operated(Operation::Pause, Duration::from_millis(30), Ok(()));
    metrics.operated(Operation::Fork, Duration::from_secs(1), Err("unavailable"));
    metrics.handshake_failed(Operation::Resume);
    metrics.request("GET", &Arc::from("/v1/sandboxes/{id}"), 404, Duration::from_micros(90));
    metrics.alert_turned("leaks", "firing", 1);
    metrics.told("delivered");
    metrics.show_sandboxes([("running", 3), ("failed", 0)]);
    metrics.show_resources("tap", 4, 1);
    metrics.show_process(ProcessFigures { resident_bytes: 1 << 20, cpu_seconds: 0.5, ..Default::default() });
    metrics.show_pools(vec![pool("mini")]);
    metrics.show_egress(vec![egress("sb1", 900)]);
    metrics
}

fn egress(sandbox: &str, out_bytes: u64) -> EgressFigures {
    let dropped = [("deny".to_owned(), 4), ("rate_out".to_owned(), 1)].into();
    let moved = Moved { out_packets: 9, out_bytes, in_packets: 2, in_bytes: 200, dropped };
    EgressFigures { run: format!("{sandbox}-0"), sandbox: sandbox.into(), moved: Some(moved) }
}

fn pool(template: &str) -> PoolStatus {
    PoolStatus {
        config: PoolConfig { template: template.into(), ..PoolConfig::default() },
        target: Tiers { running: 2, paused: 0, prepared: 1 },
        by_tier: BTreeMap::from([(Tier::Running, 2)]),
        by_state: BTreeMap::new(),
        ready: 2,
        live: 1,
        hits: 7,
        misses: 3,
        hit_rate: Some(0.7),
        wait_ms: Quantiles { count: 10, p50: 1.0, p90: 2.0, p99: 3.0, max: 4.0 },
        age_at_handout_ms: Quantiles::default(),
        ages_ms: Quantiles::default(),
        refills: 9,
        retired: BTreeMap::from([(Reason::TooOld, 2)]),
        failures: 1,
        last_failure: None,
        arrivals_per_second: 0.5,
    }
}

#[test]
fn the_text_of_a_fresh_and_of_a_busy_daemon_is_strict_openmetrics() {
    read(&Metrics::default());
    let read = read(&busy());
    let value = |name: &str, labels: &[(&str, &str)]| read.value(name, labels);
    assert_eq!(value("flames_creates_total", &[("outcome", "ok")]), Some(1.0));
    assert_eq!(value("flames_creates_total", &[("outcome", "failed"), ("error", "timed out")]), Some(1.0));
    assert_eq!(value("flames_create_seconds_count", &[("path", "cold"), ("level", "fast")]), Some(1.0));
    assert_eq!(value("flames_create_stage_seconds_sum", &[("stage", "kernel_to_agent")]), Some(0.4));
    assert_eq!(value("flames_create_seconds_bucket", &[("le", "0.5")]), Some(1.0));
    assert_eq!(value("flames_create_seconds_bucket", &[("le", "0.3")]), Some(0.0));
    assert_eq!(value("flames_resources_orphaned", &[("kind", "tap")]), Some(1.0));
    assert_eq!(value("flames_build_info", &[("version", "1.2.3")]), Some(1.0));
    assert_eq!(value("process_resident_memory_bytes", &[]), Some(1_048_576.0));
}

#[test]
fn a_pool_is_shown_as_its_status_says() {
    let read = read(&busy());
    let value = |name: &str, labels: &[(&str, &str)]| read.value(name, labels).unwrap();
    assert_eq!(value("flames_pool_members", &[("template", "mini"), ("tier", "running")]), 2.0);
    assert_eq!(value("flames_pool_target_members", &[("tier", "prepared")]), 1.0);
    assert_eq!(value("flames_pool_hits_total", &[("strategy", PoolConfig::default().strategy.name())]), 7.0);
    assert_eq!(value("flames_pool_retired_members_total", &[("reason", "too-old")]), 2.0);
    assert_eq!(value("flames_pool_wait_seconds", &[("at", "p99")]), 0.003);
}

#[test]
fn creates_that_may_take_from_a_pool_are_timed_by_its_strategy_and_their_path() {
    let metrics = busy();
    let create = |template, path, level| {
        metrics.created(&Created { template, path, level, seconds: 0.004, stages: &[] });
    };
    create("mini", BootPath::Warm, BootLevel::Instant);
    create("mini", BootPath::Warm, BootLevel::Sub2Second);
    create("mini", BootPath::Restored, BootLevel::Instant);
    create("mini", BootPath::Cold, BootLevel::Standard);
    create("without-a-pool", BootPath::Cold, BootLevel::Instant);
    let read = read(&metrics);
    let count = |labels: &[(&str, &str)]| read.sum("flames_pool_create_seconds_count", labels);
    let strategy = ("strategy", PoolConfig::default().strategy.name());
    assert_eq!(count(&[("template", "mini"), strategy, ("path", "warm")]), 2.0);
    assert_eq!(count(&[("path", "restored")]), 1.0);
    assert_eq!(count(&[]), 3.0, "a full boot asks no pool, and a template without one has none");
}

#[test]
fn what_sandboxes_moved_is_shown_in_sum_and_for_each() {
    let read = read(&busy());
    let value = |name: &str, labels: &[(&str, &str)]| read.value(name, labels).unwrap();
    let own = ("sandbox", "sb1");
    assert_eq!(value("flames_egress_bytes_total", &[("direction", "out")]), 900.0);
    assert_eq!(value("flames_egress_packets_total", &[("direction", "in")]), 2.0);
    assert_eq!(value("flames_egress_dropped_packets_total", &[("cause", "deny")]), 4.0);
    assert_eq!(value("flames_sandbox_egress_bytes_total", &[own, ("direction", "in")]), 200.0);
    assert_eq!(value("flames_sandbox_egress_packets_total", &[own, ("direction", "out")]), 9.0);
    assert_eq!(value("flames_sandbox_egress_dropped_packets_total", &[own, ("cause", "rate_out")]), 1.0);
}

#[test]
fn any_number_of_sandboxes_makes_a_bounded_number_of_series() {
    let metrics = busy();
    let once = read(&metrics).series.len();
    metrics.show_egress((0..1000).map(|n| egress(&format!("sb{n}"), n)).collect());
    // Two directions of bytes and of packets, and two causes.
    assert_eq!(read(&metrics).series.len(), once + 63 * 6);
    metrics.show_egress(Vec::new());
    assert_eq!(read(&metrics).series.len(), once - 6);
}

#[test]
fn what_alerts_look_at_is_what_the_text_says() {
    let (metrics, at) = (busy(), Duration::from_secs(7));
    let sample = metrics.sample(at);
    assert_eq!((sample.at, sample.creates.ok, sample.creates.failed), (at, 1, 1));
    assert_eq!((sample.handshake_failures, sample.orphans["tap"], sample.pools["mini"].misses), (1, 1, 3));
    assert_eq!(sample.durations[&BootLevel::Fast].count(), 1);
    assert!((0.3..=0.5).contains(&sample.durations[&BootLevel::Fast].quantile(0.99).unwrap()));
}

#[test]
fn any_number_of_templates_and_creates_makes_a_bounded_number_of_series() {
    let metrics = busy();
    let once = read(&metrics).series.len();
    for _ in 0..1000 {
        metrics.created(&create("mini", &[("record", 0.0007), ("kernel_to_agent", 0.4)]));
    }
    assert_eq!(read(&metrics).series.len(), once);
    for n in 0..1000 {
        metrics.created(&create(&format!("template-{n}"), &[("record", 0.001)]));
    }
    // One stage of 64 templates and of all others, a histogram of 21 series each.
    assert!(read(&metrics).series.len() <= once + 64 * 21);
}

#[test]
fn a_template_s_name_cannot_break_the_text() {
    let metrics = Metrics::default();
    metrics.created(&create("a\"} 1\nb\\", &[("record", 0.001)]));
    let name = ("template", "a\"} 1\nb\\");
    assert_eq!(read(&metrics).value("flames_create_stage_seconds_count", &[name]), Some(1.0));
}
