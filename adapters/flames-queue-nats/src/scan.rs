//! Reading a whole queue: depth, and the list of the dead.

use crate::error::{Fault, Step, corrupt};
use crate::record::{Phase, Record, since_epoch};
use crate::shelf::{Shelf, dead_subject, lease_subject, reader};
use crate::ticket::Envelope;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{Consumer, pull};
use flames_queue::{Depth, JobId};
use futures::{StreamExt, TryStreamExt};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// Messages per request to the server.
const PAGE: u64 = 500;

/// Counts every job by its headers and its record.
pub(crate) async fn depth(shelf: &Shelf) -> Step<Depth> {
    let records = sweep(shelf).await?;
    let now = since_epoch(SystemTime::now());
    let mut depth = Depth { dead: dead_ids(shelf).await?.len() as u64, ..Depth::default() };
    for envelope in envelopes(shelf).await? {
        let record = records.get(&envelope.sequence).map(|(_, record)| record.clone());
        let record = record.unwrap_or_else(|| Record::fresh(envelope.ready_at));
        count(&mut depth, &record.settled(now, envelope.max_attempts).phase, now);
    }
    Ok(depth)
}

/// The ids of the dead letters, in order. Jobs whose last lease is over become dead first.
pub(crate) async fn dead_in_order(shelf: &Shelf) -> Step<Vec<JobId>> {
    sweep(shelf).await?;
    let mut ids = dead_ids(shelf).await?;
    ids.sort();
    Ok(ids)
}

fn count(depth: &mut Depth, phase: &Phase, now: u64) {
    match phase {
        Phase::Leased { .. } => depth.leased += 1,
        Phase::Waiting { ready_at } if *ready_at > now => depth.delayed += 1,
        Phase::Waiting { ready_at } => {
            depth.ready += 1;
            depth.oldest_age = depth.oldest_age.max(Some(Duration::from_micros(now - ready_at)));
        }
        Phase::Dead => {} // being buried at this moment, and counted there
    }
}

/// All records, after burying the jobs whose last lease ended with nobody there to see it.
async fn sweep(shelf: &Shelf) -> Step<HashMap<u64, (u64, Record)>> {
    let mut records = records(shelf).await?;
    let now = since_epoch(SystemTime::now());
    let over: Vec<u64> =
        records.iter().filter(|(_, (_, record))| may_be_dead(record, now)).map(|(job, _)| *job).collect();
    for job in over {
        if let Some((sequence, record)) = records.remove(&job) {
            let kept = bury_if_dead(shelf, job, sequence, record, now).await?;
            kept.map(|record| records.insert(job, record));
        }
    }
    Ok(records)
}

fn may_be_dead(record: &Record, now: u64) -> bool {
    match record.phase {
        Phase::Leased { expires_at, .. } => expires_at <= now,
        Phase::Waiting { .. } => false,
        Phase::Dead => true,
    }
}

async fn bury_if_dead(
    shelf: &Shelf,
    job: u64,
    sequence: u64,
    record: Record,
    now: u64,
) -> Step<Option<(u64, Record)>> {
    let Some(message) = shelf.job(job).await? else { return shelf.erase(sequence).await.map(|_| None) };
    let envelope = Envelope::of_stored(&message)?;
    let settled = record.clone().settled(now, envelope.max_attempts);
    if settled.phase != Phase::Dead {
        return Ok(Some((sequence, record)));
    }
    let written =
        if settled == record { Ok(sequence) } else { shelf.write(&envelope.id(), &settled, sequence).await };
    match written {
        Ok(sequence) => shelf.bury(&envelope, (sequence, &settled), None).await.map(|()| None),
        Err(Fault::Moved) => Ok(None), // somebody else acts on it at this moment
        Err(fault) => Err(fault),
    }
}

async fn records(shelf: &Shelf) -> Step<HashMap<u64, (u64, Record)>> {
    let filter_subject = lease_subject(shelf.queue(), "*");
    let reader = reader(&shelf.book, pull::Config { filter_subject, ..pull::Config::default() }).await?;
    let mut records = HashMap::new();
    for message in read_all(reader).await? {
        let record = serde_json::from_slice(&message.payload).map_err(corrupt)?;
        let sequence = message.info().map_err(corrupt)?.stream_sequence;
        records.insert(job_of(&message.subject)?, (sequence, record));
    }
    Ok(records)
}

async fn envelopes(shelf: &Shelf) -> Step<Vec<Envelope>> {
    let reader = reader(&shelf.jobs, pull::Config { headers_only: true, ..pull::Config::default() }).await?;
    read_all(reader).await?.iter().map(Envelope::of_delivered).collect()
}

/// What the stream held when the reader was made.
async fn read_all(reader: Consumer<pull::Config>) -> Step<Vec<Message>> {
    let mut left = reader.cached_info().num_pending;
    let mut messages = Vec::new();
    while left > 0 {
        let size = usize::try_from(left.min(PAGE)).unwrap_or(1);
        let batch = reader
            .fetch()
            .max_messages(size)
            .messages()
            .await
            .map_err(|error| Fault::Refused(error.into()))?;
        let page: Vec<Message> = batch.try_collect().await.map_err(Fault::Refused)?;
        if page.is_empty() {
            break; // the rest was deleted meanwhile
        }
        left = left.saturating_sub(page.len() as u64);
        messages.extend(page);
    }
    Ok(messages)
}

async fn dead_ids(shelf: &Shelf) -> Step<Vec<JobId>> {
    let subjects = shelf.book.info_with_subjects(dead_subject(shelf.queue(), "*")).await;
    let mut subjects = subjects.map_err(|error| Fault::Refused(error.into()))?;
    let mut ids = Vec::new();
    while let Some(subject) = subjects.next().await {
        let (subject, _) = subject.map_err(|error| Fault::Refused(error.into()))?;
        ids.push(JobId::from_number(job_of(&subject)?));
    }
    Ok(ids)
}

/// The last token of the subject of a record or a dead letter.
fn job_of(subject: &str) -> Step<u64> {
    let id = subject.rsplit('.').next().unwrap_or_default();
    JobId::new(id).as_number().ok_or_else(|| corrupt(format!("a subject without a job: {subject}")))
}
