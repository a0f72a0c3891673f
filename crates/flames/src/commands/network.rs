//! `flames network`.

use crate::cli::network::{Network, Set};
use crate::client::Client;
use crate::output;
use flames_api::model::NetworkView;
use flames_egress::{Effect, PolicySpec, Traffic};

pub(crate) async fn run(client: &Client, command: Network, json: bool) -> anyhow::Result<()> {
    let view = match &command {
        Network::Show { id } => client.network(id).await?,
        Network::Set(Set { id, policy }) => client.set_network(id, &PolicySpec::from(policy)).await?,
    };
    if json {
        return output::json(&view);
    }
    lines(&view).into_iter().try_for_each(output::line)
}

/// For people: the policy, then its figures.
fn lines(view: &NetworkView) -> Vec<String> {
    let mut lines = policy(&view.policy);
    match &view.traffic {
        Some(traffic) => lines.extend(figures(traffic)),
        None => lines.push("no traffic is counted now".to_owned()),
    }
    lines
}

fn policy(policy: &PolicySpec) -> Vec<String> {
    let mut lines = Vec::new();
    if policy.internet {
        lines.push("internet  the public internet is reached".to_owned());
    }
    lines.extend(policy.allow.iter().map(|rule| format!("allow     {rule}")));
    lines.extend(policy.deny.iter().map(|rule| format!("deny      {rule}")));
    if lines.is_empty() {
        lines.push("nothing is reached".to_owned());
    }
    lines.extend(policy.dns.iter().map(|server| format!("dns       {server}")));
    let limits = [
        ("sends at most", policy.out_bytes_per_second, " bytes/s"),
        ("receives at most", policy.in_bytes_per_second, " bytes/s"),
        ("sends and receives at most", policy.budget_bytes, " bytes in all"),
    ];
    let told =
        |(what, limit, unit): (&str, Option<u64>, &str)| Some(format!("limit     {what} {}{unit}", limit?));
    lines.extend(limits.into_iter().filter_map(told));
    lines
}

fn figures(traffic: &Traffic) -> Vec<String> {
    let count = |what: &str, count: flames_egress::Count| {
        format!("{what:<9} {} packets, {} bytes", count.packets, count.bytes)
    };
    let mut lines = vec![count("sent", traffic.sent), count("received", traffic.received)];
    for (cause, dropped) in &traffic.dropped {
        lines.push(count("dropped", *dropped) + &format!(" ({cause})"));
    }
    for rule in traffic.rules.iter().filter(|rule| rule.hits > 0) {
        let what = match rule.effect {
            Effect::Allow => "connections let through",
            Effect::Deny => "packets dropped",
        };
        lines.push(format!("hits      {} {what} by {}", rule.hits, rule.rule));
    }
    lines
}
