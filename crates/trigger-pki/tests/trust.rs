//! Who is trusted, and what is said of those who are not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expects")]

use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use trigger_core::time::Timestamp;
use trigger_pki::testing::{Issued, TestCa};
use trigger_pki::{Pki, TlsFiles};

/// In 2027.
const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

struct Site {
    directory: tempfile::TempDir,
    ca: TestCa,
    files: TlsFiles,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut ca = TestCa::new("puppet").unwrap();
        let files = ca.node(directory.path(), "hub.example.com").unwrap();
        Self { directory, ca, files }
    }

    fn crl(&self) -> &Path {
        self.files.crl.as_deref().unwrap()
    }

    /// What this site says of a certificate: the certname, or the sentence.
    fn verdict(&self, issued: &Issued) -> String {
        let other = tempfile::tempdir().unwrap();
        let files = self.ca.write(other.path(), "other", issued).unwrap();
        let der = Pki::open(files).unwrap().identity().certificate_der().to_vec();
        match Pki::open(self.files.clone()).unwrap().trust().verify(&der, &[], NOW) {
            Ok(peer) => peer.certname.to_string(),
            Err(untrusted) => untrusted.to_string().replace(self.directory.path().to_str().unwrap(), "SSL"),
        }
    }
}

#[test]
fn a_certificate_of_the_ca_is_trusted_with_the_ca_file_in_either_order() {
    let mut site = Site::new();
    let issued = site.ca.issue("web01.example.com").unwrap();
    assert_eq!(site.verdict(&issued), "web01.example.com");
    let pem = site.ca.certificates();
    let (intermediate, root) = pem.split_at(pem.rfind("-----BEGIN").unwrap());
    fs::write(&site.files.ca, format!("{root}{intermediate}")).unwrap();
    assert_eq!(site.verdict(&issued), "web01.example.com");
    // The intermediate alone is an anchor too.
    fs::write(&site.files.ca, intermediate).unwrap();
    assert_eq!(site.verdict(&issued), "web01.example.com");
    // The root alone cannot complete the chain of a node that presents its own certificate only.
    fs::write(&site.files.ca, root).unwrap();
    assert!(site.verdict(&issued).contains("issued by Puppet CA: puppet, which is not among the CAs in"));
}

#[test]
fn either_purpose_suffices_and_another_one_does_not() {
    let mut site = Site::new();
    for purpose in [ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth] {
        let issued =
            site.ca.issue_with("web01", |params| params.extended_key_usages = vec![purpose]).unwrap();
        assert_eq!(site.verdict(&issued), "web01");
    }
    let change = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    };
    let issued = site.ca.issue_with("web01", change).unwrap();
    assert!(site.verdict(&issued).contains("may not be used to prove the identity of a node"));
}

#[test]
fn a_foreign_ca_is_named_and_a_new_one_of_the_same_name_is_told_apart() {
    let site = Site::new();
    let issued = TestCa::new("elsewhere").unwrap().issue("web01").unwrap();
    assert_eq!(
        site.verdict(&issued),
        "the certificate of web01 was issued by Puppet CA: elsewhere, which is not among the CAs in SSL/certs/ca.pem: \
         both ends need certificates of one CA; compare the file with the CA's own, and renew the certificates of a CA \
         that was replaced"
    );
    let issued = TestCa::new("puppet").unwrap().issue("web01").unwrap();
    assert!(site.verdict(&issued).contains("which has the name of a CA in SSL/certs/ca.pem and another key"));
}

#[test]
fn clocks_count_and_the_sentence_has_both_times() {
    let mut site = Site::new();
    let issued = site.ca.issue_with("web01", |params| params.not_after = date_time_ymd(2025, 3, 1)).unwrap();
    assert_eq!(
        site.verdict(&issued),
        "the certificate of web01 expired at 2025-03-01 00:00:00 UTC, and the clock of this machine says 2027-01-15 \
         08:00:00 UTC: renew the certificate, or set the clock"
    );
    let issued = site.ca.issue_with("web01", |params| params.not_before = date_time_ymd(2030, 3, 1)).unwrap();
    assert_eq!(
        site.verdict(&issued),
        "the certificate of web01 is valid from 2030-03-01 00:00:00 UTC, and the clock of this machine says 2027-01-15 \
         08:00:00 UTC: set the clock here, or that of the CA if it signed with a wrong one"
    );
}

#[test]
fn a_revoked_certificate_is_refused_also_beside_an_older_list() {
    let mut site = Site::new();
    let issued = site.ca.issue("web01").unwrap();
    let (old, root) = (site.ca.issued_list().unwrap(), site.ca.root_list().unwrap());
    site.ca.revoke(&issued);
    let new = site.ca.issued_list().unwrap();
    for lists in [format!("{old}{new}{root}"), format!("{root}{new}{old}")] {
        fs::write(site.crl(), lists).unwrap();
        assert_eq!(
            site.verdict(&issued),
            "the certificate of web01 is revoked, as the lists in SSL/crl.pem say: a node that shall take part again \
             needs a new certificate (`puppet ssl clean` and `puppet ssl bootstrap` there)"
        );
    }
    // A list of a CA that has the same name does not count, whatever its number.
    let mut other = TestCa::new("puppet").unwrap();
    let others = other.issue("web02").unwrap();
    (0..3).for_each(|_| other.revoke(&others));
    for lists in [
        format!("{}{new}{root}", other.issued_list().unwrap()),
        format!("{new}{}{root}", other.issued_list().unwrap()),
    ] {
        fs::write(site.crl(), lists).unwrap();
        assert!(site.verdict(&issued).contains("is revoked"));
    }
}

/// Proves C13: a CA that was made again under its old name has lists of its own.
#[test]
fn of_two_cas_with_one_name_each_has_its_own_list() {
    let mut site = Site::new();
    let mut remade = TestCa::new("puppet").unwrap();
    let (old, new) = (site.ca.issue("web01").unwrap(), remade.issue("web02").unwrap());
    let bundle = format!("{}{}", site.ca.certificates(), remade.certificates());
    fs::write(&site.files.ca, bundle).unwrap();
    let verdicts = |site: &Site, remade: &TestCa| {
        let (ours, theirs) = (site.ca.revocation_lists().unwrap(), remade.revocation_lists().unwrap());
        let orders = [format!("{ours}{theirs}"), format!("{theirs}{ours}")];
        orders.map(|lists| {
            fs::write(site.crl(), lists).unwrap();
            [site.verdict(&old), site.verdict(&new)]
                .map(|verdict| if verdict.contains("is revoked") { "revoked".to_owned() } else { verdict })
        })
    };
    assert_eq!(verdicts(&site, &remade), [["web01", "web02"], ["web01", "web02"]]);
    // Both certificates may have one serial number. The newer list of one CA says nothing of the other's.
    remade.revoke(&new);
    assert_eq!(verdicts(&site, &remade), [["web01", "revoked"], ["web01", "revoked"]]);
    site.ca.revoke(&old);
    assert_eq!(verdicts(&site, &remade), [["revoked", "revoked"], ["revoked", "revoked"]]);
    // Without the list of its own CA, a certificate is not trusted.
    fs::write(site.crl(), site.ca.revocation_lists().unwrap()).unwrap();
    assert!(site.verdict(&new).contains("has no revocation list by which"), "{}", site.verdict(&new));
}

#[test]
fn lists_from_a_second_file_count_where_they_are_newer() {
    let mut site = Site::new();
    let issued = site.ca.issue("web01").unwrap();
    let der = {
        let other = tempfile::tempdir().unwrap();
        let files = site.ca.write(other.path(), "other", &issued).unwrap();
        Pki::open(files).unwrap().identity().certificate_der().to_vec()
    };
    let more = site.directory.path().join("fetched.pem");
    let pki = Pki::open_with_more_lists(site.files.clone(), vec![more.clone()]).unwrap();
    let trust = pki.trust();
    assert!(trust.verify(&der, &[], NOW).is_ok());

    let old = site.ca.issued_list().unwrap();
    site.ca.revoke(&issued);
    let new = site.ca.issued_list().unwrap();
    assert!(trust.has_newer_lists(&more, new.as_bytes()).unwrap());
    assert!(!trust.has_newer_lists(&more, old.as_bytes()).unwrap());
    let foreign = TestCa::new("puppet").unwrap().issued_list().unwrap();
    assert!(trust.has_newer_lists(&more, foreign.as_bytes()).is_err());

    fs::write(&more, new).unwrap();
    assert!(pki.reload().unwrap());
    assert!(pki.trust().verify(&der, &[], NOW).is_err());
    assert!(!pki.trust().has_newer_lists(&more, old.as_bytes()).unwrap());
}

#[test]
fn a_revoked_intermediate_and_a_missing_list_are_refused() {
    let mut site = Site::new();
    let issued = site.ca.issue("web01").unwrap();
    let lists =
        format!("{}{}", site.ca.issued_list().unwrap(), site.ca.root_list_without_intermediate().unwrap());
    fs::write(site.crl(), lists).unwrap();
    assert!(site.verdict(&issued).contains("is revoked"));
    fs::write(site.crl(), site.ca.root_list().unwrap()).unwrap();
    assert_eq!(
        site.verdict(&issued),
        "SSL/crl.pem has no revocation list by which the certificate of web01 can be checked (issued by Puppet CA: \
         puppet): remove the file and run `puppet ssl bootstrap`, which fetches the lists of all CAs again"
    );
}

#[test]
fn a_stale_list_still_counts_and_is_reported() {
    let mut site = Site::new();
    let issued = site.ca.issue("web01").unwrap();
    fs::write(site.crl(), format!("{}{}", site.ca.stale_list().unwrap(), site.ca.root_list().unwrap()))
        .unwrap();
    assert_eq!(site.verdict(&issued), "web01");
    let stale = Pki::open(site.files.clone()).unwrap().trust().stale_lists(NOW);
    let texts: Vec<_> = stale.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "the revocation list of Puppet CA: puppet is out of date since 2021-01-01 00:00:00 UTC: it still counts, but \
          what was revoked later is not known here; fetch the CA's lists again"
        ]
    );
}

#[test]
fn a_name_that_is_no_certname_is_refused_and_cleaned() {
    let mut site = Site::new();
    let der = |params: &CertificateParams| {
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    };
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "evil\u{1b}[31m\n");
    let verdict = Pki::open(site.files.clone()).unwrap().trust().verify(&der(&params), &[], NOW).unwrap_err();
    assert!(!verdict.to_string().contains(['\u{1b}', '\n']), "{verdict}");

    let change = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::CommonName, "Web01");
    };
    let issued = site.ca.issue_with("web01", change).unwrap();
    let pem = issued.certificate.as_bytes();
    let der = CertificateDer::from_pem_slice(pem).unwrap();
    let verdict = Pki::open(site.files.clone()).unwrap().trust().verify(&der, &[], NOW).unwrap_err();
    let expected = "the certificate is not a Puppet node's: its common name 'Web01' is not a certname: ";
    assert!(verdict.to_string().starts_with(expected), "{verdict}");
    assert!(Pki::open(site.files.clone()).unwrap().trust().verify(b"no certificate", &[], NOW).is_err());
}
