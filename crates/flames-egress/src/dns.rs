//! What a sandbox may ask DNS, and which addresses of an answer are admitted.
//!
//! The resolver of a node hands every question to [`Question::read`], sends [`Question::forward`] to a server, and hands
//! what comes back to [`Question::answer`]: the guest gets [`Answer::reply`], and the namespace [`Answer::admitted`],
//! in this order reversed, so that a guest that connects at once finds the way open.

use crate::{Admitted, Base, DomainName, EgressPolicy, Mark, Scope};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::IpAddr;
use std::time::Duration;

/// An admitted address stays at least this long: programs look up once and connect when they come to it.
pub const MIN_ADMITTED: Duration = Duration::from_secs(60);
/// An admitted address stays at most this long, whatever its time to live.
pub const MAX_ADMITTED: Duration = Duration::from_secs(24 * 60 * 60);
/// The most addresses that one answer admits.
pub const MAX_ADDRESSES: usize = 64;
/// The largest UDP answer that is asked for: one that no link on the way has to cut into pieces.
const MAX_UDP_PAYLOAD: u16 = 1232;

/// A question that may be asked.
#[derive(Clone, Debug)]
pub struct Question {
    id: u16,
    query: Query,
    name: DomainName,
    /// What the client takes over UDP; `None` if it did not say.
    payload: Option<u16>,
    /// The rules that allow the name, of which the answer's addresses are admitted.
    rules: Vec<Mark>,
}

/// What comes of a message from a guest.
#[derive(Clone, Debug)]
pub enum Asked {
    /// It may be asked.
    Allowed(Question),
    /// It may not, or it needs no server: this is the reply.
    Refused {
        /// What the guest gets.
        reply: Vec<u8>,
        /// The name, if it was one.
        name: Option<DomainName>,
    },
    /// It is no question, and gets no reply.
    Ignored,
}

/// What comes of a server's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What the guest gets.
    pub reply: Vec<u8>,
    /// What is let into the namespace before the guest gets the reply.
    pub admitted: Vec<Admitted>,
    /// Whether it was cut off: over TCP it comes whole.
    pub truncated: bool,
}

/// An answer that does not belong to the question, or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAnswer(String);

impl Question {
    /// Whether a message from a guest may be asked.
    pub fn read(policy: &EgressPolicy, message: &[u8]) -> Asked {
        let Ok(message) = Message::from_vec(message) else { return Asked::Ignored };
        if message.metadata.message_type != MessageType::Query {
            return Asked::Ignored;
        }
        let (OpCode::Query, [query]) = (message.metadata.op_code, message.queries.as_slice()) else {
            return refused(&message, ResponseCode::NotImp, None);
        };
        let Some(name) = domain_name(query.name()) else {
            return refused(&message, ResponseCode::Refused, None);
        };
        let rules: Vec<Mark> = policy.rules_naming(&name).map(|(_, rule)| Mark::of_rule(rule)).collect();
        if rules.is_empty() && policy.base() == Base::Nothing {
            return refused(&message, ResponseCode::Refused, Some(name));
        }
        match query.query_type() {
            _ if query.query_class() != DNSClass::IN => refused(&message, ResponseCode::Refused, Some(name)),
            RecordType::ANY | RecordType::AXFR | RecordType::IXFR => {
                refused(&message, ResponseCode::NotImp, Some(name))
            }
            // They carry the keys with which a client hides whom it means.
            RecordType::HTTPS | RecordType::SVCB if policy.domain_rules().next().is_some() => {
                refused(&message, ResponseCode::NoError, Some(name))
            }
            _ => Asked::Allowed(Self {
                id: message.metadata.id,
                query: query.clone(),
                name,
                payload: message.edns.as_ref().map(Edns::max_payload),
                rules,
            }),
        }
    }

    /// The name that is asked for.
    pub fn name(&self) -> &DomainName {
        &self.name
    }

    /// The question as it is sent to a server, under an id that the guest cannot know. Nothing else of the guest's message
    /// goes out.
    ///
    /// # Errors
    /// `BadAnswer` when the question cannot be written; it could be read.
    pub fn forward(&self, id: u16) -> Result<Vec<u8>, BadAnswer> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query.clone());
        if let Some(payload) = self.payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload.clamp(512, MAX_UDP_PAYLOAD)).set_version(0);
            message.set_edns(edns);
        }
        message.to_vec().map_err(|error| BadAnswer(error.to_string()))
    }

    /// What a server answered to the question that was sent under an id.
    ///
    /// # Errors
    /// An answer to another question, or one that cannot be read: the guest gets none of it.
    pub fn answer(&self, id: u16, message: &[u8]) -> Result<Answer, BadAnswer> {
        let answer = Message::from_vec(message).map_err(|error| BadAnswer(error.to_string()))?;
        let same = |query: &Query| {
            query.query_type() == self.query.query_type()
                && query.query_class() == self.query.query_class()
                && query.name().to_lowercase() == self.query.name().to_lowercase()
        };
        let matches = matches!(answer.queries.as_slice(), [query] if same(query));
        if answer.metadata.id != id || answer.metadata.message_type != MessageType::Response || !matches {
            return Err(BadAnswer("it answers another question".to_owned()));
        }
        let mut reply = message.to_vec();
        reply[..2].copy_from_slice(&self.id.to_be_bytes());
        Ok(Answer { reply, admitted: self.admitted(&answer), truncated: answer.metadata.truncation })
    }

    /// The reply when no server answered.
    pub fn failed(&self) -> Vec<u8> {
        let mut reply = Message::new(self.id, MessageType::Response, OpCode::Query);
        reply.metadata.response_code = ResponseCode::ServFail;
        reply.metadata.recursion_available = true;
        reply.add_query(self.query.clone());
        reply.to_vec().unwrap_or_default()
    }

    fn admitted(&self, answer: &Message) -> Vec<Admitted> {
        let addresses = addresses_of(self.query.name(), &answer.answers);
        let public = addresses.into_iter().filter(|(address, _)| Scope::of(*address) == Scope::Public);
        let admit = |(address, ttl): (IpAddr, u32)| {
            let for_ = Duration::from_secs(ttl.into()).clamp(MIN_ADMITTED, MAX_ADMITTED);
            self.rules.iter().map(move |rule| Admitted { rule: *rule, address, for_ })
        };
        public.take(MAX_ADDRESSES).flat_map(admit).collect()
    }
}

/// The addresses of a name and of the names that it is an alias of, each with the shortest time to live on its way.
/// Records about any other name are nobody's answer.
fn addresses_of(asked: &Name, records: &[Record]) -> Vec<(IpAddr, u32)> {
    let mut chain = vec![(asked.to_lowercase(), u32::MAX)];
    let mut next = 0;
    while let Some((name, ttl)) = chain.get(next).cloned() {
        for record in records.iter().filter(|record| record.name.to_lowercase() == name) {
            if let RData::CNAME(alias) = &record.data {
                let alias = alias.0.to_lowercase();
                if !chain.iter().any(|(known, _)| *known == alias) {
                    chain.push((alias, ttl.min(record.ttl)));
                }
            }
        }
        next += 1;
    }
    let address = |record: &Record| {
        let (_, ttl) = chain.iter().find(|(name, _)| *name == record.name.to_lowercase())?;
        let address = match &record.data {
            RData::A(address) => IpAddr::V4(address.0),
            RData::AAAA(address) => IpAddr::V6(address.0),
            _ => return None,
        };
        Some((address, record.ttl.min(*ttl)))
    };
    records.iter().filter_map(address).collect()
}

fn domain_name(name: &Name) -> Option<DomainName> {
    DomainName::parse(&name.to_ascii()).ok()
}

fn refused(message: &Message, code: ResponseCode, name: Option<DomainName>) -> Asked {
    let mut reply = Message::new(message.metadata.id, MessageType::Response, message.metadata.op_code);
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.add_queries(message.queries.iter().take(1).cloned());
    reply.to_vec().map_or(Asked::Ignored, |reply| Asked::Refused { reply, name })
}
