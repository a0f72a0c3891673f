//! A set of routes as Caddy's configuration, and back. Pure functions: the same set gives the same JSON.
//!
//! ```text
//! server block @id ── route @id {match: host, path} ── subroute ── request_body, reverse_proxy
//!        │                                                  └ errors: the JSON answer that names the route
//!        └─ last route: 404
//! ```

use crate::admin::mark;
use crate::config::CaddyConfig;
use flames_ingress::{Host, Limits, PathPrefix, Route, RouteId, RouteSet, Upstream};
use serde_json::{Value, json};
use std::time::Duration;

/// The server block for `set`.
pub(crate) fn server(config: &CaddyConfig, set: &RouteSet) -> Value {
    let mut routes: Vec<&Route> = set.iter().collect();
    routes.sort_by_key(|route| precedence(route));
    let routes = routes.into_iter().map(|route| render(config, route)).chain([not_found()]);
    json!({
        "@id": mark(config),
        "listen": [config.listen.to_string()],
        "automatic_https": { "disable": true },
        "read_header_timeout": nanos(config.header_timeout),
        "max_header_bytes": config.max_header_bytes,
        "routes": routes.collect::<Vec<_>>(),
    })
}

/// The set that a server block was made from; no block is an empty set.
///
/// # Errors
/// Says what in the block is not as [`server`] writes it.
pub(crate) fn parse(config: &CaddyConfig, block: &Value) -> Result<RouteSet, String> {
    if block.is_null() {
        return Ok(RouteSet::default());
    }
    let rendered = block["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours = rendered.iter().filter(|route| **route != not_found());
    let routes = ours.enumerate().map(|(place, value)| {
        parse_route(config, value).ok_or_else(|| format!("route {place} cannot be read"))
    });
    let set = RouteSet::new(routes.collect::<Result<Vec<_>, _>>()?).map_err(|error| error.to_string())?;
    match server(config, &set) == *block {
        true => Ok(set),
        false => Err("it holds more, or something else, than the routes in it need".to_owned()),
    }
}

/// Caddy takes the first route that matches: exact hosts, then wildcards, each with longer prefixes first.
fn precedence(route: &Route) -> impl Ord {
    let prefix = route.path_prefix.as_str();
    (route.host.wildcard_suffix().is_some(), std::cmp::Reverse(prefix.len()), route.id.clone())
}

fn render(config: &CaddyConfig, route: &Route) -> Value {
    json!({
        "@id": format!("{}{}", id_prefix(config), route.id),
        "match": [matcher(route)],
        "terminal": true,
        "handle": [{
            "handler": "subroute",
            "routes": [{ "handle": [
                { "handler": "request_body", "max_size": route.limits.max_body_bytes },
                reverse_proxy(route),
            ]}],
            "errors": { "routes": [
                failure(route, Some("{http.error.message}.contains('request body too large')"), "413"),
                failure(route, None, "{http.error.status_code}"),
            ]},
        }],
    })
}

fn matcher(route: &Route) -> Value {
    let host = [route.host.as_str()];
    match route.path_prefix.is_root() {
        true => json!({ "host": host }),
        // Caddy's plain path matcher ignores case.
        false => json!({ "host": host, "path_regexp": { "pattern": prefix_pattern(&route.path_prefix) } }),
    }
}

fn reverse_proxy(route: &Route) -> Value {
    let idle = nanos(route.limits.idle_timeout);
    json!({
        "handler": "reverse_proxy",
        "upstreams": [{ "dial": route.upstream.to_string() }],
        "headers": { "request": { "add": { "Via": ["1.1 flames"] } } },
        "transport": {
            "protocol": "http",
            "response_header_timeout": nanos(route.limits.header_timeout),
            "read_timeout": idle,
            "write_timeout": idle,
        },
    })
}

/// The answer when the route's upstream gave none: the same JSON as the built-in proxy's.
fn failure(route: &Route, condition: Option<&str>, status: &str) -> Value {
    let (id, upstream) = (&route.id, &route.upstream);
    // Braces that are no placeholder must be escaped.
    let body = format!(
        r#"\{{"code":{status},"message":"the upstream gave no answer","route":"{id}","upstream":"{upstream}"\}}"#
    );
    let mut failure = json!({ "handle": [answer(status, &body)] });
    if let Some(condition) = condition {
        failure["match"] = json!([{ "expression": condition }]);
        failure["terminal"] = json!(true);
    }
    failure
}

fn not_found() -> Value {
    json!({ "handle": [answer("404", r#"\{"code":404,"message":"no route leads from this host and path"\}"#)] })
}

fn answer(status: &str, body: &str) -> Value {
    json!({
        "handler": "static_response",
        "status_code": status,
        "headers": { "Content-Type": ["application/json"] },
        "body": body,
    })
}

fn parse_route(config: &CaddyConfig, value: &Value) -> Option<Route> {
    let id = value["@id"].as_str()?.strip_prefix(&id_prefix(config))?;
    let host = value.pointer("/match/0/host/0")?.as_str()?;
    let handlers = value.pointer("/handle/0/routes/0/handle")?;
    let upstream = handlers.pointer("/1/upstreams/0/dial")?.as_str()?;
    let limits = Limits {
        max_body_bytes: handlers.pointer("/0/max_size")?.as_u64()?,
        header_timeout: duration(handlers.pointer("/1/transport/response_header_timeout")?)?,
        idle_timeout: duration(handlers.pointer("/1/transport/read_timeout")?)?,
    };
    let prefix = match value.pointer("/match/0/path_regexp/pattern") {
        Some(pattern) => prefix_of_pattern(pattern.as_str()?)?,
        None => PathPrefix::root(),
    };
    let upstream = Upstream::Tcp(upstream.parse().ok()?);
    let route = Route::new(RouteId::parse(id).ok()?, Host::parse(host).ok()?, upstream);
    Some(route.under(prefix).limited_to(limits))
}

fn prefix_pattern(prefix: &PathPrefix) -> String {
    format!(r"^\Q{prefix}\E(/|$)")
}

fn prefix_of_pattern(pattern: &str) -> Option<PathPrefix> {
    let prefix = pattern.strip_prefix(r"^\Q")?.strip_suffix(r"\E(/|$)")?;
    PathPrefix::parse(prefix).ok()
}

/// Ids are shared by all of Caddy's configuration.
fn id_prefix(config: &CaddyConfig) -> String {
    format!("{}-route-", mark(config))
}

/// As Caddy counts. Limits end at a day, so nothing is lost.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn duration(value: &Value) -> Option<Duration> {
    value.as_u64().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> CaddyConfig {
        CaddyConfig::new("http://127.0.0.1:2019".parse().unwrap(), ([127, 0, 0, 1], 8080).into())
    }

    fn routes() -> impl Strategy<Value = RouteSet> {
        let hosts = prop::sample::select(vec!["a.x", "b.x", "*.x", "c.a.x"]);
        let prefixes = prop::sample::select(vec!["/", "/p", "/p.q/~r", "/-_"]);
        let limits = (1_u64..1 << 50, 1_u64..86_400_000, 1_u64..86_400_000);
        prop::collection::btree_map((hosts, prefixes), (1_u16.., limits), 0..10).prop_map(|places| {
            RouteSet::new(places.into_iter().enumerate().map(|(n, ((host, prefix), (port, limits)))| {
                let limits = Limits {
                    max_body_bytes: limits.0,
                    header_timeout: Duration::from_millis(limits.1),
                    idle_timeout: Duration::from_millis(limits.2),
                };
                let id = RouteId::parse(&format!("r.{n}_-")).unwrap();
                let upstream = Upstream::Tcp(([127, 0, 0, 1], port).into());
                Route::new(id, Host::parse(host).unwrap(), upstream)
                    .under(PathPrefix::parse(prefix).unwrap())
                    .limited_to(limits)
            }))
            .unwrap()
        })
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_parsed_back(set in routes()) {
            let block = server(&config(), &set);
            prop_assert_eq!(parse(&config(), &block), Ok(set.clone()));
            prop_assert_eq!(server(&config(), &set), block);
        }
    }

    #[test]
    fn an_edited_block_is_told_from_ours() {
        let route = Route::new(
            RouteId::parse("a").unwrap(),
            Host::parse("a.x").unwrap(),
            Upstream::Tcp(([127, 0, 0, 1], 1).into()),
        );
        let block = server(&config(), &RouteSet::new([route]).unwrap());
        let mut edits = [block.clone(), block.clone(), block.clone()];
        edits[0]["routes"][0]["handle"][0]["routes"][0]["handle"][1]["upstreams"] = json!([]);
        edits[1]["listen"] = json!([":443"]);
        edits[2]["routes"].as_array_mut().unwrap().insert(0, json!({ "handle": [] }));
        for edited in edits {
            assert!(parse(&config(), &edited).is_err(), "{edited}");
        }
    }
}
