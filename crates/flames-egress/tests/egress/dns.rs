//! Only allowed names are asked, and only addresses of their answers are admitted.

use flames_egress::dns::{Asked, MAX_ADMITTED, MIN_ADMITTED, Question};
use flames_egress::{EgressPolicy, Mark, PolicySpec};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;
use std::time::Duration;

fn names_only() -> EgressPolicy {
    let allow = vec!["*.example.com".to_owned(), "api.example.com:443".to_owned()];
    EgressPolicy::new(&PolicySpec { allow, ..PolicySpec::default() }).unwrap()
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn query(asked: &str, kind: RecordType) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name(asked), kind));
    message
}

fn ask(policy: &EgressPolicy, asked: &str, kind: RecordType) -> Asked {
    Question::read(policy, &query(asked, kind).to_vec().unwrap())
}

fn allowed(asked: Asked) -> Question {
    let Asked::Allowed(question) = asked else { panic!("{asked:?}") };
    question
}

fn code(asked: Asked) -> ResponseCode {
    let Asked::Refused { reply, .. } = asked else { panic!("{asked:?}") };
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!((reply.metadata.id, reply.metadata.message_type), (77, MessageType::Response));
    assert!(reply.answers.is_empty());
    reply.metadata.response_code
}

fn answered(id: u16, asked: &str, records: Vec<Record>) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(name(asked), RecordType::A));
    message.add_answers(records);
    message.to_vec().unwrap()
}

fn a(owner: &str, ttl: u32, address: [u8; 4]) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A(address.into())))
}

fn alias(owner: &str, ttl: u32, to: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(to))))
}

#[test]
fn only_names_that_a_rule_allows_are_asked_unless_the_internet_is() {
    let rules = names_only();
    assert_eq!(allowed(ask(&rules, "API.example.COM.", RecordType::A)).name().as_str(), "api.example.com");
    assert_eq!(code(ask(&rules, "evil.test.", RecordType::A)), ResponseCode::Refused);
    assert_eq!(code(ask(&rules, "example.com.", RecordType::TXT)), ResponseCode::Refused);
    assert_eq!(code(ask(&EgressPolicy::default(), "api.example.com.", RecordType::A)), ResponseCode::Refused);
    allowed(ask(&EgressPolicy::internet(), "evil.test.", RecordType::TXT));
}

#[test]
fn questions_that_could_get_around_the_rules_are_answered_empty_or_not_at_all() {
    let rules = names_only();
    assert_eq!(code(ask(&rules, "api.example.com.", RecordType::HTTPS)), ResponseCode::NoError);
    assert_eq!(code(ask(&rules, "api.example.com.", RecordType::ANY)), ResponseCode::NotImp);
    assert_eq!(code(ask(&rules, ".", RecordType::A)), ResponseCode::Refused);
    let mut two = query("api.example.com.", RecordType::A);
    two.add_query(Query::query(name("evil.test."), RecordType::A));
    assert_eq!(code(Question::read(&rules, &two.to_vec().unwrap())), ResponseCode::NotImp);
    assert!(matches!(Question::read(&rules, b"nonsense"), Asked::Ignored));
    let response = answered(77, "api.example.com.", Vec::new());
    assert!(matches!(Question::read(&rules, &response), Asked::Ignored));
}

#[test]
fn nothing_of_the_guests_message_goes_out_but_the_question() {
    let mut sent = query("api.example.com.", RecordType::A);
    sent.add_additional(a("secret.test.", 1, [1, 2, 3, 4]));
    let mut edns = Edns::new();
    edns.set_max_payload(65000).set_version(0);
    sent.set_edns(edns);
    let question = allowed(Question::read(&names_only(), &sent.to_vec().unwrap()));
    let out = Message::from_vec(&question.forward(9).unwrap()).unwrap();
    assert_eq!((out.metadata.id, out.queries.len(), out.additionals.len()), (9, 1, 0));
    assert!(out.metadata.recursion_desired);
    assert_eq!(out.edns.unwrap().max_payload(), 1232);
}

#[test]
fn addresses_of_the_name_and_its_aliases_are_admitted_for_every_rule_that_allows_it() {
    let question = allowed(ask(&names_only(), "api.example.com.", RecordType::A));
    let records = vec![
        alias("api.example.com.", 300, "Edge.CDN.test."),
        alias("edge.cdn.test.", 90, "edge2.cdn.test."),
        a("edge2.cdn.test.", 3600, [203, 0, 113, 7]),
        a("other.test.", 3600, [203, 0, 113, 8]),
        a("edge.cdn.test.", 3600, [10, 0, 0, 1]),
        Record::from_rdata(name("edge.cdn.test."), 5, RData::AAAA(AAAA("2001:db8::7".parse().unwrap()))),
    ];
    let answer = question.answer(9, &answered(9, "api.example.com.", records)).unwrap();
    let mut found: Vec<_> =
        answer.admitted.iter().map(|one| (one.rule, one.address.to_string(), one.for_)).collect();
    let mut expected = Vec::new();
    for rule in names_only().allow() {
        expected.push((Mark::of_rule(rule), "203.0.113.7".to_owned(), Duration::from_secs(90)));
        expected.push((Mark::of_rule(rule), "2001:db8::7".to_owned(), MIN_ADMITTED));
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(Message::from_vec(&answer.reply).unwrap().metadata.id, 77);
}

#[test]
fn an_internet_without_rules_about_names_admits_nothing() {
    let question = allowed(ask(&EgressPolicy::internet(), "api.example.com.", RecordType::A));
    let answer = answered(9, "api.example.com.", vec![a("api.example.com.", 60, [203, 0, 113, 7])]);
    assert!(question.answer(9, &answer).unwrap().admitted.is_empty());
}

#[test]
fn an_answer_to_another_question_is_nobodys() {
    let question = allowed(ask(&names_only(), "api.example.com.", RecordType::A));
    let right = answered(9, "api.example.com.", vec![a("api.example.com.", u32::MAX, [203, 0, 113, 7])]);
    assert_eq!(question.answer(9, &right).unwrap().admitted[0].for_, MAX_ADMITTED);
    question.answer(8, &right).unwrap_err();
    question.answer(9, &answered(9, "b.example.com.", Vec::new())).unwrap_err();
    question.answer(9, &query("api.example.com.", RecordType::A).to_vec().unwrap()).unwrap_err();
    question.answer(9, b"").unwrap_err();
    let failed = Message::from_vec(&question.failed()).unwrap();
    assert_eq!((failed.metadata.id, failed.metadata.response_code), (77, ResponseCode::ServFail));
}

#[test]
fn a_chain_of_aliases_that_bites_its_tail_ends() {
    let question = allowed(ask(&names_only(), "api.example.com.", RecordType::A));
    let records = vec![alias("api.example.com.", 1, "b.test."), alias("b.test.", 1, "api.example.com.")];
    assert!(question.answer(9, &answered(9, "api.example.com.", records)).unwrap().admitted.is_empty());
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..200, to in any::<u8>()) {
        let _ = Question::read(&names_only(), &bytes);
        let question = allowed(ask(&names_only(), "api.example.com.", RecordType::A));
        let _ = question.answer(9, &bytes);
        let mut damaged = answered(9, "api.example.com.", vec![a("api.example.com.", 60, [203, 0, 113, 7])]);
        let at = at % damaged.len();
        damaged[at] = to;
        let _ = question.answer(9, &damaged);
        let _ = Question::read(&names_only(), &damaged);
    }
}
