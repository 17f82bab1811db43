//! The files of a node: which are read, what is wrong with the others, and when they are read again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expects")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use trigger_core::time::Timestamp;
use trigger_pki::testing::{AUTHORIZATION_EXTENSION, REGISTERED_EXTENSION, TestCa, extension};
use trigger_pki::{Pki, SharedKey, TlsFiles, Untrusted, fingerprint, verify_signature};

const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);
const NODE: &str = "web01.example.com";

/// The sentence of a failed `Pki::open`, with the directory left out.
fn error(files: &TlsFiles, directory: &Path) -> String {
    let error = Pki::open(files.clone()).expect_err("these files must not be usable").to_string();
    error.replace(directory.to_str().unwrap(), "SSL")
}

#[test]
fn each_form_of_key_signs_what_its_certificate_verifies() {
    let keys = [
        ("rsa-pkcs1", "rsa-pkcs8", "rsa_pss_rsae_sha256"),
        ("rsa-pkcs8", "rsa-pkcs8", "rsa_pss_rsae_sha256"),
        ("ec-sec1", "ec-pkcs8", "ecdsa_secp256r1_sha256"),
        ("ec-pkcs8", "ec-pkcs8", "ecdsa_secp256r1_sha256"),
        ("p384-sec1", "p384-pkcs8", "ecdsa_secp384r1_sha384"),
    ];
    let fixture = |name: &str| {
        fs::read_to_string(format!("{}/tests/fixtures/{name}.pem", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    for (form, pkcs8, algorithm) in keys {
        let directory = tempfile::tempdir().unwrap();
        let mut ca = TestCa::new("puppet").unwrap();
        let files = ca.node(directory.path(), NODE).unwrap();
        let certificate = ca.certify(NODE, &KeyPair::from_pem(&fixture(pkcs8)).unwrap(), |_| {}).unwrap();
        fs::write(&files.certificate, certificate).unwrap();
        fs::write(&files.key, fixture(form)).unwrap();
        let identity = Pki::open(files).unwrap().identity();
        assert_eq!(identity.certname().as_str(), NODE);
        assert_eq!(identity.fingerprint(), fingerprint(identity.certificate_der()));
        let signature = identity.sign(b"an event").unwrap();
        assert!(signature.starts_with(&format!("{algorithm}:")), "{signature}");
        verify_signature(identity.certificate_der(), b"an event", &signature).unwrap();
        let other = verify_signature(identity.certificate_der(), b"another event", &signature);
        assert_eq!(other, Err(Untrusted::BadSignature));
    }
}

#[test]
fn signatures_of_others_and_of_unknown_forms_do_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let mut ca = TestCa::new("puppet").unwrap();
    let [one, other] = ["web01.example.com", "web02.example.com"]
        .map(|name| Pki::open(ca.node(directory.path(), name).unwrap()).unwrap().identity());
    let signature = one.sign(b"bytes").unwrap();
    let verify = |signature: &str| verify_signature(one.certificate_der(), b"bytes", signature);
    assert_eq!(verify(&signature), Ok(()));
    assert_eq!(verify(&other.sign(b"bytes").unwrap()), Err(Untrusted::BadSignature));
    assert_eq!(verify("ecdsa_secp384r1_sha384:AAAA"), Err(Untrusted::BadSignature));
    for form in ["none:", "rsa_pkcs1_sha1:AAAA", "hmac_sha256:AAAA"] {
        assert!(matches!(verify(form), Err(Untrusted::UnknownSignature { .. })), "{form}");
    }
    for text in ["", "ecdsa_secp256r1_sha256", "ecdsa_secp256r1_sha256:%"] {
        assert!(matches!(verify(text), Err(Untrusted::UnknownSignature { .. })), "{text}");
    }
}

#[test]
fn every_failure_names_the_file_and_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let mut ca = TestCa::new("puppet").unwrap();
    let good = ca.node(directory.path(), NODE).unwrap();
    let check = |change: &dyn Fn(&TlsFiles), expected: &str| {
        let saved: Vec<_> = [&good.certificate, &good.key, &good.ca, good.crl.as_ref().unwrap()]
            .map(|path| (path, fs::read(path).unwrap()))
            .into();
        change(&good);
        assert_eq!(error(&good, directory.path()), expected);
        saved.iter().for_each(|(path, content)| fs::write(path, content).unwrap());
    };
    check(
        &|files| fs::remove_file(&files.certificate).unwrap(),
        "cannot read the certificate SSL/certs/web01.example.com.pem: No such file or directory (os error 2); this node \
         has no signed certificate yet: run `puppet ssl bootstrap` here, and sign its request on the CA with \
         `puppetserver ca sign`",
    );
    check(
        &|files| fs::write(&files.certificate, "").unwrap(),
        "the certificate SSL/certs/web01.example.com.pem cannot be used: it holds no certificate in PEM form",
    );
    check(
        &|files| fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap(),
        "the private key SSL/private_keys/web01.example.com.pem does not fit the certificate \
         SSL/certs/web01.example.com.pem: one of the two was replaced without the other; `puppet ssl verify` shows \
         whether Puppet's own files are in order",
    );
    let encrypted = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rsa-encrypted.pem");
    check(
        &|files| assert!(fs::copy(encrypted, &files.key).is_ok()),
        "the private key SSL/private_keys/web01.example.com.pem cannot be used: it is encrypted with a passphrase: store \
         it without one, readable by its owner only",
    );
    check(
        &|files| {
            fs::write(files.crl.as_ref().unwrap(), TestCa::new("puppet").unwrap().revocation_lists().unwrap())
                .unwrap()
        },
        "the revocation lists SSL/crl.pem cannot be used: it holds no revocation list of a CA in SSL/certs/ca.pem; \
         remove it and run `puppet ssl bootstrap`, which fetches the lists again",
    );
    check(
        &|files| fs::write(&files.ca, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap(),
        "the CA's certificates SSL/certs/ca.pem cannot be used: its PEM text is damaged (a section \
         has no end); get it again from the CA",
    );
    assert!(Pki::open(good.clone()).is_ok(), "the files are as they were");

    let capitals = ca.node(directory.path(), "Web01").unwrap();
    assert!(
        error(&capitals, directory.path()).starts_with(
            "the certificate SSL/certs/Web01.pem is not a Puppet node's: its common name 'Web01' is not a certname: "
        )
    );
}

#[test]
fn without_revocation_lists_a_node_is_a_client_only() {
    let directory = tempfile::tempdir().unwrap();
    let files = TestCa::new("puppet").unwrap().node(directory.path(), NODE).unwrap();
    let pki = Pki::open(TlsFiles { crl: None, ..files }).unwrap();
    assert!(pki.client_config(&[]).is_ok());
    assert!(pki.server_config(&[]).unwrap_err().to_string().contains("`[tls] crl`"));
    assert_eq!(pki.own_problem(NOW), None);
}

#[test]
fn files_are_read_again_when_they_change_and_an_incomplete_change_keeps_the_old_ones() {
    let directory = tempfile::tempdir().unwrap();
    let mut ca = TestCa::new("puppet").unwrap();
    let files = ca.node(directory.path(), NODE).unwrap();
    let pki = Pki::open(files.clone()).unwrap();
    let first = pki.identity().fingerprint();
    assert!(!pki.reload().unwrap());

    // The same text in a new file changes nothing.
    let text = fs::read(&files.certificate).unwrap();
    fs::remove_file(&files.certificate).unwrap();
    fs::write(&files.certificate, text).unwrap();
    assert!(!pki.reload().unwrap());
    assert_eq!(pki.generation(), 0);

    // Renewed, but the key is not there yet.
    let renewed = ca.issue(NODE).unwrap();
    fs::write(&files.certificate, &renewed.certificate).unwrap();
    assert!(pki.reload().unwrap_err().to_string().contains("does not fit"));
    assert!(pki.reload().is_err(), "it is reported for as long as it is so");
    assert_eq!(pki.identity().fingerprint(), first);
    fs::write(&files.key, &renewed.key).unwrap();
    assert!(pki.reload().unwrap());
    assert_ne!(pki.identity().fingerprint(), first);
    assert_eq!(pki.generation(), 1);

    // Revoked.
    assert_eq!(pki.own_problem(NOW), None);
    ca.revoke(&renewed);
    fs::write(files.crl.as_ref().unwrap(), ca.revocation_lists().unwrap()).unwrap();
    assert!(pki.reload().unwrap());
    assert!(matches!(pki.own_problem(NOW), Some(Untrusted::Revoked { .. })));
}

#[test]
fn nodes_of_a_ca_that_is_removed_from_its_file_are_trusted_no_more_and_others_are() {
    // A CA that is made again has the name of the former one.
    for name in ["former", "puppet"] {
        let directory = tempfile::tempdir().unwrap();
        let (mut former, mut ca) = (TestCa::new(name).unwrap(), TestCa::new("puppet").unwrap());
        let files = ca.node(directory.path(), NODE).unwrap();
        let lists = [&former, &ca].map(|ca| ca.revocation_lists().unwrap());
        fs::write(&files.ca, former.certificates() + &ca.certificates()).unwrap();
        fs::write(files.crl.as_ref().unwrap(), lists.concat()).unwrap();
        let pki = Pki::open(files.clone()).unwrap();
        let other = former.node(&directory.path().join("other"), "lb01.example.com").unwrap();
        let other = Pki::open(other).unwrap().identity();
        let verdict = || pki.trust().verify(other.certificate_der(), &[], NOW).map(|peer| peer.certname);
        assert_eq!(verdict(), Ok("lb01.example.com".parse().unwrap()));

        // The lists of the former CA are still there, and count no more.
        fs::write(&files.ca, ca.certificates()).unwrap();
        assert!(pki.reload().unwrap());
        let has_namesake = name == "puppet";
        assert!(
            matches!(verdict(), Err(Untrusted::UnknownIssuer { has_namesake: found, .. }) if found == has_namesake),
            "{:?}",
            verdict()
        );
        assert_eq!(pki.own_problem(NOW), None);
    }
}

#[test]
fn puppets_extensions_are_read_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut ca = TestCa::new("puppet").unwrap();
    let change = |params: &mut CertificateParams| {
        params.custom_extensions = vec![
            extension(REGISTERED_EXTENSION, 13, "loadbalancer"),
            extension(REGISTERED_EXTENSION, 99, "unnamed"),
            extension(AUTHORIZATION_EXTENSION, 13, "operator"),
            extension(AUTHORIZATION_EXTENSION, 39, "true"),
        ];
    };
    let issued = ca.issue_with(NODE, change).unwrap();
    let pki = Pki::open(ca.write(directory.path(), NODE, &issued).unwrap()).unwrap();
    let identity = pki.identity();
    let peer = pki.trust().verify(identity.certificate_der(), &[], NOW).unwrap();
    assert_eq!(peer.certname.as_str(), NODE);
    assert_eq!(peer.fingerprint, identity.fingerprint());
    assert_eq!(peer.not_after, identity.not_after());
    assert_eq!(peer.extensions.get("pp_role"), Some("loadbalancer"));
    assert_eq!(peer.extensions.get("1.3.6.1.4.1.34380.1.1.13"), Some("loadbalancer"));
    let all: Vec<_> = peer.extensions.iter().collect();
    assert_eq!(
        all,
        [
            ("1.3.6.1.4.1.34380.1.1.99", "unnamed"),
            ("pp_auth_role", "operator"),
            ("pp_cli_auth", "true"),
            ("pp_role", "loadbalancer"),
        ]
    );
}

#[test]
fn a_shared_key_is_its_owners_and_signs_for_those_who_have_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let key = SharedKey::generate(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(SharedKey::generate(&path).unwrap_err().to_string().contains("File exists"));
    let signature = key.sign(b"bytes");
    let same = SharedKey::open(&path).unwrap();
    assert!(same.verify(b"bytes", &signature));
    assert!(!same.verify(b"other bytes", &signature));
    assert!(!SharedKey::from_bytes(&[0; 32]).verify(b"bytes", &signature));
    assert!(!same.verify(b"bytes", &signature.replace("hmac_sha256", "hmac_sha1")));

    for (mode, shown) in [(0o604, "0604"), (0o602, "0602"), (0o620, "0620"), (0o644, "0644"), (0o601, "0601")]
    {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let refused = SharedKey::open(&path).unwrap_err().to_string();
        let expected =
            format!("its mode {shown} lets others read it, or its group write it: `chmod 0600` it");
        assert!(refused.contains(&expected), "{refused}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert!(SharedKey::open(&path).is_ok());
    fs::write(&path, "short").unwrap();
    assert!(SharedKey::open(&path).unwrap_err().to_string().contains("trigger keygen"));
}
