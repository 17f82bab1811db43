//! Between values and the text that a backend stores: encoding and decoding, signing and verifying. No other module does
//! any of these.
//!
//! Events' parts, members, cancellations, outcomes, run histories, orders to hold nodes, and requests and answers for the output of runs are
//! signed. Deliveries are not: they only point at a part, whose
//! signed list of targets decides. Registrations, notes of sweeps and certificates are not signed either; a certificate
//! proves itself.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::task::yield_now;
use trigger_core::certificate::{CertificateRef, Fingerprint, StoredCertificate};
use trigger_core::identity::Certname;
use trigger_core::signature::{Admission, Authors, Finding, admit};
use trigger_core::signer::Signer;
use trigger_core::time::Timestamp;
use trigger_core::wire::{Envelope, Signature, Stored, WireError};
use trigger_pki::{Identity, LazyPki, Pki, PkiError, SharedKey, Untrusted};

use crate::certificates::{Cache, Certificates, lock};

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
    /// The key does not sign, or what it signed now would be refused for good.
    #[error("{0}")]
    Failed(String),
}

/// What the values of one write are signed with. It stays the same for all of them, with the certificate that is stored
/// beside them, though the node's key be renewed meanwhile.
#[derive(Debug, Clone)]
pub(crate) enum SigningKey {
    None,
    Shared(SharedKey),
    Certificate(Arc<Identity>, Option<Aside>),
}

/// Makes a signature that takes milliseconds beside what else its program does.
#[derive(Clone)]
pub(crate) struct Aside(Arc<dyn Fn(SigningWork) -> BoxFuture<'static, Signed> + Send + Sync>);

/// Makes a signature.
pub type SigningWork = Box<dyn FnOnce() -> Signed + Send>;

/// A signature as a text, or why there is none.
pub type Signed = Result<String, PkiError>;

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aside")
    }
}

impl SigningKey {
    /// The text to store under `key`, the whole key, with a signature.
    pub(crate) async fn encode<T: Stored>(&self, key: &str, value: &T) -> Result<String, SigningError> {
        let envelope = Envelope::of(value);
        let signature = match self {
            Self::None => return Ok(envelope.to_string()),
            Self::Shared(shared) => {
                Signature { text: shared.sign(&envelope.signed_bytes(key)), certificate: None }
            }
            Self::Certificate(identity, aside) => {
                let text = sign(identity, aside.as_ref(), envelope.signed_bytes(key)).await;
                let text = text.map_err(|error| SigningError::Failed(error.to_string()))?;
                Signature { text, certificate: Some(reference(identity)) }
            }
        };
        Ok(envelope.signed(signature).to_string())
    }

    /// The certificate that readers need, with its place among the others.
    pub(crate) fn certificate(&self) -> Option<(CertificateRef, StoredCertificate)> {
        let Self::Certificate(identity, _) = self else { return None };
        let intermediates = identity.chain().iter().skip(1).map(|der| der.to_vec()).collect();
        let certificate = identity.certificate_der().to_vec();
        Some((reference(identity), StoredCertificate { certificate, intermediates }))
    }
}

/// Large values need hundreds of signatures, so that other tasks have a turn in between.
async fn sign(identity: &Arc<Identity>, aside: Option<&Aside>, bytes: Vec<u8>) -> Signed {
    match aside {
        Some(Aside(run)) if identity.signs_slowly() => {
            let identity = Arc::clone(identity);
            run(Box::new(move || identity.sign(&bytes))).await
        }
        _ => {
            let signed = identity.sign(&bytes);
            yield_now().await;
            signed
        }
    }
}

fn reference(identity: &Identity) -> CertificateRef {
    CertificateRef { certname: identity.certname().clone(), fingerprint: identity.fingerprint() }
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
    /// It may be shown, with the sentence, and decides nothing.
    Outdated {
        value: T,
        /// The node that signed it.
        by: Certname,
        why: String,
    },
    /// It does not count, and never will.
    Refused(String),
    /// It does not count yet.
    Waits(String),
}

impl Means {
    /// Checks that there is something to sign and verify with.
    ///
    /// # Errors
    /// What is wrong with the node's certificates.
    pub fn check(&self) -> Result<(), PkiError> {
        match self {
            Self::Certificates { certificates, .. } => certificates.get().map(drop),
            Self::SharedKey(_) => Ok(()),
        }
    }
}

/// Encodes and decodes stored values, signs and verifies them. Clones share what they know of certificates.
#[derive(Debug, Clone, Default)]
pub struct Codec {
    inner: Arc<Inner>,
    aside: Option<Aside>,
}

#[derive(Debug, Default)]
struct Inner {
    means: Option<Means>,
    is_required: bool,
    cache: Mutex<Cache>,
    /// The certificate of this node that is stored at a place: a backend and a prefix there.
    announced: Mutex<HashMap<String, Fingerprint>>,
    /// The trust by which this node's own certificate was found to be good.
    own_is_trusted: Mutex<Option<OwnTrust>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OwnTrust {
    generation: u64,
    until: Timestamp,
}

impl Codec {
    /// A codec that signs with `means`, and refuses what is not signed if signatures are required. The default one neither
    /// signs nor verifies, and takes everything as it is written.
    pub fn signing(means: Means, is_required: bool) -> Self {
        Self { inner: Arc::new(Inner { means: Some(means), is_required, ..Inner::default() }), aside: None }
    }

    /// The same for a program that has something else to do while a slow signature is made, as `run` makes it.
    #[must_use]
    pub fn signing_aside(
        self,
        run: impl Fn(SigningWork) -> BoxFuture<'static, Signed> + Send + Sync + 'static,
    ) -> Self {
        Self { aside: Some(Aside(Arc::new(run))), ..self }
    }

    /// Whether values without a right signature are refused.
    pub fn requires_signatures(&self) -> bool {
        self.inner.is_required
    }

    /// Whether values are signed.
    pub fn signs(&self) -> bool {
        self.inner.means.is_some()
    }

    /// Whether values are signed with this node's certificate.
    pub fn uses_certificates(&self) -> bool {
        matches!(&self.inner.means, Some(Means::Certificates { .. }))
    }

    /// The text to store, without a signature: the value as the body of an envelope.
    pub fn encode<T: Stored>(&self, value: &T) -> String {
        value.to_wire()
    }

    /// What values of `author` are signed with.
    ///
    /// # Errors
    /// [`SigningError`] if the key is that of another node, cannot be read, or is of a certificate that has expired or was
    /// revoked: what it signs would be refused everywhere, for good.
    pub(crate) fn signing_key(&self, author: &Certname) -> Result<SigningKey, SigningError> {
        let (certificates, clock) = match &self.inner.means {
            None => return Ok(SigningKey::None),
            Some(Means::SharedKey(shared)) => return Ok(SigningKey::Shared(shared.clone())),
            Some(Means::Certificates { certificates, clock }) => (certificates, clock),
        };
        let pki = certificates.get().map_err(|error| SigningError::Failed(error.to_string()))?;
        let identity = pki.identity();
        if identity.certname() != author {
            let own = identity.certname().clone();
            return Err(SigningError::OtherAuthor { author: author.clone(), own });
        }
        if let Some(why) = self.own_problem(&pki, &identity, clock()) {
            return Err(SigningError::Failed(why.to_string()));
        }
        Ok(SigningKey::Certificate(identity, self.aside.clone()))
    }

    /// This node's certificate and key as they are, good or not; absent where values are signed with none.
    pub(crate) fn own_key(&self) -> Option<SigningKey> {
        let Some(Means::Certificates { certificates, .. }) = &self.inner.means else { return None };
        Some(SigningKey::Certificate(certificates.get().ok()?.identity(), self.aside.clone()))
    }

    /// Why what this node signs would be refused for good, if it would. Another trouble may be one of this node alone.
    fn own_problem(&self, pki: &Pki, identity: &Identity, now: Timestamp) -> Option<Untrusted> {
        let found = OwnTrust { generation: pki.generation(), until: identity.not_after() };
        let mut known = lock(&self.inner.own_is_trusted);
        if *known == Some(found) && now <= found.until {
            return None;
        }
        let problem = pki
            .own_problem(now)
            .filter(|why| matches!(why, Untrusted::Expired { .. } | Untrusted::Revoked { .. }));
        *known = problem.is_none().then_some(found);
        problem
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
    /// the value. `certificates` has those that the text needs: see [`Self::needed_certificates`].
    ///
    /// # Errors
    /// Those of [`Self::decode`].
    pub(crate) fn open<T: Stored>(
        &self,
        key: &str,
        text: &str,
        certificates: &Certificates,
        authors: impl FnOnce(&T) -> Authors,
    ) -> Result<Opened<T>, WireError> {
        let envelope = Envelope::parse::<T>(text)?;
        let finding = self.verify(key, &envelope, certificates);
        // A signature that is wrong says enough: nothing is parsed then.
        if let Finding::Wrong(why) = finding {
            return Ok(Opened::Refused(why));
        }
        let value: T = envelope.open()?;
        Ok(match admit(self.inner.is_required, &authors(&value), finding) {
            Admission::Accepted { by, signer } => Opened::Accepted { value, by, signer },
            Admission::Outdated { by, why } => Opened::Outdated { value, by, why },
            Admission::Refused(why) => Opened::Refused(why),
            Admission::Waits(why) => Opened::Waits(why),
        })
    }

    /// The certificates that texts need and that are known, and those that have to be read.
    pub(crate) fn needed_certificates<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> (Certificates, Vec<CertificateRef>) {
        let Some(Means::Certificates { .. }) = &self.inner.means else { return Default::default() };
        let needed: BTreeSet<CertificateRef> =
            texts.into_iter().filter_map(|text| Envelope::reference(text)?.parse().ok()).collect();
        lock(&self.inner.cache).known(needed)
    }

    /// Keeps certificates that were read for later.
    pub(crate) fn keep(&self, certificates: &Certificates) {
        lock(&self.inner.cache).keep(certificates);
    }

    /// Whether a certificate of this node is known to be stored at a place.
    pub(crate) fn is_announced(&self, place: &str, fingerprint: Fingerprint) -> bool {
        lock(&self.inner.announced).get(place) == Some(&fingerprint)
    }

    /// Notes that this node's certificate is stored at a place.
    pub(crate) fn announced(&self, place: String, fingerprint: Fingerprint) {
        lock(&self.inner.announced).insert(place, fingerprint);
    }

    /// Forgets what is stored at a place: the backend may have been replaced.
    pub(crate) fn forget_announced(&self, place: &str) {
        lock(&self.inner.announced).remove(place);
    }

    fn verify(&self, key: &str, envelope: &Envelope, known: &Certificates) -> Finding {
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
                    known.verify(&pki, clock(), &reference, &bytes, signature)
                }
            },
        }
    }
}
