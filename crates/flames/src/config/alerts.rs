//! The section `[alerts]`: rules as written over the rules as they come.

use flames_metrics::alert::{self, Bound, EVERY, Rule, Severity, Signal};
use flames_metrics::{BootLevel, Execution};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What is watched, and who is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Alerts {
    /// Whether the rules are evaluated.
    pub(crate) enabled: bool,
    /// How often, in seconds.
    #[schemars(range(min = 1, max = 3600))]
    pub(crate) every_s: u64,
    /// Where alerts that begin to fire or are resolved are posted to as JSON: `http://…` or `https://…`.
    pub(crate) webhook: Option<WebhookUrl>,
    /// Seconds that one post may take.
    #[schemars(range(min = 1, max = 60))]
    pub(crate) webhook_timeout_s: u64,
    /// Changes to the rules that come with Flames, and rules of your own, by name.
    pub(crate) rules: BTreeMap<String, AlertRule>,
}

/// A rule, or what is different of one that comes with Flames.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AlertRule {
    /// Whether it is evaluated. Default: yes.
    pub(crate) enabled: Option<bool>,
    /// What is watched.
    pub(crate) signal: Option<SignalName>,
    /// For `create-p99`: of which boot level: `standard`, `fast`, `ultra-fast`, `sub2-second` or `instant`.
    pub(crate) level: Option<String>,
    /// It is bad below this: a share from 0 to 1, seconds, or a count.
    pub(crate) below: Option<f64>,
    /// It is bad above this.
    pub(crate) above: Option<f64>,
    /// How far back is looked, in seconds. Default: 300.
    #[schemars(range(min = 1, max = 86_400))]
    pub(crate) window_s: Option<u64>,
    /// How long it must be bad before the alert fires, in seconds. Default: 60.
    #[schemars(range(max = 86_400))]
    pub(crate) for_s: Option<u64>,
    /// How long it must be good again before the alert is resolved, in seconds. Default: 120.
    #[schemars(range(max = 86_400))]
    pub(crate) keep_firing_for_s: Option<u64>,
    /// With fewer events in the window nothing is concluded. Default: 20.
    pub(crate) min_count: Option<u64>,
    /// How bad it is. Default: `warning`.
    pub(crate) severity: Option<SeverityName>,
    /// What it means, in a sentence.
    pub(crate) summary: Option<String>,
}

/// What can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SignalName {
    /// Share of creates that get a sandbox.
    AllocationSuccess,
    /// 99th percentile of creates of a level, in seconds.
    #[serde(rename = "create-p99")]
    CreateP99,
    /// Share of creates that find a warm VM, per pool.
    PoolHitRate,
    /// Guests that did not acknowledge the handshake.
    HandshakeFailures,
    /// Resources on the host that nobody owns, per kind.
    Leaks,
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SeverityName {
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

/// A URL whose path, user and query may be secrets: shown without them.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct WebhookUrl(String);

impl Alerts {
    /// The rules in force on a machine that runs guests so.
    ///
    /// # Errors
    /// Names of rules that make no sense, each with what is wrong.
    pub(crate) fn rules(&self, execution: Execution) -> Result<Vec<Rule>, Vec<(String, String)>> {
        let shipped = alert::defaults(execution);
        let own = self.rules.keys().filter(|name| !shipped.iter().any(|rule| rule.name == **name));
        let names: Vec<&String> = shipped.iter().map(|rule| &rule.name).chain(own).collect();
        let (mut rules, mut mistakes) = (Vec::new(), Vec::new());
        for name in names {
            let base = shipped.iter().find(|rule| rule.name == *name);
            let written = self.rules.get(name).cloned().unwrap_or_default();
            match written.over(name, base) {
                Ok(rule) => rules.extend(rule),
                Err(problem) => mistakes.push((name.clone(), problem)),
            }
        }
        if mistakes.is_empty() { Ok(rules) } else { Err(mistakes) }
    }
}

impl AlertRule {
    /// The rule as it is with what was written; `None` if it is switched off.
    fn over(&self, name: &str, base: Option<&Rule>) -> Result<Option<Rule>, String> {
        let seconds = |written: Option<u64>, base: Option<Duration>, default: u64| {
            written.map(Duration::from_secs).or(base).unwrap_or(Duration::from_secs(default))
        };
        let severity = self.severity.map(Severity::from).or(base.map(|base| base.severity));
        let (signal, bound) = (self.signal(base)?, self.bound(base)?);
        let said = base.map(|base| match (signal, bound) {
            (Signal::CreateP99(level), Bound::Above(bound)) => {
                format!("One in a hundred creates of level {level} takes longer than {bound} s.")
            }
            _ => base.summary.clone(),
        });
        let summary = self.summary.clone().or(said);
        let rule = Rule {
            name: name.to_owned(),
            signal,
            bound,
            window: seconds(self.window_s, base.map(|base| base.window), 300),
            hold: seconds(self.for_s, base.map(|base| base.hold), 60),
            keep_firing: seconds(self.keep_firing_for_s, base.map(|base| base.keep_firing), 120),
            min_count: self.min_count.or(base.map(|base| base.min_count)).unwrap_or(20),
            severity: severity.unwrap_or_default(),
            summary: summary.unwrap_or_else(|| format!("The rule {name} is broken.")),
        };
        Ok(Some(rule).filter(|_| self.enabled != Some(false)))
    }

    fn signal(&self, base: Option<&Rule>) -> Result<Signal, String> {
        let level = || match &self.level {
            Some(level) => level.parse::<BootLevel>().map_err(|error| error.to_string()),
            None => Err("`create-p99` needs a `level`".to_owned()),
        };
        match (self.signal, base) {
            (Some(SignalName::CreateP99), _) => Ok(Signal::CreateP99(level()?)),
            (_, _) if self.level.is_some() => {
                Err("`level` is for `signal = \"create-p99\"` alone".to_owned())
            }
            (Some(SignalName::AllocationSuccess), _) => Ok(Signal::AllocationSuccess),
            (Some(SignalName::PoolHitRate), _) => Ok(Signal::PoolHitRate),
            (Some(SignalName::HandshakeFailures), _) => Ok(Signal::HandshakeFailures),
            (Some(SignalName::Leaks), _) => Ok(Signal::Leaks),
            (None, Some(base)) => Ok(base.signal),
            (None, None) => Err(format!(
                "is none of the rules that come with Flames ({}): a rule of your own needs a `signal`",
                shipped_names()
            )),
        }
    }

    fn bound(&self, base: Option<&Rule>) -> Result<Bound, String> {
        match (self.below, self.above, base) {
            (Some(_), Some(_), _) => Err("has both `below` and `above`: two rules say that".to_owned()),
            (Some(bound), None, _) if bound.is_finite() => Ok(Bound::Below(bound)),
            (None, Some(bound), _) if bound.is_finite() => Ok(Bound::Above(bound)),
            (None, None, Some(base)) => Ok(base.bound),
            (None, None, None) => Err("needs `below` or `above`".to_owned()),
            _ => Err("`below` and `above` must be numbers".to_owned()),
        }
    }
}

fn shipped_names() -> String {
    alert::defaults(Execution::default()).into_iter().map(|rule| rule.name).collect::<Vec<_>>().join(", ")
}

impl From<SeverityName> for Severity {
    fn from(name: SeverityName) -> Self {
        match name {
            SeverityName::Warning => Self::Warning,
            SeverityName::Critical => Self::Critical,
        }
    }
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            enabled: true,
            every_s: EVERY.as_secs(),
            webhook: None,
            webhook_timeout_s: 5,
            rules: BTreeMap::new(),
        }
    }
}

impl WebhookUrl {
    /// The whole URL, for whoever posts to it.
    ///
    /// # Errors
    /// What is wrong with it, without the URL itself.
    pub(crate) fn expose(&self) -> Result<url::Url, String> {
        let url = url::Url::parse(&self.0).map_err(|error| format!("is not a URL: {error}"))?;
        match url.scheme() {
            "http" | "https" => Ok(url),
            other => Err(format!("must begin with http:// or https://, not {other}:")),
        }
    }

    fn shown(&self) -> String {
        let url = self.expose().ok();
        let host = url.as_ref().and_then(|url| Some((url.scheme(), url.host_str()?)));
        host.map_or("…".to_owned(), |(scheme, host)| format!("{scheme}://{host}/…"))
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Serialize for WebhookUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use flames_metrics::Execution;
    use flames_metrics::alert::{Bound, Rule, Severity, Signal, defaults};

    fn rules(text: &str) -> Vec<Rule> {
        Config::parse("f.toml", text).unwrap().alerts.rules(Execution::Emulated).unwrap()
    }

    fn mistakes(text: &str) -> Vec<String> {
        Config::parse("f.toml", text).unwrap_err().mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_a_word_the_rules_are_those_that_come_with_flames() {
        assert_eq!(rules(""), defaults(Execution::Emulated));
    }

    #[test]
    fn what_is_written_changes_that_and_nothing_else() {
        let text = "[alerts.rules.leaks]\nabove = 3\nseverity = \"critical\"\n[alerts.rules.pool-hit-rate]\nenabled = false\n";
        let rules = rules(text);
        let mut expected = defaults(Execution::Emulated);
        expected.retain(|rule| rule.signal != Signal::PoolHitRate);
        let leaks = expected.iter_mut().find(|rule| rule.signal == Signal::Leaks).unwrap();
        (leaks.bound, leaks.severity) = (Bound::Above(3.0), Severity::Critical);
        assert_eq!(rules, expected);
    }

    #[test]
    fn a_bound_of_ones_own_is_not_called_the_level_s_target() {
        let rules = rules("[alerts.rules.create-p99-instant]\nabove = 0.2\n");
        let said = |name: &str| rules.iter().find(|rule| rule.name == name).unwrap().summary.clone();
        assert!(said("create-p99-instant").ends_with("takes longer than 0.2 s."));
        assert!(said("create-p99-fast").contains("target on its machine"));
    }

    #[test]
    fn a_rule_of_ones_own_needs_a_signal_and_a_bound_and_each_mistake_has_its_line() {
        let own = "[alerts.rules.slow]\nsignal = \"create-p99\"\nlevel = \"instant\"\nabove = 0.3\n";
        assert_eq!(rules(own).last().unwrap().bound, Bound::Above(0.3));
        let told = mistakes(
            "[alerts.rules.a]\nabove = 1\n[alerts.rules.b]\nsignal = \"leaks\"\n[alerts.rules.leaks]\nabove = 1\nbelow = 0\n\
             [alerts.rules.c]\nsignal = \"create-p99\"\nabove = 1\nlevel = \"warp\"\n",
        );
        assert_eq!(told.len(), 4, "{told:#?}");
        for (place, word) in [
            ("f.toml:1: alerts.rules.a", "`signal`"),
            ("f.toml:3: alerts.rules.b", "`below` or `above`"),
            ("f.toml:5: alerts.rules.leaks", "both"),
            ("f.toml:8: alerts.rules.c", "warp"),
        ] {
            assert!(
                told.iter().any(|told| told.starts_with(place) && told.contains(word)),
                "{place}: {told:#?}"
            );
        }
    }

    #[test]
    fn a_webhook_s_secret_is_never_shown() {
        let text = "[alerts]\nwebhook = \"https://me:hunter2@hooks.example/services/hunter2?key=hunter2\"\n";
        let config = Config::parse("f.toml", text).unwrap();
        let shown = format!("{config:?}{}", toml::to_string(&config).unwrap());
        assert!(!shown.contains("hunter2") && shown.contains("https://hooks.example/…"), "{shown}");
        let told = mistakes("[alerts]\nwebhook = \"ftp://hunter2.example/hunter2\"\n");
        assert!(told[0].starts_with("f.toml:2: alerts.webhook: must begin with http://"), "{told:?}");
    }
}
