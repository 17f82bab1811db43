//! The certificates that the other tests rely on are what they claim to be, judged by openssl and by Puppet itself.

#![allow(clippy::expect_used, reason = "a test fails where its scenery cannot be built")]

use std::process::Command;

use trigger_e2e::{ADMINISTRATOR, Authority, Crl, KeyType, Request, SERVER, Ssl, Validity};

#[test]
fn a_puppet_ca_has_an_intermediate_ca_and_its_certificates_verify() {
    let here = tempfile::tempdir().expect("a directory");
    let ca = Authority::puppet();
    assert_eq!(
        ca.certificates().matches("-----BEGIN CERTIFICATE").count(),
        2,
        "an intermediate and a root CA"
    );
    let node = ca.node("web01.example.test", &here.path().join("node"));
    for ssl in [
        &ca.server(&here.path().join("server")),
        &ca.administrator(&here.path().join("administrator")),
        &node,
        &ca.issue(&Request::of("rsa.example.test").with_key(KeyType::Rsa), &here.path().join("rsa")),
    ] {
        assert_eq!(verified(ssl), Ok(()));
    }
    assert!(said_of(&node).contains("Subject: CN = web01.example.test"), "{}", said_of(&node));
}

#[test]
fn each_bad_certificate_is_bad_for_its_own_reason() {
    let here = tempfile::tempdir().expect("a directory");
    let ca = Authority::puppet();
    let issue = |request: Request<'_>, name: &str| ca.issue(&request, &here.path().join(name));
    let problem = |ssl: &Ssl| verified(ssl).expect_err("a certificate that does not verify");

    let expired = issue(Request::of("a.example.test").valid(Validity::Expired), "expired");
    assert!(problem(&expired).contains("certificate has expired"), "{}", problem(&expired));
    let early = issue(Request::of("a.example.test").valid(Validity::NotYet), "early");
    assert!(problem(&early).contains("certificate is not yet valid"), "{}", problem(&early));

    let revoked = issue(Request::of("a.example.test"), "revoked");
    revoked.set_crl(&ca.crl(&Crl { revoked: vec![&revoked], number: 2, ..Crl::default() }));
    assert!(problem(&revoked).contains("certificate revoked"), "{}", problem(&revoked));
    let stale = issue(Request::of("a.example.test"), "stale");
    stale.set_crl(&ca.crl(&Crl { validity: Validity::Expired, ..Crl::default() }));
    assert!(problem(&stale).contains("CRL has expired"), "{}", problem(&stale));

    let foreign = Authority::stranger().node("a.example.test", &here.path().join("foreign"));
    assert_eq!(verified(&foreign), Ok(()), "in its own CA's eyes it is good");
    foreign.set_ca(&ca.certificates());
    foreign.set_crl(&ca.crl(&Crl::default()));
    assert!(problem(&foreign).contains("unable to get local issuer"), "{}", problem(&foreign));

    let other = issue(Request::of("a.example.test").with_alt_names(&["b.example.test"]), "other");
    assert!(said_of(&other).contains("DNS:b.example.test") && !said_of(&other).contains("DNS:a."));
    let role = issue(Request::of("a.example.test").with_extension("1.13", "balancer"), "role");
    assert!(said_of(&role).contains("1.3.6.1.4.1.34380.1.1.13"), "{}", said_of(&role));
}

#[test]
fn puppet_finds_the_files_where_it_looks_for_them() {
    let here = tempfile::tempdir().expect("a directory");
    let ssl = Authority::puppet().administrator(&here.path().join("ssl"));
    let mut command = Command::new("puppet");
    command.args(["config", "print", "hostcert", "hostprivkey", "localcacert", "hostcrl", "--certname"]);
    command.arg(ADMINISTRATOR).arg("--confdir").arg(here.path()).arg("--ssldir").arg(ssl.directory());
    let output = command.output().expect("puppet");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for path in [ssl.certificate(), ssl.key(), ssl.ca(), ssl.crl()] {
        assert!(path.exists() && said.contains(&*path.to_string_lossy()), "{} in {said}", path.display());
    }
    assert_ne!(SERVER, ADMINISTRATOR);
}

/// Verifies a certificate with its CA and its CRLs, as openssl sees it.
fn verified(ssl: &Ssl) -> Result<(), String> {
    let mut command = Command::new("openssl");
    command.args(["verify", "-crl_check_all", "-CAfile"]).arg(ssl.ca()).arg("-CRLfile").arg(ssl.crl());
    let output = command.arg(ssl.certificate()).output().expect("openssl");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn said_of(ssl: &Ssl) -> String {
    let output =
        Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(ssl.certificate()).output();
    String::from_utf8_lossy(&output.expect("openssl").stdout).into_owned()
}
