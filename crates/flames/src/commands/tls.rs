//! `flames tls init`: an authority of one's own, and by it a certificate of a domain and of all hosts below it.

use crate::cli::Tls;
use crate::output;
use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(command: &Tls) -> anyhow::Result<ExitCode> {
    let Tls::Init { domain, out } = command;
    let made = make(domain).with_context(|| format!("no certificate can be made for `{domain}`"))?;
    std::fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    for (name, pem, mode) in [
        ("ca.pem", &made.authority, 0o644),
        ("ca.key", &made.authority_key, 0o600),
        ("tls.pem", &made.certificate, 0o644),
        ("tls.key", &made.key, 0o600),
    ] {
        write_new(&out.join(name), pem, mode)?;
    }
    let out = std::path::absolute(out)?;
    let at = |name: &str| out.join(name).display().to_string();
    output::line(format!(
        "Made in {}. In the configuration:\n\n  [e2b]\n  domain = \"{domain}\"\n  tls_certificate = \"{}\"\n  \
         tls_key = \"{}\"\n\nClients trust it by SSL_CERT_FILE={1} (Python) or NODE_EXTRA_CA_CERTS={3} (node), or once \
         {3} is among the machine's own authorities (on Debian: copy it to \
         /usr/local/share/ca-certificates/flames.crt and run update-ca-certificates). Keep ca.key to yourself: whoever \
         has it can pretend to be any site to those who trust ca.pem.",
        out.display(),
        at("tls.pem"),
        at("tls.key"),
        at("ca.pem"),
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// All in PEM. The certificate has the authority's behind it.
struct Made {
    authority: String,
    authority_key: String,
    certificate: String,
    key: String,
}

fn make(domain: &str) -> Result<Made, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, format!("Flames at {domain}"));
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names(domain))?;
    params.distinguished_name.push(DnType::CommonName, domain);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &authority)?;
    Ok(Made {
        certificate: certificate.pem() + &authority.pem(),
        authority_key: authority.key().serialize_pem(),
        authority: authority.pem(),
        key: key.serialize_pem(),
    })
}

/// The domain, what is below it, and this machine to itself.
fn names(domain: &str) -> Vec<String> {
    vec![domain.to_owned(), format!("*.{domain}"), "localhost".to_owned(), "127.0.0.1".to_owned()]
}

/// Never over a file that is there: an authority that somebody trusts is not replaced by mistake.
fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.with_context(|| format!("{} cannot be made", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}
