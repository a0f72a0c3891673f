//! What a create, a request and a scrape cost the daemon.

use criterion::{Criterion, criterion_group, criterion_main};
use flames_metrics::{BootLevel, BootPath, Created, Metrics};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

const STAGES: [(&str, f64); 8] = [
    ("admit", 0.000_01),
    ("record", 0.000_6),
    ("network", 0.000_02),
    ("disk", 0.000_3),
    ("vmm_spawn", 0.02),
    ("kernel_to_agent", 0.3),
    ("restore", 0.0),
    ("agent_init", 0.002),
];

fn record(criterion: &mut Criterion) {
    let metrics = Metrics::default();
    let create = Created {
        template: "mini",
        path: BootPath::Warm,
        level: BootLevel::Instant,
        seconds: 0.004,
        stages: &STAGES,
    };
    criterion
        .bench_function("created, 8 stages", |bencher| bencher.iter(|| metrics.created(black_box(&create))));
    let route: Arc<str> = "/v1/sandboxes/{id}".into();
    criterion.bench_function("http request", |bencher| {
        bencher.iter(|| metrics.request("GET", black_box(&route), 200, Duration::from_millis(3)));
    });
    criterion.bench_function("encode", |bencher| bencher.iter(|| metrics.encode()));
    criterion.bench_function("sample", |bencher| bencher.iter(|| metrics.sample(Duration::from_secs(1))));
}

criterion_group!(benches, record);
criterion_main!(benches);
