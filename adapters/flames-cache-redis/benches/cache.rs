//! One table for all caches. A Redis that is not installed is left out.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flames_cache::{CacheKey, CacheStore, CacheValue, MemoryCacheStore, Ttl};
use flames_cache_redis::{RedisCacheStore, RedisConfig};
use flames_testkit::Redis;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

fn caches(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Redis::start());
    let redis = server.as_ref().map(|server| {
        let config = RedisConfig::from_url(&server.url()).unwrap();
        Arc::new(runtime.block_on(RedisCacheStore::open(config)).unwrap()) as Arc<dyn CacheStore>
    });
    let memory: Arc<dyn CacheStore> = Arc::new(MemoryCacheStore::new());
    for cache in std::iter::once(memory).chain(redis) {
        one_call_at_a_time(criterion, &runtime, &cache);
    }
}

fn one_call_at_a_time(criterion: &mut Criterion, runtime: &Runtime, cache: &Arc<dyn CacheStore>) {
    let ttl = Ttl::new(Duration::from_secs(3600)).unwrap();
    let (key, counter) = (CacheKey::parse("bench/value").unwrap(), CacheKey::parse("bench/counter").unwrap());
    let value = CacheValue::new(vec![7; 100]).unwrap();
    runtime.block_on(cache.set(&key, value.clone(), ttl)).unwrap();
    let mut group = criterion.benchmark_group("cache");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.bench_function(BenchmarkId::new("get", cache.adapter()), |bencher| {
        bencher.to_async(runtime).iter(|| cache.get(&key));
    });
    group.bench_function(BenchmarkId::new("set", cache.adapter()), |bencher| {
        bencher.to_async(runtime).iter(|| cache.set(&key, value.clone(), ttl));
    });
    group.bench_function(BenchmarkId::new("increment", cache.adapter()), |bencher| {
        bencher.to_async(runtime).iter(|| cache.increment(&counter, 1, ttl));
    });
}

criterion_group!(benches, caches);
criterion_main!(benches);
