//! The same rules in the language of Prometheus.

use super::rule::{Bound, Rule, Signal};
use std::fmt::Write;
use std::time::Duration;

/// A rule file for Prometheus 2.42 or newer (`keep_firing_for`), with the rules evaluated as often as the daemon does.
pub fn rule_file(rules: &[Rule], every: Duration) -> String {
    let mut text = format!(
        "# Made by `flames config alert-rules` from the rules that the daemon itself evaluates. Do not edit.\n\
         groups:\n  - name: flames\n    interval: {}\n    rules:\n",
        span(every)
    );
    rules.iter().for_each(|rule| write_rule(&mut text, rule));
    text
}

fn write_rule(text: &mut String, rule: &Rule) {
    let (name, rule_name) = (camel_case(&rule.name), quoted(&rule.name));
    let (expression, summary) = (quoted(&expression(rule)), quoted(&rule.summary));
    // Writing into a string cannot fail.
    let _ = write!(
        text,
        "      - alert: {name}\n        expr: {expression}\n        for: {}\n        keep_firing_for: {}\n        \
         labels:\n          severity: {}\n          rule: {rule_name}\n        annotations:\n          \
         summary: {summary}\n          description: {}\n",
        span(rule.hold),
        span(rule.keep_firing),
        rule.severity.name(),
        quoted("The value is {{ $value }} on {{ $labels.instance }}."),
    );
}

fn expression(rule: &Rule) -> String {
    let (value, count) = value_and_count(rule.signal, &span(rule.window));
    let broken = match (rule.bound, rule.signal) {
        (Bound::Below(bound), _) => format!("({value}) < {bound}"),
        // Each daemon shows the targets of its machine.
        (Bound::AboveTarget(_), Signal::CreateP99(level)) => {
            format!("({value}) > on (instance) flames_create_target_seconds{{level=\"{level}\"}}")
        }
        (Bound::Above(bound) | Bound::AboveTarget(bound), _) => format!("({value}) > {bound}"),
    };
    match count.filter(|_| rule.min_count > 0) {
        Some(count) => format!("{broken} and ({count}) >= {}", rule.min_count),
        None => broken,
    }
}

/// What is watched, and how many events it was made from. Per instance: each daemon speaks for itself.
fn value_and_count(signal: Signal, window: &str) -> (String, Option<String>) {
    match signal {
        Signal::AllocationSuccess => {
            let increase = |outcomes: &str| {
                format!(
                    "sum by (instance) (increase(flames_creates_total{{outcome=~\"{outcomes}\"}}[{window}]))"
                )
            };
            let all = increase("ok|refused|failed");
            (format!("{} / {all}", increase("ok")), Some(all))
        }
        Signal::CreateP99(level) => {
            let of =
                |part: &str| format!("increase(flames_create_seconds_{part}{{level=\"{level}\"}}[{window}])");
            let value = format!("histogram_quantile(0.99, sum by (instance, le) ({}))", of("bucket"));
            (value, Some(format!("sum by (instance) ({})", of("count"))))
        }
        Signal::PoolHitRate => {
            let increase = |name: &str| {
                format!("sum by (instance, template) (increase(flames_pool_{name}_total[{window}]))")
            };
            let all = format!("{} + {}", increase("hits"), increase("misses"));
            (format!("{} / ({all})", increase("hits")), Some(all))
        }
        Signal::HandshakeFailures => {
            (format!("sum by (instance) (increase(flames_handshake_failures_total[{window}]))"), None)
        }
        Signal::Leaks => ("sum by (instance, kind) (flames_resources_orphaned)".to_owned(), None),
    }
}

/// `create-p99-instant` becomes `FlamesCreateP99Instant`.
fn camel_case(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
            .unwrap_or_default()
    };
    words.fold("Flames".to_owned(), |name, word| name + &capital(word))
}

fn span(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

/// A string of YAML, in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''").replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::defaults;
    use flames_pool::Execution;

    #[test]
    fn a_name_of_words_is_told_in_camel_case() {
        assert_eq!(camel_case("create-p99-ultra-fast"), "FlamesCreateP99UltraFast");
    }

    #[test]
    fn a_level_s_target_is_that_of_each_daemon_s_machine_and_a_bound_of_ones_own_is_everybody_s() {
        let [hardware, emulated] = [Execution::Hardware, Execution::Emulated].map(defaults);
        assert_eq!(
            rule_file(&hardware, Duration::from_secs(15)),
            rule_file(&emulated, Duration::from_secs(15))
        );
        let mut own = emulated.into_iter().find(|rule| rule.name == "create-p99-instant").unwrap();
        assert!(
            expression(&own).contains("> on (instance) flames_create_target_seconds{level=\"instant\"} and")
        );
        assert_eq!(own.bound, Bound::AboveTarget(0.3));
        own.bound = Bound::Above(0.7);
        assert!(expression(&own).contains("> 0.7 and"));
    }

    #[test]
    fn a_summary_with_quotes_stays_one_string() {
        assert_eq!(quoted("it's\nbad"), "'it''s bad'");
    }

    #[test]
    fn every_default_rule_is_in_the_file_with_its_bound_and_its_times() {
        let file = rule_file(&defaults(Execution::Hardware), Duration::from_secs(15));
        for rule in defaults(Execution::Hardware) {
            assert!(file.contains(&format!("rule: '{}'", rule.name)), "{}", rule.name);
        }
        assert!(file.contains("< 0.95 and (") && file.contains(">= 20"), "{file}");
        assert!(file.contains("interval: 15s") && file.contains("keep_firing_for: 120s"), "{file}");
    }
}
