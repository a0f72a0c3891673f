//! What slots and rules cost. Not a test of a promise, so nobody runs it by accident:
//!
//! ```text
//! cargo nextest run --release -p flames-node --run-ignored only -E 'test(figures)' --no-capture
//! ```

use super::testbed::Testbed;
use crate::net::pool::SlotPool;
use crate::net::{Dialer, Egress, Slot};
use flames_egress::{EgressPolicy, PolicySpec};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Times of one thing, in milliseconds.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, start: Instant) {
        self.0.push(start.elapsed().as_secs_f64() * 1000.0);
    }

    fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * share) as usize]
    }

    fn tell(&self, what: &str) {
        let (median, p99, worst) = (self.at(0.5), self.at(0.99), self.at(1.0));
        println!(
            "{what:<58} n {:>4}  median {median:>8.3}  p99 {p99:>8.3}  max {worst:>8.3} ms",
            self.0.len()
        );
    }
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .unwrap_or_default()
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn rules(count: u8) -> EgressPolicy {
    let allow = (0..count).map(|number| format!("198.51.{number}.0/24:443/tcp")).collect();
    EgressPolicy::new(&PolicySpec { allow, ..PolicySpec::default() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; takes minutes"]
async fn figures_of_slots_from_a_pool() {
    let Some(bed) = Testbed::new() else { return };
    let pool = SlotPool::new(bed.names.clone(), 8);
    pool.fill();
    let (mut taken, mut takes) = (Vec::new(), Times::default());
    for _ in 0..200 {
        while !pool.has_ready() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let start = Instant::now();
        taken.push(pool.take().await.unwrap());
        takes.add(start);
    }
    println!("load {}", load());
    takes.tell("a slot from the pool");
    pool.close().await.unwrap();
    taken.iter().try_for_each(Slot::remove).unwrap();
    bed.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; takes minutes"]
async fn figures_of_a_thousand_slots() {
    let Some(bed) = Testbed::new() else { return };
    println!("load {}", load());
    let (mut slots, mut makes) = (Vec::new(), Times::default());
    for _ in 0..1000 {
        let start = Instant::now();
        slots.push(bed.names.create().await.unwrap());
        makes.add(start);
    }
    makes.tell("a slot made, one after the other, all kept");
    Times(makes.0[..100].to_vec()).tell("  the first hundred");
    Times(makes.0[900..].to_vec()).tell("  the last hundred");
    let mut removals = Times::default();
    for slot in slots {
        let start = Instant::now();
        slot.remove().unwrap();
        removals.add(start);
    }
    removals.tell("a slot removed");
    Times(removals.0[900..].to_vec()).tell("  the last hundred");
    bed.assert_nothing_left().await;
    println!("load {}", load());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; takes minutes"]
async fn figures_of_a_change_beside_five_hundred_others() {
    let Some(bed) = Testbed::wide() else { return };
    let (dialer, cut) = (Dialer::start().unwrap(), CancellationToken::new());
    println!("load {}", load());
    let slot = bed.names.create().await.unwrap();
    let egress = Egress::new(slot.clone(), dialer.clone(), cut.clone());
    let start = Instant::now();
    egress.change(rules(1)).await.unwrap();
    println!("the first policy, with its pair of links: {:?}", start.elapsed());
    changes(&egress).await.tell("a change of 8 rules, alone");
    let (mut others, mut firsts) = (Vec::new(), Times::default());
    for _ in 0..500 {
        let other = bed.names.create().await.unwrap();
        let egress = Egress::new(other.clone(), dialer.clone(), cut.clone());
        let start = Instant::now();
        egress.change(rules(8)).await.unwrap();
        firsts.add(start);
        others.push((other, egress));
    }
    firsts.tell("a first policy of 8 rules, with the pair of links");
    Times(firsts.0[400..].to_vec()).tell("  the last hundred");
    changes(&egress).await.tell("a change of 8 rules, 500 others present");
    let mut large = Times::default();
    for number in 0..50 {
        let start = Instant::now();
        egress.change(rules(200 + number % 2)).await.unwrap();
        large.add(start);
    }
    large.tell("a change of 200 rules, 500 others present");
    let mut removals = Times::default();
    for (other, _) in others {
        let start = Instant::now();
        other.remove().unwrap();
        removals.add(start);
    }
    removals.tell("a slot with a pair removed");
    cut.cancel();
    slot.remove().unwrap();
    bed.assert_nothing_left().await;
    println!("load {}", load());
}

async fn changes(egress: &Egress) -> Times {
    let mut times = Times::default();
    for number in 0..100 {
        let start = Instant::now();
        egress.change(rules(8 + number % 2)).await.unwrap();
        times.add(start);
    }
    times
}
