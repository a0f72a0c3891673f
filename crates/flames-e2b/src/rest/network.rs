//! What a sandbox may reach, from E2B's rules to ours and back.
//!
//! In E2B everything is reached that is not denied, and what is allowed wins over what is denied. To deny everything is
//! `0.0.0.0/0`, or `allow_internet_access: false`. So E2B's base is the internet unless everything is denied.

use super::extract::{Body, Id};
use super::model::Network;
use crate::error::{ApiError, ApiResult};
use crate::{E2b, Internet};
use axum::extract::State;
use axum::http::StatusCode;
use flames_core::sandbox::error::LifecycleError;
use flames_node::EgressPolicy;
use flames_node::egress::{Base, PolicySpec, Rule, Target};
use serde::Serialize;

/// Everything, as E2B writes it.
const ALL_TRAFFIC: &str = "0.0.0.0/0";

/// Replaces what a sandbox may reach; what is left out is cleared.
pub(super) async fn set_network(
    State(e2b): State<E2b>,
    Id(id): Id,
    Body(asked): Body<Network>,
) -> ApiResult<StatusCode> {
    refuse_what_is_missing(&asked)?;
    let policy = policy(&asked, asked.allow_internet_access, e2b.internet)?;
    match e2b.plane.set_network(&id, policy).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        // A sandbox that ends or has failed is, for E2B, none any more.
        Err(LifecycleError::NotRunning { .. }) => Err(ApiError::no_sandbox(id.as_str())),
        Err(error) => Err(error.into()),
    }
}

/// Says no to what would silently not be done.
pub(super) fn refuse_what_is_missing(asked: &Network) -> ApiResult<()> {
    if asked.egress_proxy.as_ref().is_some_and(|proxy| !proxy.is_null()) {
        return Err(ApiError::unsupported("network.egressProxy is"));
    }
    if asked.rules.as_ref().is_some_and(|rules| !rules.is_empty()) {
        return Err(ApiError::unsupported("network.rules are"));
    }
    Ok(())
}

/// Our rules for E2B's.
///
/// # Errors
/// 400 with each mistake; 501 for the internet where it is not given.
pub(super) fn policy(
    asked: &Network,
    allow_internet_access: Option<bool>,
    internet: Internet,
) -> ApiResult<EgressPolicy> {
    let all = |rules: &[String]| rules.iter().any(|rule| rule == ALL_TRAFFIC);
    let (allow, deny) =
        (asked.allow_out.as_deref().unwrap_or_default(), asked.deny_out.as_deref().unwrap_or_default());
    let everything_denied = all(deny) || allow_internet_access == Some(false);
    let named = allow.iter().any(|rule| is_name(rule));
    if named && !everything_denied {
        return Err(ApiError::bad_request(format!(
            "network.allowOut names a domain: that has an effect only when all else is denied, so put \"{ALL_TRAFFIC}\" \
             into network.denyOut"
        )));
    }
    let base = match internet {
        Internet::Given => all(allow) || !everything_denied,
        Internet::Withheld if all(allow) => {
            return Err(ApiError::unsupported("internet access (`e2b.internet`) is"));
        }
        Internet::Withheld => false,
    };
    let spec = PolicySpec {
        internet: base,
        allow: distinct(allow),
        // Where nothing is reached but what is allowed there is nothing to deny; and what is allowed wins anyway.
        deny: if base {
            distinct(deny).into_iter().filter(|rule| !allow.contains(rule)).collect()
        } else {
            Vec::new()
        },
        dns: asked.dns_servers.clone().unwrap_or_default(),
        ..PolicySpec::default()
    };
    EgressPolicy::new(&spec).map_err(|invalid| {
        let told = invalid.to_string().replace("allow[", "allowOut[").replace("deny[", "denyOut[");
        ApiError::bad_request(format!("network: {}", told.replace("dns[", "dnsServers[")))
    })
}

/// What may be reached, in E2B's words.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NetworkView {
    allow_out: Vec<String>,
    deny_out: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dns_servers: Vec<String>,
    allow_public_traffic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_request_host: Option<String>,
}

impl NetworkView {
    pub(super) fn of(
        policy: &EgressPolicy,
        allow_public_traffic: bool,
        mask_request_host: Option<String>,
    ) -> Self {
        let told = |rules: &[Rule]| rules.iter().map(Rule::to_string).collect();
        let deny_out = match policy.base() {
            Base::Internet => told(policy.deny()),
            Base::Nothing => vec![ALL_TRAFFIC.to_owned()],
        };
        let dns_servers = policy.dns().iter().map(ToString::to_string).collect();
        Self {
            allow_out: told(policy.allow()),
            deny_out,
            dns_servers,
            allow_public_traffic,
            mask_request_host,
        }
    }
}

fn is_name(rule: &str) -> bool {
    rule.parse::<Rule>().is_ok_and(|rule| matches!(rule.target(), Target::Domain(_)))
}

/// Each once, without the whole.
fn distinct(rules: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for rule in rules.iter().filter(|rule| *rule != ALL_TRAFFIC) {
        if !found.contains(rule) {
            found.push(rule.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Network {
        serde_json::from_str(body).unwrap()
    }

    fn spec(body: &str, internet: Internet) -> PolicySpec {
        let asked = asked(body);
        policy(&asked, asked.allow_internet_access, internet).unwrap().into()
    }

    #[test]
    fn rules_of_e2b_mean_what_they_mean_there() {
        let given = |body| spec(body, Internet::Given);
        assert!(given("{}").internet);
        assert_eq!(given(r#"{"allow_internet_access":false}"#), PolicySpec::default());
        assert_eq!(given(r#"{"denyOut":["0.0.0.0/0"]}"#), PolicySpec::default());
        let listed = given(
            r#"{"denyOut":["0.0.0.0/0"],"allowOut":["1.1.1.1","*.example.com"],"dnsServers":["9.9.9.9"]}"#,
        );
        assert_eq!((listed.internet, listed.allow.len(), listed.dns.len()), (false, 2, 1));
        let but_one = given(r#"{"denyOut":["192.0.2.0/24","192.0.2.1"],"allowOut":["192.0.2.1"]}"#);
        assert_eq!((but_one.internet, but_one.deny), (true, vec!["192.0.2.0/24".to_owned()]));
        assert!(given(r#"{"denyOut":["0.0.0.0/0"],"allowOut":["0.0.0.0/0"]}"#).internet);
    }

    #[test]
    fn an_internet_that_is_withheld_is_not_part_of_the_default_and_refused_when_asked_for() {
        assert_eq!(spec("{}", Internet::Withheld), PolicySpec::default());
        let listed = spec(r#"{"allowOut":["192.0.2.1"],"denyOut":["192.0.2.9"]}"#, Internet::Withheld);
        assert_eq!(
            (listed.internet, listed.allow, listed.deny),
            (false, vec!["192.0.2.1/32".to_owned()], Vec::new())
        );
        let all = asked(r#"{"allowOut":["0.0.0.0/0"]}"#);
        assert_eq!(policy(&all, None, Internet::Withheld).unwrap_err().code, 501);
    }

    #[test]
    fn wrong_rules_are_told_in_the_clients_words() {
        for (body, words) in [
            (r#"{"allowOut":["1.1.1.1/40"]}"#, "allowOut[0]: \"1.1.1.1/40\" is no network"),
            (
                r#"{"denyOut":["example.com"]}"#,
                "denyOut[0]: example.com is a name, and only addresses can be denied",
            ),
            (r#"{"dnsServers":["x"]}"#, "dnsServers[0]: \"x\" is no address"),
            (r#"{"allowOut":["example.com"]}"#, "put \"0.0.0.0/0\" into network.denyOut"),
            (r#"{"allowOut":["127.0.0.1"]}"#, "no sandbox ever reaches"),
        ] {
            let refused = policy(&asked(body), None, Internet::Given).unwrap_err();
            assert_eq!(refused.code, 400);
            assert!(refused.message.contains(words), "{}", refused.message);
        }
    }

    #[test]
    fn what_was_set_is_told_as_e2b_tells_it() {
        let policy =
            policy(&asked(r#"{"allowOut":["192.0.2.1"],"denyOut":["0.0.0.0/0"]}"#), None, Internet::Given);
        let view = serde_json::to_value(NetworkView::of(&policy.unwrap(), true, None)).unwrap();
        let expected = serde_json::json!({"allowOut":["192.0.2.1/32"],"denyOut":["0.0.0.0/0"],"allowPublicTraffic":true});
        assert_eq!(view, expected);
    }
}
