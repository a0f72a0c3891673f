//! The client against our own test double of an ACME server, with a hook that is a real program.

use super::double::{AcmeDouble, Refusal};
use super::*;
use crate::config::Config;
use crate::e2b::Listener;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use flames_api::server::Bounds;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// A server, the domain's records, and a data directory.
struct Setting {
    folder: tempfile::TempDir,
    double: AcmeDouble,
}

impl Setting {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2b/dns-hook.sh");
        std::os::unix::fs::symlink(program, folder.path().join("hook")).unwrap();
        let double = AcmeDouble::start(folder.path().join("records")).await;
        Self { folder, double }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives the hook a mood.
    fn mood(&self, name: &str, words: &str) {
        std::fs::write(self.path(name), words).unwrap();
    }

    fn config(&self) -> Config {
        let text = format!(
            "[e2b]\nlisten = \"127.0.0.1:0\"\ndomain = \"Box.test:8443\"\n[e2b.acme]\ndirectory = \"{}\"\n\
             contact = \"mailto:me@box.test\"\nhook = \"{}\"\n",
            self.double.directory(),
            self.path("hook").display()
        );
        Config::parse("f.toml", &text).unwrap()
    }

    fn acme(&self) -> Acme {
        let e2b = self.config().e2b;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Acme::new(&e2b.acme.clone().unwrap(), e2b.host().unwrap(), &self.path("data"), provider).unwrap()
    }

    fn records(&self) -> String {
        std::fs::read_to_string(self.path("records")).unwrap_or_default()
    }
}

/// What is kept, if anything is.
fn kept(acme: &Acme) -> Option<Vec<u8>> {
    std::fs::read(acme.store.certificate()).ok()
}

async fn failure(acme: &Acme) -> String {
    format!("{:#}", acme.renew().await.unwrap_err())
}

fn refusal() -> Refusal {
    (StatusCode::FORBIDDEN, "rejectedIdentifier", "not in this house".to_owned())
}

/// Asks a host at an address, trusting the double's authority alone.
async fn asked(authority: &str, host: &str, address: SocketAddr) -> Result<String, reqwest::Error> {
    let authority = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
    let client =
        reqwest::Client::builder().no_proxy().tls_certs_only([authority]).resolve(host, address).build()?;
    client.get(format!("https://{host}:{}/", address.port())).send().await?.text().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_gets_a_certificate_and_both_names_are_in_it() {
    let setting = Setting::new().await;
    let listener = Listener::bind(&setting.config(), &setting.path("data")).await.unwrap();
    let (address, shutdown) = (listener.address, CancellationToken::new());
    let bounds = Bounds { connections_per_client: None };
    let serving = tokio::spawn(listener.serve(
        Router::new().route("/", get(|| async { "here" })),
        bounds,
        shutdown.clone(),
    ));
    let authority = setting.double.world().authority.pem();
    let (began, mut turn) = (Instant::now(), tokio::time::interval(Duration::from_millis(100)));
    for host in ["box.test", "8080-sandbox.box.test"] {
        let said = loop {
            turn.tick().await;
            match asked(&authority, host, address).await {
                Ok(said) => break said,
                Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{host}: {error:?}"),
            }
        };
        assert_eq!(said, "here");
    }
    asked(&authority, "a.b.box.test", address).await.unwrap_err();
    shutdown.cancel();
    serving.await.unwrap();
    assert_eq!(setting.records(), "", "records were left");
}

#[tokio::test]
async fn what_is_kept_is_for_the_user_alone_and_the_account_is_made_once() {
    let setting = Setting::new().await;
    setting.acme().renew().await.unwrap();
    let acme = setting.acme();
    let first = kept(&acme).unwrap();
    acme.renew().await.unwrap();
    assert_ne!(kept(&acme).unwrap(), first);
    assert_eq!(setting.double.world().accounts.len(), 1);
    let files = std::fs::read_dir(acme.store.certificate().parent().unwrap()).unwrap();
    let mut modes: Vec<_> = files
        .map(|file| file.unwrap())
        .map(|file| (file.file_name(), file.metadata().unwrap().permissions().mode() & 0o777))
        .collect();
    modes.sort();
    assert_eq!(
        modes,
        [("account.json", 0o600), ("box.test.pem", 0o600)].map(|(name, mode)| (OsString::from(name), mode))
    );
}

#[tokio::test]
async fn a_hook_that_fails_is_quoted_and_nothing_is_kept() {
    let setting = Setting::new().await;
    setting.mood("failing", "no such zone");
    let error = failure(&setting.acme()).await;
    for expected in ["/hook present _acme-challenge.box.test ", "exit status: 3", "no such zone"] {
        assert!(error.contains(expected), "{expected} in {error}");
    }
    assert_eq!(kept(&setting.acme()), None);
}

#[tokio::test]
async fn a_hook_that_hangs_is_ended() {
    let setting = Setting::new().await;
    setting.mood("hanging", "");
    let mut acme = setting.acme();
    acme.hook.deadline = Duration::from_millis(100);
    let (began, error) = (Instant::now(), failure(&acme).await);
    assert!(error.contains("did not end within 100ms"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(300));
}

#[tokio::test]
async fn a_hook_that_is_not_there_is_named() {
    let setting = Setting::new().await;
    std::fs::remove_file(setting.path("hook")).unwrap();
    let error = failure(&setting.acme()).await;
    assert!(error.contains("/hook present") && error.contains("cannot be started"), "{error}");
}

#[tokio::test]
async fn the_server_says_why_it_does_not_accept_a_proof() {
    let setting = Setting::new().await;
    setting.mood("lying", "");
    let error = failure(&setting.acme()).await;
    assert!(error.contains("no record: _acme-challenge.box.test "), "{error}");
}

#[tokio::test]
async fn a_server_that_refuses_leaves_the_old_certificate_and_is_asked_later_each_time() {
    let setting = Setting::new().await;
    let acme = setting.acme();
    setting.double.world().years = (2020, 2021);
    assert_eq!(acme.turn(&mut 0).await, LOOK_EVERY);
    let old = kept(&acme).unwrap();
    // It is over, so that every turn asks for another.
    setting.double.world().refusal = Some(refusal());
    let error = failure(&acme).await;
    assert!(error.contains("refused the order") && error.contains("not in this house"), "{error}");
    let mut failures = 0;
    let pauses = [acme.turn(&mut failures).await, acme.turn(&mut failures).await];
    assert_eq!(pauses, [life::pause(0), life::pause(1)]);
    assert_eq!(kept(&acme).unwrap(), old);

    setting.double.world().refusal = None;
    setting.double.world().years = (2020, 2100);
    assert_eq!(acme.turn(&mut failures).await, LOOK_EVERY);
    assert_eq!(failures, 0);
    let renewed = kept(&acme).unwrap();
    assert_ne!(renewed, old);
    // And now nothing is due.
    assert_eq!(acme.turn(&mut failures).await, LOOK_EVERY);
    assert_eq!(kept(&acme).unwrap(), renewed);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let setting = Setting::new().await;
    let directory = setting.double.world().url("/elsewhere");
    let acme = Acme { directory, ..setting.acme() };
    let error = failure(&acme).await;
    assert!(error.contains("no account could be made") && error.contains("/elsewhere answered"), "{error}");
}
