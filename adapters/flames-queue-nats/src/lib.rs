//! A work queue in NATS JetStream (server 2.9 or later): for fleets that have NATS anyway.
//!
//! JetStream delivers a message to one consumer at a time, but it takes a late acknowledgement from a former
//! holder for the current one's. So delivery and possession are kept apart:
//!
//! * The stream `FLAMES_<queue>_JOBS` holds the jobs; a durable pull consumer hands them out as **tickets**. A
//!   ticket only says "look at this job now". Every ticket is given back with a delay (`-NAK`) to the moment when
//!   somebody should look again: the end of the delay, of the lease, of the backoff. The server's timer is what
//!   wakes consumers; none of them polls.
//! * The stream `FLAMES_<queue>_BOOK` holds one **record** per job that was ever leased (who, until when, why it
//!   failed before) and the dead letters. A record only changes on the condition that it is still the one that
//!   was read (expected last sequence of its subject), so exactly one consumer gets a lease and a late ack is
//!   refused. See `record.rs`.
//!
//! What follows: a lost ticket costs time (up to [`TICKET_WAIT`]), never a job; [`flames_queue::WorkQueue::depth`]
//! reads all headers of the queue, so ask it every few seconds at most; expiry is judged by the nodes' clocks,
//! which should agree to a second (a wrong clock hands jobs over early or late, but never lets two settle one).

#![forbid(unsafe_code)]

mod config;
mod error;
mod queue;
mod record;
mod scan;
mod shelf;
mod ticket;

pub use config::NatsQueueConfig;
pub use queue::NatsQueue;
pub use shelf::TICKET_WAIT;
