//! Certificates, their extensions, signatures, and the PEM files that hold them.

use std::sync::OnceLock;

use trigger_core::certificate::Fingerprint;
use trigger_core::time::Timestamp;
use trigger_pki::testing::TestCa;
use trigger_pki::{Pki, SharedKey, TlsFiles, TrustedExtensions, verify_signature};

use crate::scratch::Scratch;

/// The first byte says as what the rest is read.
pub(crate) fn certificates(data: &[u8]) {
    static NODE: OnceLock<Node> = OnceLock::new();
    let node = NODE.get_or_init(Node::new);
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 6 {
        0 => node.trusts_nothing_else(data),
        1 => drop(TrustedExtensions::unverified(data)),
        2 => node.signature(data),
        3 => node.reads(|files, path| files.ca = path, data),
        4 => node.reads(|files, path| files.crl = Some(path), data),
        _ => node.reads(|files, path| files.certificate = path, data),
    }
}

struct Node {
    scratch: Scratch,
    files: TlsFiles,
    pki: Pki,
    shared: SharedKey,
}

impl Node {
    fn new() -> Self {
        let scratch = Scratch::new();
        let mut ca = TestCa::new("fuzz").expect("a CA");
        let files = ca.node(&scratch.path(""), "a.example.com").expect("a node's files");
        let pki = Pki::open(files.clone()).expect("a node's certificates");
        Self { scratch, files, pki, shared: SharedKey::from_bytes(&[7; 32]) }
    }

    /// A certificate that this CA did not issue is refused: its keys are made anew in each process.
    fn trusts_nothing_else(&self, data: &[u8]) {
        let now = Timestamp::from_unix_ms(1_800_000_000_000);
        assert!(self.pki.trust().verify(data, &[], now).is_err(), "a foreign certificate is trusted");
    }

    fn signature(&self, data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        let identity = self.pki.identity();
        assert!(
            verify_signature(identity.certificate_der(), data, &text).is_err(),
            "a forged signature is good"
        );
        assert!(verify_signature(data, b"text", &text).is_err(), "a signature of nobody is good");
        assert!(!self.shared.verify(data, &text), "a forged signature by a shared key is good");
        if let Ok(fingerprint) = text.parse::<Fingerprint>() {
            assert_eq!(fingerprint.to_string(), text);
        }
    }

    /// Replaces one file of the node by the data.
    fn reads(&self, replace: impl Fn(&mut TlsFiles, std::path::PathBuf), data: &[u8]) {
        let mut files = self.files.clone();
        replace(&mut files, self.scratch.write(&format!("{:?}.pem", std::thread::current().id()), data));
        if let Err(error) = Pki::open(files) {
            assert!(!error.to_string().contains(char::is_control), "an error is one line");
        }
    }
}
