//! One order: names, proofs, certificate.

use super::hook::{Hook, Record};
use anyhow::{Context, anyhow, bail};
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use std::time::Duration;

/// How long the server may look for records, and how long it may take to sign.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(3 * 60));

/// Gets a certificate of `domain` and of all hosts below it: the key and the chain, in PEM.
pub(super) async fn obtain(account: &Account, domain: &str, hook: &Hook) -> anyhow::Result<String> {
    let names = [domain.to_owned(), format!("*.{domain}")].map(Identifier::Dns);
    let mut order =
        account.new_order(&NewOrder::new(&names)).await.context("the server refused the order")?;
    let mut records = Vec::new();
    let proven = prove(&mut order, domain, hook, &mut records).await;
    for record in &records {
        if let Err(error) = hook.cleanup(record).await {
            tracing::warn!(error = format!("{error:#}"), "a DNS record may be left");
        }
    }
    proven?;
    let key = order.finalize().await.context("the server refused to sign")?;
    let chain = order.poll_certificate(&PATIENCE).await.context("the server did not sign")?;
    Ok(key + &chain)
}

/// Sets what the server wants to see, all of it before the server looks: both names have their record in one place. What
/// was begun is in `records`, also after a failure.
async fn prove(
    order: &mut Order,
    domain: &str,
    hook: &Hook,
    records: &mut Vec<Record>,
) -> anyhow::Result<()> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.context("the server did not say what it wants to see")?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            other => bail!("the server does not let {domain} be proven: {other:?}"),
        }
        let challenge =
            authorization.challenge(ChallengeType::Dns01).context("the server takes no proof by DNS")?;
        let value = challenge.key_authorization().dns_value();
        let record = Record { name: format!("_acme-challenge.{domain}"), value };
        records.push(record.clone());
        hook.present(&record).await?;
    }
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Pending
            && let Some(mut challenge) = authorization.challenge(ChallengeType::Dns01)
        {
            challenge.set_ready().await.context("the server refused to look")?;
        }
    }
    match order.poll_ready(&PATIENCE).await.context("the server did not accept the proofs")? {
        OrderStatus::Ready => Ok(()),
        _ => Err(refused(order).await),
    }
}

/// What the server says about proofs that it did not accept.
async fn refused(order: &mut Order) -> anyhow::Error {
    let mut causes = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        causes.extend(state.challenges.iter().filter_map(|challenge| challenge.error.clone()));
    }
    let causes: Vec<String> = causes.iter().map(ToString::to_string).collect();
    anyhow!("the server did not accept the proofs: {}", causes.join("; "))
}
