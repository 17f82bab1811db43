//! Certificates, their extensions, signatures, keys, the files that hold them, and what is sealed.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;

use trigger_core::certificate::Fingerprint;
use trigger_core::run_log::SEAL_BYTES;
use trigger_core::time::Timestamp;
use trigger_pki::testing::TestCa;
use trigger_pki::{
    OpeningKey, Pki, PkiError, Sealed, SharedKey, TlsFiles, TrustedExtensions, seal, verify_signature,
};

use crate::scratch::Scratch;

/// The first byte says as what the rest is read.
pub(crate) fn certificates(data: &[u8]) {
    static NODE: OnceLock<Node> = OnceLock::new();
    let node = NODE.get_or_init(Node::new);
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 9 {
        0 => node.trusts_nothing_else(data),
        1 => drop(TrustedExtensions::unverified(data)),
        2 => node.signature(data),
        3 => node.reads(|files, path| files.ca = path, data),
        4 => node.reads(|files, path| files.crl = Some(path), data),
        5 => node.reads(|files, path| files.certificate = path, data),
        6 => node.reads(|files, path| files.key = path, data),
        7 => node.shared_key(data),
        _ => sealed(data),
    }
}

/// Bytes that were sealed to no key are opened by none, and a key of another node, whatever it is, seals or is refused.
fn sealed(data: &[u8]) {
    let Some((key, bytes)) = data.split_first_chunk::<32>() else { return };
    let reader = OpeningKey::generate().expect("a key");
    let foreign = Sealed { key: *key, bytes: bytes.to_vec() };
    assert!(reader.open(&foreign).is_err(), "bytes that were not sealed are opened");
    if let Ok(sealed) = seal(key, bytes.to_vec()) {
        assert_eq!(sealed.bytes.len(), bytes.len() + SEAL_BYTES);
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
            is_one_line(&error);
        }
    }

    /// A key that is read signs what it verifies.
    fn shared_key(&self, data: &[u8]) {
        let path = self.scratch.write(&format!("{:?}.key", std::thread::current().id()), data);
        set_permissions(&path, Permissions::from_mode(0o600)).expect("a file of its owner");
        match SharedKey::open(&path) {
            Ok(key) => assert!(key.verify(b"text", &key.sign(b"text")), "its own signature is good"),
            Err(error) => is_one_line(&error),
        }
    }
}

fn is_one_line(error: &PkiError) {
    assert!(!error.to_string().contains(char::is_control), "an error is one line");
}
