//! `flames pool`.

use crate::cli::snapshots::{Pool as Command, PoolSet};
use crate::client::Client;
use crate::output;
use anyhow::Context;
use flames_node::PoolStatus;
use serde_json::{Map, Value, json};

pub(crate) async fn run(client: &Client, command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::Ls => ls(client, json).await,
        Command::Show { template } => output::json(&client.pool(&template).await?),
        Command::Set(set) => {
            let kept = client.set_pool(&set.template, &written(&set)?).await?;
            if json { output::json(&kept) } else { output::line(format!("{} is kept warm", set.template)) }
        }
        Command::Rm { template } => client.remove_pool(&template).await,
    }
}

async fn ls(client: &Client, json: bool) -> anyhow::Result<()> {
    let list = client.pools().await?;
    if json {
        return output::json(&list.pools);
    }
    let headings = ["TEMPLATE", "READY", "TARGET", "MIN", "MAX", "LIVE", "HITS", "MISSES", "STRATEGY"];
    output::table(&headings, list.pools.iter().map(row).collect())
}

fn row(pool: &PoolStatus) -> Vec<String> {
    vec![
        pool.config.template.clone(),
        pool.ready.to_string(),
        pool.target.total().to_string(),
        pool.config.minimum.to_string(),
        pool.config.maximum.to_string(),
        pool.live.to_string(),
        pool.hits.to_string(),
        pool.misses.to_string(),
        pool.config.strategy.name().to_owned(),
    ]
}

/// The fields that were typed. What the flags do not know goes through `--field`; the daemon checks all of it.
fn written(set: &PoolSet) -> anyhow::Result<Map<String, Value>> {
    let mut fields = Map::new();
    let mut tiers = Map::new();
    for (name, value) in [("running", set.running), ("paused", set.paused), ("prepared", set.prepared)] {
        tiers.extend(value.map(|value| (name.to_owned(), json!(value))));
    }
    if !tiers.is_empty() {
        fields.insert("tiers".to_owned(), Value::Object(tiers));
    }
    let numbers = [("minimum", set.min), ("maximum", set.max), ("refill_concurrency", set.refill)];
    fields.extend(numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))));
    let words = [("preset", &set.preset), ("strategy", &set.strategy)];
    fields.extend(
        words.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?)))),
    );
    for (name, value) in &set.field {
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        put(&mut fields, name, value).with_context(|| format!("--field {name}"))?;
    }
    Ok(fields)
}

/// Sets a field; dots lead into tables.
fn put(fields: &mut Map<String, Value>, name: &str, value: Value) -> anyhow::Result<()> {
    let Some((table, rest)) = name.split_once('.') else {
        fields.insert(name.to_owned(), value);
        return Ok(());
    };
    let table = fields.entry(table).or_insert_with(|| json!({}));
    put(table.as_object_mut().context("is a table and a value at once")?, rest, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_lead_into_tables() {
        let mut fields = Map::new();
        put(&mut fields, "autoscale.by_use.grow_above", json!(0.9)).unwrap();
        put(&mut fields, "autoscale.cool_down_s", json!(5)).unwrap();
        let expected = json!({ "autoscale": { "by_use": { "grow_above": 0.9 }, "cool_down_s": 5 } });
        assert_eq!(Value::Object(fields.clone()), expected);
        assert!(put(&mut fields, "autoscale.cool_down_s.x", json!(1)).is_err());
    }
}
