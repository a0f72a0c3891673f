//! A test double of an ACME server: ours, written for the tests of the client, and no proof that any other server agrees.
//!
//! It speaks the part of RFC 8555 that one order over plain HTTP needs. Of every POST it checks that the nonce is one it
//! gave and unused, that the signed URL is the one that was asked, and the signature (ES256) by the account's key. Of a
//! proof it checks that a file of records has the TXT value that belongs to the challenge's token and the account's key. Of
//! a request for a certificate it checks its own signature and that it names what was ordered. It does not check media
//! types, contacts, whose an order is, or times, and it has no rate limits, external accounts, revocation or key changes.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair,
    SanType, date_time_ymd,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Serves on loopback until it is dropped.
pub(super) struct AcmeDouble {
    world: Shared,
    serving: JoinHandle<()>,
}

type Shared = Arc<Mutex<World>>;

/// What the server knows, and how it behaves.
pub(super) struct World {
    base: String,
    /// Lines `NAME VALUE`, which stand for the domain's TXT records.
    records: PathBuf,
    /// The public keys.
    pub(super) accounts: Vec<Value>,
    /// Refuses every order so.
    pub(super) refusal: Option<Refusal>,
    /// The years in which certificates are valid.
    pub(super) years: (i32, i32),
    pub(super) authority: CertifiedIssuer<'static, KeyPair>,
    orders: Vec<Order>,
    nonces: HashSet<String>,
    nonces_given: usize,
}

struct Order {
    names: Vec<String>,
    proofs: Vec<Proof>,
    certificate: Option<String>,
}

#[derive(Clone, PartialEq)]
enum Proof {
    Pending,
    Valid,
    Invalid(String),
}

/// A status, the end of an ACME error type, and words.
pub(super) type Refusal = (StatusCode, &'static str, String);

/// A request whose signature is good.
struct Signed {
    key: Value,
    payload: Value,
}

struct Answer {
    status: StatusCode,
    location: Option<String>,
    content: &'static str,
    body: String,
}

impl AcmeDouble {
    pub(super) async fn start(records: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let world = Arc::new(Mutex::new(World::new(base, records)));
        let router = Router::new()
            .route("/directory", get(directory))
            .route("/nonce", get(nonce))
            .fallback(post)
            .with_state(Arc::clone(&world));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { world, serving }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(super) fn directory(&self) -> String {
        self.world().url("/directory")
    }
}

impl Drop for AcmeDouble {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn directory(State(world): State<Shared>) -> Json<Value> {
    let world = world.lock().unwrap();
    Json(json!({
        "newNonce": world.url("/nonce"),
        "newAccount": world.url("/account"),
        "newOrder": world.url("/order"),
    }))
}

async fn nonce(State(world): State<Shared>) -> Response {
    let answer = Answer::new(StatusCode::OK, "text/plain", String::new());
    world.lock().unwrap().respond(Ok(answer))
}

async fn post(State(world): State<Shared>, uri: Uri, body: Bytes) -> Response {
    let mut world = world.lock().unwrap();
    let answer = match world.signed(uri.path(), &body) {
        Ok(request) => world.answer(uri.path(), &request),
        Err(refusal) => Err(refusal),
    };
    world.respond(answer)
}

impl World {
    fn new(base: String, records: PathBuf) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            base,
            records,
            accounts: Vec::new(),
            refusal: None,
            years: (2020, 2100),
            authority: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
            orders: Vec::new(),
            nonces: HashSet::new(),
            nonces_given: 0,
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn signed(&mut self, path: &str, body: &[u8]) -> Result<Signed, Refusal> {
        let jws = parsed(body)?;
        let part = |name: &str| jws[name].as_str().unwrap_or_default().to_owned();
        let (protected, payload) = (part("protected"), part("payload"));
        let header = parsed(&decoded(&protected)?)?;
        if !self.nonces.remove(header["nonce"].as_str().unwrap_or_default()) {
            return Err(refusal("badNonce", "the nonce is none of ours, or used"));
        }
        if header["url"] != self.url(path) {
            return Err(refusal("unauthorized", "signed for another URL"));
        }
        let key = self.key(&header)?;
        let mut point = vec![4];
        for coordinate in ["x", "y"] {
            point.extend(decoded(key[coordinate].as_str().unwrap_or_default())?);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(format!("{protected}.{payload}").as_bytes(), &decoded(&part("signature"))?)
            .map_err(|_| refusal("malformed", "the signature is not the account's"))?;
        let payload = if payload.is_empty() { Value::Null } else { parsed(&decoded(&payload)?)? };
        Ok(Signed { key, payload })
    }

    /// The key that must have signed: it is told once, and then known by the account.
    fn key(&self, header: &Value) -> Result<Value, Refusal> {
        let Some(account) = header["kid"].as_str() else { return Ok(header["jwk"].clone()) };
        let mut known = (0..self.accounts.len()).filter(|n| self.url(&format!("/account/{n}")) == account);
        let known = known.next().ok_or_else(|| refusal("accountDoesNotExist", "no such account"))?;
        Ok(self.accounts[known].clone())
    }

    fn answer(&mut self, path: &str, request: &Signed) -> Result<Answer, Refusal> {
        let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let number = |n: usize| words.get(n).and_then(|word| word.parse::<usize>().ok());
        match (words[0], number(1), number(2)) {
            ("account", None, _) => Ok(self.new_account(request)),
            ("order", None, _) => self.new_order(request),
            ("order", Some(order), _) => Ok(self.told(order)),
            ("authorization", Some(order), Some(n)) => Ok(self.authorization(order, n)),
            ("challenge", Some(order), Some(n)) => Ok(self.prove(order, n, request)),
            ("finalize", Some(order), _) => self.sign(order, request),
            ("certificate", Some(order), _) => {
                let certificate = self.orders[order].certificate.clone().unwrap_or_default();
                Ok(Answer::new(StatusCode::OK, "application/pem-certificate-chain", certificate))
            }
            _ => Err((StatusCode::NOT_FOUND, "malformed", format!("there is no {path}"))),
        }
    }

    fn new_account(&mut self, request: &Signed) -> Answer {
        self.accounts.push(request.key.clone());
        let location = self.url(&format!("/account/{}", self.accounts.len() - 1));
        Answer {
            location: Some(location),
            ..Answer::json(StatusCode::CREATED, &json!({ "status": "valid" }))
        }
    }

    fn new_order(&mut self, request: &Signed) -> Result<Answer, Refusal> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let names = request.payload["identifiers"].as_array().cloned().unwrap_or_default();
        let names: Vec<String> =
            names.iter().map(|name| name["value"].as_str().unwrap_or_default().to_owned()).collect();
        let proofs = vec![Proof::Pending; names.len()];
        self.orders.push(Order { names, proofs, certificate: None });
        let order = self.orders.len() - 1;
        let location = self.url(&format!("/order/{order}"));
        Ok(Answer { status: StatusCode::CREATED, location: Some(location), ..self.told(order) })
    }

    fn told(&self, number: usize) -> Answer {
        let order = &self.orders[number];
        let authorizations =
            (0..order.names.len()).map(|n| self.url(&format!("/authorization/{number}/{n}")));
        let certificate = order.certificate.as_ref().map(|_| self.url(&format!("/certificate/{number}")));
        let told = json!({
            "status": order.status(),
            "authorizations": authorizations.collect::<Vec<_>>(),
            "finalize": self.url(&format!("/finalize/{number}")),
            "certificate": certificate,
        });
        Answer::json(StatusCode::OK, &told)
    }

    fn authorization(&self, order: usize, n: usize) -> Answer {
        let (name, proof) = (&self.orders[order].names[n], &self.orders[order].proofs[n]);
        let told = json!({
            "status": proof.status(),
            "identifier": { "type": "dns", "value": name.trim_start_matches("*.") },
            "wildcard": name.starts_with("*."),
            "challenges": [self.challenge(order, n)],
        });
        Answer::json(StatusCode::OK, &told)
    }

    fn challenge(&self, order: usize, n: usize) -> Value {
        let proof = &self.orders[order].proofs[n];
        let mut told = json!({
            "type": "dns-01",
            "url": self.url(&format!("/challenge/{order}/{n}")),
            "token": token(order, n),
            "status": proof.status(),
        });
        if let Proof::Invalid(detail) = proof {
            told["error"] = problem("dns", detail);
        }
        told
    }

    /// Looks for the record, and answers as if it had not yet.
    fn prove(&mut self, order: usize, n: usize, request: &Signed) -> Answer {
        let answer = Answer::json(StatusCode::OK, &self.challenge(order, n));
        let name = self.orders[order].names[n].trim_start_matches("*.").to_owned();
        let proof = format!("{}.{}", token(order, n), thumbprint(&request.key));
        let expected = format!("_acme-challenge.{name} {}", BASE64.encode(Sha256::digest(proof)));
        let records = std::fs::read_to_string(&self.records).unwrap_or_default();
        self.orders[order].proofs[n] = match records.lines().any(|record| record == expected) {
            true => Proof::Valid,
            false => Proof::Invalid(format!("no record: {expected}")),
        };
        answer
    }

    fn sign(&mut self, number: usize, request: &Signed) -> Result<Answer, Refusal> {
        let order = &self.orders[number];
        if order.status() != "ready" {
            return Err(refusal("orderNotReady", order.status()));
        }
        let asked = decoded(request.payload["csr"].as_str().unwrap_or_default())?;
        let mut asked = CertificateSigningRequestParams::from_der(&asked.into())
            .map_err(|error| refusal("badCSR", &error.to_string()))?;
        let names: Vec<&str> = asked.params.subject_alt_names.iter().filter_map(dns_name).collect();
        if names != order.names {
            return Err(refusal("badCSR", &format!("it names {names:?}")));
        }
        asked.params.not_before = date_time_ymd(self.years.0, 1, 1);
        asked.params.not_after = date_time_ymd(self.years.1, 1, 1);
        let certificate = asked.signed_by(&self.authority).unwrap();
        self.orders[number].certificate = Some(certificate.pem() + &self.authority.pem());
        Ok(self.told(number))
    }

    fn respond(&mut self, answer: Result<Answer, Refusal>) -> Response {
        let answer = answer.unwrap_or_else(|(status, kind, detail)| Answer {
            content: "application/problem+json",
            ..Answer::json(status, &problem(kind, &detail))
        });
        self.nonces_given += 1;
        let nonce = format!("nonce-{}", self.nonces_given);
        self.nonces.insert(nonce.clone());
        let mut response = (answer.status, answer.body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content));
        headers.insert(HeaderName::from_static("replay-nonce"), nonce.parse().unwrap());
        if let Some(location) = answer.location {
            headers.insert(header::LOCATION, location.parse().unwrap());
        }
        response
    }
}

impl Answer {
    fn new(status: StatusCode, content: &'static str, body: String) -> Self {
        Self { status, location: None, content, body }
    }

    fn json(status: StatusCode, value: &Value) -> Self {
        Self::new(status, "application/json", value.to_string())
    }
}

impl Order {
    fn status(&self) -> &'static str {
        match (&self.certificate, &self.proofs) {
            (Some(_), _) => "valid",
            (None, proofs) if proofs.iter().any(|proof| matches!(proof, Proof::Invalid(_))) => "invalid",
            (None, proofs) if proofs.iter().all(|proof| *proof == Proof::Valid) => "ready",
            _ => "pending",
        }
    }
}

impl Proof {
    fn status(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Valid => "valid",
            Self::Invalid(_) => "invalid",
        }
    }
}

fn token(order: usize, n: usize) -> String {
    format!("token-{order}-{n}")
}

/// Of a public key, by RFC 7638.
fn thumbprint(key: &Value) -> String {
    let [x, y] = ["x", "y"].map(|coordinate| key[coordinate].as_str().unwrap_or_default());
    let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    BASE64.encode(Sha256::digest(text))
}

fn dns_name(name: &SanType) -> Option<&str> {
    match name {
        SanType::DnsName(name) => Some(name.as_str()),
        _ => None,
    }
}

fn parsed(json: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(json).map_err(|error| refusal("malformed", &error.to_string()))
}

fn decoded(text: &str) -> Result<Vec<u8>, Refusal> {
    BASE64.decode(text).map_err(|error| refusal("malformed", &error.to_string()))
}

fn refusal(kind: &'static str, detail: &str) -> Refusal {
    (StatusCode::BAD_REQUEST, kind, detail.to_owned())
}

fn problem(kind: &str, detail: &str) -> Value {
    json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail })
}
