//! The checks that find every mistake instead of the first.

use super::locate::{line_of, line_of_key};
use super::{Alerts, BadConfig, Config, Mistake};
use flames_metrics::Execution;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, validator_for};
use serde_json::Value;
use toml_edit::Document;

/// Holds the text against the schema.
pub(super) fn against_schema(file: &str, text: &str) -> Result<(), BadConfig> {
    let document = Document::parse(text).map_err(|error| {
        let line = error.span().map_or(0, |span| line_of(text, span.start));
        BadConfig::one(file, line, "", format!("not TOML: {}", error.message()))
    })?;
    let value: Value =
        toml::from_str(text).map_err(|error| BadConfig::one(file, 0, "", error.message().to_owned()))?;
    let validator = validator_for(&Config::schema())
        .map_err(|error| BadConfig::one(file, 0, "", format!("a bug in the schema: {error}")))?;
    let mut mistakes: Vec<_> = validator
        .iter_errors(&value)
        .flat_map(|error| places(&error))
        .map(|(path, problem)| {
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            let line = line_of_key(text, &document, &names);
            Mistake { file: file.to_owned(), line, key: path.join("."), problem }
        })
        .collect();
    mistakes.sort_by_key(|mistake| mistake.line);
    if mistakes.is_empty() { Ok(()) } else { Err(BadConfig { mistakes }) }
}

/// A schema error as keys and words: one for each unknown key, else one.
fn places(error: &ValidationError<'_>) -> Vec<(Vec<String>, String)> {
    let pointer = error.instance_path().to_string();
    let path: Vec<String> = pointer.split('/').skip(1).map(str::to_owned).collect();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|name| {
                let path = path.iter().chain([name]).cloned().collect();
                (path, "is not a key that Flames knows; `flames config schema` lists them".to_owned())
            })
            .collect(),
        _ => vec![(path, error.to_string())],
    }
}

/// Checks what one key says about another.
pub(super) fn across_keys(file: &str, text: &str, config: &Config) -> Result<(), BadConfig> {
    let sandbox = &config.sandbox;
    let pairs = [
        ("default_vcpus", u64::from(sandbox.default_vcpus), "max_vcpus", u64::from(sandbox.max_vcpus)),
        (
            "default_memory_mib",
            sandbox.default_memory_mib.into(),
            "max_memory_mib",
            sandbox.max_memory_mib.into(),
        ),
        ("default_disk_mib", sandbox.default_disk_mib.into(), "max_disk_mib", sandbox.max_disk_mib.into()),
    ];
    let Ok(document) = Document::parse(text) else { return Ok(()) };
    let mut mistakes: Vec<_> = pairs
        .into_iter()
        .filter(|(_, default, _, max)| default > max)
        .map(|(key, default, max_key, max)| Mistake {
            file: file.to_owned(),
            line: line_of_key(text, &document, &["sandbox", key]),
            key: format!("sandbox.{key}"),
            problem: format!("{default} is above sandbox.{max_key}, which is {max}"),
        })
        .collect();
    mistakes.extend(half_of_tls(file, text, &document, config));
    mistakes.extend(config.e2b.acme_mistakes().into_iter().map(|(path, problem)| {
        let names = [&["e2b"][..], path].concat();
        let line = line_of_key(text, &document, &names);
        Mistake { file: file.to_owned(), line, key: names.join("."), problem }
    }));
    mistakes.extend(config.vmm.mistakes().into_iter().map(|(path, problem)| {
        let names = [&["vmm"][..], path].concat();
        let line = line_of_key(text, &document, &names);
        Mistake { file: file.to_owned(), line, key: names.join("."), problem }
    }));
    mistakes.extend(alerts(&config.alerts).into_iter().map(|(path, problem)| {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        let line = line_of_key(text, &document, &names);
        Mistake { file: file.to_owned(), line, key: path.join("."), problem }
    }));
    mistakes.extend(pools_and_level(config).into_iter().map(|(path, problem)| {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        let line = line_of_key(text, &document, &names);
        Mistake { file: file.to_owned(), line, key: path.join("."), problem }
    }));
    if mistakes.is_empty() { Ok(()) } else { Err(BadConfig { mistakes }) }
}

/// Pools that cannot be meant, and a level that is none.
fn pools_and_level(config: &Config) -> Vec<(Vec<String>, String)> {
    let level = config.sandbox.default_level.parse::<flames_pool::BootLevel>().err();
    let level =
        level.map(|error| (vec!["sandbox".to_owned(), "default_level".to_owned()], error.to_string()));
    let pools = config.pools.iter().flat_map(|(template, written)| {
        let mistakes = flames_core::pools::pool_config(template, written).err().unwrap_or_default();
        mistakes.into_iter().map(move |mistake| {
            let mut place = vec!["pools".to_owned(), template.clone()];
            place.extend(mistake.field.split('.').filter(|name| !name.is_empty()).map(str::to_owned));
            (place, format!("{}: {}", mistake.what, mistake.mend))
        })
    });
    level.into_iter().chain(pools).collect()
}

/// Rules of alerts that make no sense, and a webhook that is none.
fn alerts(config: &Alerts) -> Vec<(Vec<String>, String)> {
    let at = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let rules = config.rules(Execution::default()).err().unwrap_or_default().into_iter();
    let mut mistakes: Vec<_> =
        rules.map(|(name, problem)| (at(&["alerts", "rules", &name]), problem)).collect();
    let webhook = config.webhook.as_ref().and_then(|url| url.expose().err());
    mistakes.extend(webhook.map(|problem| (at(&["alerts", "webhook"]), problem)));
    mistakes
}

/// A certificate without its key, or the other way round.
fn half_of_tls(file: &str, text: &str, document: &Document<&str>, config: &Config) -> Option<Mistake> {
    let (key, other) = match (&config.e2b.tls_certificate, &config.e2b.tls_key) {
        (Some(_), None) => ("tls_certificate", "tls_key"),
        (None, Some(_)) => ("tls_key", "tls_certificate"),
        _ => return None,
    };
    Some(Mistake {
        file: file.to_owned(),
        line: line_of_key(text, document, &["e2b", key]),
        key: format!("e2b.{key}"),
        problem: format!("needs e2b.{other} beside it"),
    })
}
