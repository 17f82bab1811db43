//! The certificates that were read from the backend, and what they verify.

use std::collections::{BTreeSet, HashMap};

use trigger_core::certificate::{CertificateRef, StoredCertificate};
use trigger_core::signature::Finding;
use trigger_core::signer::Signer;
use trigger_core::time::Timestamp;
use trigger_pki::{CertificateDer, Fingerprint, Peer, Pki, Untrusted, verify_signature};

/// Certificates that are kept at most beside those that are verified next: some 2 kB each.
const MAX_KNOWN: usize = 512;

/// What is known of the certificates of other nodes. All of it may be forgotten at any time and read again.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    known: HashMap<CertificateRef, Known>,
}

#[derive(Debug)]
struct Known {
    certificate: StoredCertificate,
    /// Set once the certificate was found to be trusted.
    trusted: Option<Trusted>,
}

#[derive(Debug, Clone)]
struct Trusted {
    /// Of the trust by which that was decided.
    generation: u64,
    peer: Peer,
}

impl Certificates {
    /// Forgets others where `needed` would exceed the bound, and returns those of `needed` that have to be read. None of
    /// them is forgotten: what they have signed is verified next.
    pub(crate) fn make_room(&mut self, needed: BTreeSet<CertificateRef>) -> Vec<CertificateRef> {
        let missing = needed.iter().filter(|reference| !self.known.contains_key(*reference)).count();
        if self.known.len() + missing > MAX_KNOWN {
            self.known.retain(|reference, _| needed.contains(reference));
        }
        needed.into_iter().filter(|reference| !self.known.contains_key(reference)).collect()
    }

    /// Takes in a certificate. What is stored under a reference may be anything: it has to have that fingerprint.
    pub(crate) fn learn(&mut self, reference: CertificateRef, certificate: StoredCertificate) {
        if Fingerprint::of(&certificate.certificate).as_bytes() != reference.fingerprint.digest() {
            return;
        }
        self.known.insert(reference, Known { certificate, trusted: None });
    }

    /// Verifies a signature with the key of a certificate, and the certificate by what this node trusts now.
    pub(crate) fn verify(
        &mut self,
        pki: &Pki,
        now: Timestamp,
        reference: &CertificateRef,
        bytes: &[u8],
        signature: &str,
    ) -> Finding {
        let Some(known) = self.known.get_mut(reference) else {
            return Finding::Unknown(format!(
                "the certificate that it is signed with is not stored, or not whole: certificates/{reference}"
            ));
        };
        let peer = match known.peer(pki, now) {
            Ok(peer) => peer,
            Err(why) => return finding(&why),
        };
        if peer.certname != reference.certname {
            return Finding::Wrong(format!(
                "it names a certificate of {}, which is one of {}",
                reference.certname, peer.certname
            ));
        }
        match verify_signature(&known.certificate.certificate, bytes, signature) {
            Ok(()) => Finding::Signed { by: Some(peer.certname.clone()), signer: signer(&peer, signature) },
            Err(why) => finding(&why),
        }
    }
}

impl Known {
    /// The node that the certificate names, if it is trusted. Asked anew when the trust has changed, or the certificate
    /// has expired.
    fn peer(&mut self, pki: &Pki, now: Timestamp) -> Result<Peer, Untrusted> {
        let generation = pki.generation();
        if let Some(trusted) = &self.trusted
            && trusted.generation == generation
            && now <= trusted.peer.not_after
        {
            return Ok(trusted.peer.clone());
        }
        self.trusted = None;
        let intermediates: Vec<CertificateDer<'_>> =
            self.certificate.intermediates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let peer = pki.trust().verify(&self.certificate.certificate, &intermediates, now)?;
        self.trusted = Some(Trusted { generation, peer: peer.clone() });
        Ok(peer)
    }
}

/// A certificate that is not valid yet, one that no revocation list speaks of, and a signature of a form that this version
/// does not know may count later, when a clock, a file or this program has changed. Everything else never will.
fn finding(why: &Untrusted) -> Finding {
    match why {
        Untrusted::NotYetValid { .. }
        | Untrusted::NoRevocationList { .. }
        | Untrusted::UnknownSignature { .. } => Finding::Unknown(why.to_string()),
        why => Finding::Wrong(why.to_string()),
    }
}

fn signer(peer: &Peer, signature: &str) -> Signer {
    Signer::Certificate {
        algorithm: signature.split(':').next().unwrap_or_default().to_owned(),
        fingerprint: peer.fingerprint.to_string(),
        extensions: peer.extensions.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}
