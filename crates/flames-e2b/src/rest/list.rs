//! Lists: filters, order, pages.

use super::create::template;
use super::extract::{Params, too_large};
use super::model::ListedSandbox;
use crate::E2b;
use crate::error::{ApiError, ApiResult};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use flames_core::sandbox::query::{Cursor, Filter, Order};
use flames_core::sandbox::state::State as SandboxState;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;

/// The most of one page, and what a page has when nothing is said.
const PAGE: usize = 100;
/// Where the next page starts; absent on the last.
const NEXT_TOKEN: &str = "x-next-token";

/// Running and paused ones, page by page.
pub(super) async fn list(State(e2b): State<E2b>, params: Params) -> ApiResult<Response> {
    let Some(filter) = filter(&params)? else { return Ok(Json(Vec::<ListedSandbox>::new()).into_response()) };
    let after = params.get("nextToken").map(Cursor::decode).transpose()?;
    let limit = params.parse("limit")?.unwrap_or(PAGE);
    if !(1..=PAGE).contains(&limit) {
        return Err(too_large("`limit` must be 1 or more", PAGE));
    }
    let page = e2b.plane.list(&filter, after.as_ref(), limit).await?;
    let listed: Vec<_> = page.sandboxes.iter().filter_map(ListedSandbox::of).collect();
    let mut response = Json(listed).into_response();
    if let Some(next) = page.next.and_then(|next| HeaderValue::from_str(&next.encode()).ok()) {
        response.headers_mut().insert(NEXT_TOKEN, next);
    }
    Ok(response)
}

/// The running ones, all at once.
pub(super) async fn list_running(
    State(e2b): State<E2b>,
    params: Params,
) -> ApiResult<Json<Vec<ListedSandbox>>> {
    let metadata = metadata(params.get("metadata").unwrap_or_default());
    let filter = Filter { states: vec![SandboxState::Running], metadata, ..Filter::default() };
    let running = e2b.plane.list_all(&filter).await?;
    Ok(Json(running.iter().filter_map(ListedSandbox::of).collect()))
}

/// `None` when nothing can pass.
fn filter(params: &Params) -> ApiResult<Option<Filter>> {
    // A template that cannot exist has no sandboxes.
    let template = match params.get("template").map(template).transpose() {
        Ok(name) => name.map(|name| name.to_string()),
        Err(_) => return Ok(None),
    };
    Ok(Some(Filter {
        states: states(params.get("state"))?,
        template,
        metadata: metadata(params.get("metadata").unwrap_or_default()),
        created_since: params.parse::<Timestamp>("startedAfter")?,
        order: match params.get("order") {
            None | Some("desc") => Order::NewestFirst,
            Some("asc") => Order::OldestFirst,
            Some(_) => return Err(ApiError::bad_request("`order` must be `asc` or `desc`")),
        },
    }))
}

fn states(text: Option<&str>) -> ApiResult<Vec<SandboxState>> {
    let mut states = Vec::new();
    for name in text.unwrap_or("running,paused").split(',') {
        match name.trim() {
            "running" => states.extend([SandboxState::Running, SandboxState::Resuming]),
            "paused" => {
                states.extend([SandboxState::Paused, SandboxState::Snapshotted, SandboxState::Pausing])
            }
            _ => return Err(ApiError::bad_request("`state` must be `running`, `paused` or both")),
        }
    }
    Ok(states)
}

/// Labels as the clients write them: a query string whose names and values are percent-encoded once more.
pub(super) fn metadata(text: &str) -> BTreeMap<String, String> {
    let again = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = url::form_urlencoded::parse(text.as_bytes());
    pairs.map(|(name, value)| (again(&name), again(&value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn states_and_order_are_understood_or_refused() {
        let of = |query: &str| filter(&Params::of(query));
        assert_eq!(of("").unwrap().unwrap().states.len(), 5);
        assert_eq!(of("state=paused").unwrap().unwrap().states.len(), 3);
        assert_eq!(of("order=asc").unwrap().unwrap().order, Order::OldestFirst);
        assert!(of("state=dead").is_err() && of("order=up").is_err() && of("startedAfter=now").is_err());
        assert!(of("template=No%20Such").unwrap().is_none());
    }

    #[test]
    fn a_start_is_compared_with_its_microseconds() {
        let params = Params::of("startedAfter=2026-11-22T15%3A00%3A00.123456%2B00%3A00");
        let since = filter(&params).unwrap().unwrap().created_since.unwrap();
        assert_eq!(since.as_microsecond() % 1_000_000, 123_456);
    }

    #[test]
    fn filters_of_the_corpus_mean_what_they_always_meant() {
        let corpus = include_str!("../../corpus/metadata.txt");
        for line in corpus.lines().filter(|line| !line.starts_with('#')) {
            let (text, meant) = line.rsplit_once(" => ").unwrap();
            assert_eq!(metadata(text), serde_json::from_str(meant).unwrap(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn metadata_survives_what_the_clients_do_to_it(
            pairs in proptest::collection::btree_map("\\PC{1,8}", "\\PC{0,8}", 0..4)
        ) {
            let quote = |text: &str| {
                percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
            };
            let mut encoded = url::form_urlencoded::Serializer::new(String::new());
            encoded.extend_pairs(pairs.iter().map(|(name, value)| (quote(name), quote(value))));
            prop_assert_eq!(metadata(&encoded.finish()), pairs);
        }

        #[test]
        fn any_text_is_some_metadata(text in "\\PC{0,60}") {
            let _ = metadata(&text);
        }
    }
}
