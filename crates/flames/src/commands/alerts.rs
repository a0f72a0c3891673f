//! `flames alerts`.

use super::sandboxes::span;
use crate::cli::Alerts;
use crate::client::Client;
use crate::output;
use flames_api::model::{AlertRuleView, AlertView};
use jiff::Timestamp;

pub(crate) async fn run(client: &Client, command: &Alerts, json: bool) -> anyhow::Result<()> {
    let list = client.alerts().await?;
    match (json, command.rules) {
        (true, true) => output::json(&list.rules),
        (true, false) => output::json(&list.alerts),
        (false, true) => rules(&list.rules),
        (false, false) if list.alerts.is_empty() => output::line("no alerts"),
        (false, false) => alerts(&list.alerts),
    }
}

fn alerts(alerts: &[AlertView]) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let row = |alert: &AlertView| {
        vec![
            alert.state.clone(),
            alert.severity.clone(),
            alert.rule.clone(),
            alert.subject.clone().unwrap_or_default(),
            number(alert.value),
            number(alert.threshold),
            span(now.duration_since(alert.resolved_at.unwrap_or(alert.since))),
            alert.summary.clone(),
        ]
    };
    let headings = ["STATE", "SEVERITY", "RULE", "OF", "VALUE", "BOUND", "SINCE", "MEANS"];
    output::table(&headings, alerts.iter().map(row).collect())
}

fn rules(rules: &[AlertRuleView]) -> anyhow::Result<()> {
    let row = |rule: &AlertRuleView| {
        let below = rule.below.map(|bound| format!("below {}", number(bound)));
        let above = rule.above.map(|bound| format!("above {}", number(bound)));
        vec![
            rule.name.clone(),
            rule.severity.clone(),
            below.or(above).unwrap_or_default(),
            format!("{} s", rule.window_s),
            format!("{} s", rule.for_s),
            format!("{} s", rule.keep_firing_for_s),
            rule.min_count.to_string(),
        ]
    };
    let headings = ["RULE", "SEVERITY", "BAD", "WINDOW", "FOR", "KEEP FIRING FOR", "EVENTS"];
    output::table(&headings, rules.iter().map(row).collect())
}

/// At most three digits behind the point.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_no_empty_digits() {
        assert_eq!([number(0.95), number(2.0), number(0.0), number(1.0 / 3.0)], ["0.95", "2", "0", "0.333"]);
    }
}
