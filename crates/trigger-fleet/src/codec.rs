//! Between values and the text that a backend stores: encoding and decoding, signing and verifying. No other module does
//! any of these.
//!
//! Events' parts, members, outcomes and run histories are signed. Deliveries are not: they only point at a part, whose
//! signed list of targets decides. Registrations, notes of sweeps and certificates are not signed either; a certificate
//! proves itself.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trigger_core::certificate::{CertificateRef, Fingerprint, StoredCertificate};
use trigger_core::identity::Certname;
use trigger_core::signature::{Admission, Authors, Finding, admit};
use trigger_core::signer::Signer;
use trigger_core::time::Timestamp;
use trigger_core::wire::{Envelope, Signature, Stored, WireError};
use trigger_pki::{LazyPki, Pki, SharedKey};

use crate::certificates::Certificates;

/// With what a node signs and verifies.
#[derive(Clone)]
pub enum Means {
    /// The key that all nodes of a fleet without a CA share. Whoever has it can sign for each of them.
    SharedKey(SharedKey),
    /// The node's certificate and key, and those whom it trusts.
    Certificates {
        /// The node's files, which may not be there yet.
        certificates: LazyPki,
        /// The clock by which certificates are valid. It is a function because nothing here reads a clock.
        clock: Clock,
    },
}

/// Returns the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

impl fmt::Debug for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SharedKey(_) => "SharedKey",
            Self::Certificates { .. } => "Certificates",
        })
    }
}

/// A value cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The key of this node cannot sign for another one.
    #[error(
        "{author} cannot sign here: this node's certificate is for {own}; let its certname be that of its certificate"
    )]
    OtherAuthor {
        /// Whose value it is.
        author: Certname,
        /// The certname in the certificate.
        own: Certname,
    },
    /// The key does not sign.
    #[error("{0}")]
    Failed(String),
}

/// What was found of a stored value.
#[derive(Debug)]
pub(crate) enum Opened<T> {
    /// It counts.
    Accepted {
        value: T,
        /// The node that signed it, where that is known.
        by: Option<Certname>,
        signer: Signer,
    },
    /// It does not count, and never will.
    Refused(String),
    /// It does not count yet.
    Waits(String),
}

/// Encodes and decodes stored values, signs and verifies them. Clones share what they know of certificates.
#[derive(Debug, Clone, Default)]
pub struct Codec {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    means: Option<Means>,
    is_required: bool,
    certificates: Mutex<Certificates>,
    /// The certificates of this node that are stored, each with its place: a backend and a prefix there.
    announced: Mutex<HashSet<(String, Fingerprint)>>,
}

impl Codec {
    /// A codec that signs with `means`, and refuses what is not signed if signatures are required. The default one neither
    /// signs nor verifies, and takes everything as it is written.
    pub fn signing(means: Means, is_required: bool) -> Self {
        Self { inner: Arc::new(Inner { means: Some(means), is_required, ..Inner::default() }) }
    }

    /// Whether values without a right signature are refused.
    pub fn requires_signatures(&self) -> bool {
        self.inner.is_required
    }

    /// The node in whose name values are signed; absent where they are not, or with a shared key.
    pub fn certname(&self) -> Option<Certname> {
        match &self.inner.means {
            Some(Means::Certificates { certificates, .. }) => {
                Some(certificates.get().ok()?.identity().certname().clone())
            }
            _ => None,
        }
    }

    /// Whether values are signed with this node's certificate.
    pub fn uses_certificates(&self) -> bool {
        matches!(&self.inner.means, Some(Means::Certificates { .. }))
    }

    /// The text to store, without a signature: the value as the body of an envelope.
    pub fn encode<T: Stored>(&self, value: &T) -> String {
        value.to_wire()
    }

    /// The text to store under `key`, the whole key, signed by `author` if this codec signs.
    ///
    /// # Errors
    /// [`SigningError`] if the key is that of another node, or does not sign.
    pub fn encode_signed<T: Stored>(
        &self,
        key: &str,
        value: &T,
        author: &Certname,
    ) -> Result<String, SigningError> {
        let envelope = Envelope::of(value);
        let signature = match &self.inner.means {
            None => return Ok(envelope.to_string()),
            Some(Means::SharedKey(shared)) => {
                Signature { text: shared.sign(&envelope.signed_bytes(key)), certificate: None }
            }
            Some(Means::Certificates { certificates, .. }) => {
                let pki = certificates.get().map_err(|error| SigningError::Failed(error.to_string()))?;
                let identity = pki.identity();
                self.check_author(author)?;
                let text = identity
                    .sign(&envelope.signed_bytes(key))
                    .map_err(|error| SigningError::Failed(error.to_string()))?;
                let fingerprint = Fingerprint::from_digest(*identity.fingerprint().as_bytes());
                let certificate = CertificateRef { certname: author.clone(), fingerprint };
                Signature { text, certificate: Some(certificate) }
            }
        };
        Ok(envelope.signed(signature).to_string())
    }

    /// Whether values of `author` can be signed here.
    ///
    /// # Errors
    /// [`SigningError::OtherAuthor`] if this node's certificate is another node's.
    pub fn check_author(&self, author: &Certname) -> Result<(), SigningError> {
        match self.certname() {
            Some(own) if own != *author => Err(SigningError::OtherAuthor { author: author.clone(), own }),
            _ => Ok(()),
        }
    }

    /// The value that a text was made from. Does not look at its signature.
    ///
    /// # Errors
    /// [`WireError::TooNew`] for the text of a newer version of Trigger, [`WireError::Unreadable`] for any other text:
    /// a backend may hold anything.
    pub fn decode<T: Stored>(&self, text: &str) -> Result<T, WireError> {
        T::from_wire(text)
    }

    /// The value that a text under `key` was made from, if its signature lets it count. `authors` says who may have signed
    /// the value. The certificate has to be known: see [`Self::wanted_certificates`].
    ///
    /// # Errors
    /// Those of [`Self::decode`].
    pub(crate) fn open<T: Stored>(
        &self,
        key: &str,
        text: &str,
        authors: impl FnOnce(&T) -> Authors,
    ) -> Result<Opened<T>, WireError> {
        let envelope = Envelope::parse::<T>(text)?;
        let finding = self.verify(key, &envelope);
        // A signature that is wrong says enough: nothing is parsed then.
        if let Finding::Wrong(why) = finding {
            return Ok(Opened::Refused(why));
        }
        let value: T = envelope.open()?;
        Ok(match admit(self.inner.is_required, &authors(&value), finding) {
            Admission::Accepted { by, signer } => Opened::Accepted { value, by, signer },
            Admission::Refused(why) => Opened::Refused(why),
            Admission::Waits(why) => Opened::Waits(why),
        })
    }

    /// The certificates that have to be read before texts can be verified. What these need is kept until others are
    /// asked for.
    pub(crate) fn wanted_certificates<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Vec<CertificateRef> {
        let Some(Means::Certificates { .. }) = &self.inner.means else { return Vec::new() };
        let needed: BTreeSet<CertificateRef> =
            texts.into_iter().filter_map(|text| Envelope::reference(text)?.parse().ok()).collect();
        self.certificates().make_room(needed)
    }

    /// Takes in a certificate that was read from the backend.
    pub(crate) fn learn(&self, reference: CertificateRef, certificate: StoredCertificate) {
        self.certificates().learn(reference, certificate);
    }

    /// This node's certificate, unless it has been [announced](Self::announced) at a place.
    pub(crate) fn unannounced(&self, place: &str) -> Option<(CertificateRef, StoredCertificate)> {
        let Some(Means::Certificates { certificates, .. }) = &self.inner.means else { return None };
        let identity = certificates.get().ok()?.identity();
        let fingerprint = Fingerprint::from_digest(*identity.fingerprint().as_bytes());
        if lock(&self.inner.announced).contains(&(place.to_owned(), fingerprint)) {
            return None;
        }
        let intermediates = identity.chain().iter().skip(1).map(|der| der.to_vec()).collect();
        let certificate = identity.certificate_der().to_vec();
        let reference = CertificateRef { certname: identity.certname().clone(), fingerprint };
        Some((reference, StoredCertificate { certificate, intermediates }))
    }

    /// Notes that this node's certificate is stored at a place.
    pub(crate) fn announced(&self, place: String, fingerprint: Fingerprint) {
        lock(&self.inner.announced).insert((place, fingerprint));
    }

    /// Forgets what is stored at a place: the backend may have been replaced.
    pub(crate) fn forget_announced(&self, place: &str) {
        lock(&self.inner.announced).retain(|(known, _)| known != place);
    }

    fn certificates(&self) -> MutexGuard<'_, Certificates> {
        lock(&self.inner.certificates)
    }

    fn verify(&self, key: &str, envelope: &Envelope) -> Finding {
        let Some(signature) = envelope.signature() else { return Finding::Unsigned };
        match &self.inner.means {
            None => Finding::Unchecked("this node has no means to verify signatures".to_owned()),
            Some(Means::SharedKey(_)) if envelope.certificate().is_some() => Finding::Unchecked(
                "it is signed with a node's certificate, and this node verifies with a shared key (setting shared_key)"
                    .to_owned(),
            ),
            Some(Means::SharedKey(shared)) => {
                if shared.verify(&envelope.signed_bytes(key), signature) {
                    Finding::Signed { by: None, signer: Signer::SharedKey }
                } else {
                    Finding::Wrong(
                        "its signature does not fit: it was made over other data or for another key of the backend, or \
                         with another shared key than this node's"
                            .to_owned(),
                    )
                }
            }
            Some(Means::Certificates { certificates, clock }) => match envelope.certificate() {
                None => Finding::Unchecked(
                    "it is signed with a shared key, and this node verifies with Puppet's certificates".to_owned(),
                ),
                Some(reference) => {
                    let reference = match reference.parse() {
                        Ok(reference) => reference,
                        Err(error) => return Finding::Wrong(format!("what it names as certificate is {error}")),
                    };
                    let pki: Pki = match certificates.get() {
                        Ok(pki) => pki,
                        Err(error) => return Finding::Unknown(error.to_string()),
                    };
                    let bytes = envelope.signed_bytes(key);
                    self.certificates().verify(&pki, clock(), &reference, &bytes, signature)
                }
            },
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
