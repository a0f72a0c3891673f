//! Warm pools, simulated: no VM and no daemon.

use crate::home::Home;
use serde_json::Value;
use std::collections::BTreeSet;

fn names(report: &Value, of: &str) -> BTreeSet<String> {
    report["lines"].as_array().unwrap().iter().map(|line| line[of].as_str().unwrap().to_owned()).collect()
}

#[test]
fn bench_pool_compares_every_strategy_under_every_load_the_same_each_time() {
    let home = Home::bare();
    let words = ["bench", "pool", "--length", "2m", "--seed", "7"];
    let report = home.json(&words);
    assert_eq!(report["kind"], "simulation of a warm pool");
    assert_eq!((names(&report, "strategy").len(), names(&report, "trace").len()), (5, 4));
    assert_eq!(report["lines"].as_array().unwrap().len(), 20);
    assert_eq!(home.json(&words), report);
}

#[test]
fn bench_pool_says_that_it_is_a_simulation_and_with_which_durations() {
    let home = Home::bare();
    let words = ["bench", "pool", "--length", "1m", "--strategy", "round-robin", "--load", "250ms"];
    let table = home.ok(&words);
    assert!(table.contains("no VM involved") && table.contains("restore 250.0 ms"), "{table}");
}

#[test]
fn bench_pool_refuses_an_unknown_strategy_with_the_names_of_all() {
    let ended = Home::bare().flames(&["bench", "pool", "--strategy", "best"]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.contains("best-performance") && ended.stderr.contains("weighted-random"),
        "{}",
        ended.stderr
    );
}
