//! Who a node is: its certificate and its private key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use trigger_core::certificate::Fingerprint;
use trigger_core::identity::Certname;
use trigger_core::time::Timestamp;

use crate::certificate::{certname, parse, timestamp};
use crate::error::{FileKind, PkiError};
use crate::files::{self, unusable};
use crate::fingerprint::fingerprint;
use crate::signature::{self, SCHEMES};

/// How long before it expires a certificate is reported.
const EXPIRY_NOTICE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The identity that a node proves, as its files said when they were read.
pub struct Identity {
    certname: Certname,
    fingerprint: Fingerprint,
    not_before: Timestamp,
    not_after: Timestamp,
    key_path: PathBuf,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads certificate and key from the contents of their files.
    pub(crate) fn read(
        (certificate, certificate_pem): (&Path, &[u8]),
        (key, key_pem): (&Path, &[u8]),
    ) -> Result<Self, PkiError> {
        let chain = files::certificates(FileKind::Certificate, certificate, certificate_pem)?;
        let private = files::private_key(key, key_pem)?;
        let leaf = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let parsed =
            parse(&leaf).map_err(|error| unusable(FileKind::Certificate, certificate, error.to_string()))?;
        let certname = certname(&parsed)
            .map_err(|reason| PkiError::NotACertname { path: certificate.to_owned(), reason })?;
        let signing_key = any_supported_type(&private).map_err(|error| {
            let reason = format!(
                "it is of a kind that this program does not know ({error}): RSA keys of 2048 to 4096 bits and EC keys \
                 on the curves P-256 and P-384 work"
            );
            unusable(FileKind::Key, key, reason)
        })?;
        let (not_before, not_after) =
            (timestamp(parsed.validity().not_before), timestamp(parsed.validity().not_after));
        drop(parsed);
        let certified = CertifiedKey::new(chain, signing_key);
        certified.keys_match().map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                PkiError::KeyMismatch { key: key.to_owned(), certificate: certificate.to_owned() }
            }
            error => unusable(FileKind::Certificate, certificate, error.to_string()),
        })?;
        Ok(Self {
            certname,
            fingerprint: fingerprint(&leaf),
            not_before,
            not_after,
            key_path: key.to_owned(),
            certified: Arc::new(certified),
        })
    }

    /// The certname in the certificate.
    pub fn certname(&self) -> &Certname {
        &self.certname
    }

    /// The certificate in DER form.
    pub fn certificate_der(&self) -> &[u8] {
        self.chain().first().map_or(&[], |leaf| leaf.as_ref())
    }

    /// The certificate, and the intermediate ones that follow it in its file.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The fingerprint of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// From when the certificate is valid.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Until when the certificate is valid.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether that is within the next two weeks. Puppet itself renews a certificate in its last two months, where it does.
    pub fn expires_soon(&self, now: Timestamp) -> bool {
        now <= self.not_after() && self.not_after() < now.plus(EXPIRY_NOTICE)
    }

    /// Whether a signature takes several milliseconds: with RSA it takes a hundred times as long as with EC keys.
    pub fn signs_slowly(&self) -> bool {
        self.certified.key.algorithm() == SignatureAlgorithm::RSA
    }

    /// Signs bytes with the private key. The signature is a text of its algorithm and base64, for
    /// [`crate::verify_signature`].
    ///
    /// # Errors
    /// [`PkiError::Sign`] if ring refuses.
    pub fn sign(&self, bytes: &[u8]) -> Result<String, PkiError> {
        let failed = |reason: String| PkiError::Sign { key: self.key_path.clone(), reason };
        let schemes: Vec<SignatureScheme> = SCHEMES.iter().map(|(_, scheme)| *scheme).collect();
        let signer = self
            .certified
            .key
            .choose_scheme(&schemes)
            .ok_or_else(|| failed("keys of its kind do not sign".to_owned()))?;
        let algorithm = SCHEMES.iter().find(|(_, scheme)| *scheme == signer.scheme()).map(|(name, _)| *name);
        let algorithm = algorithm.ok_or_else(|| failed("its algorithm has no name here".to_owned()))?;
        let signature = signer.sign(bytes).map_err(|error| failed(error.to_string()))?;
        Ok(signature::to_text(algorithm, &signature))
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certname", &self.certname)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}
