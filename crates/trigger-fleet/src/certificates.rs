//! The certificates that were read from the backend, and what they verify.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trigger_core::certificate::{CertificateRef, StoredCertificate};
use trigger_core::signature::Finding;
use trigger_core::signer::Signer;
use trigger_core::time::Timestamp;
use trigger_pki::{CertificateDer, Peer, Pki, Trust, Untrusted, fingerprint, verify_signature};

/// Certificates that are kept at most for later: some 2 kB each.
const MAX_KEPT: usize = 512;

/// The certificates with which some texts are verified. Only those that were stored, and were what they were stored as, are
/// among them.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    found: HashMap<CertificateRef, Arc<Known>>,
}

/// Certificates that were read before, so that they need not be read again. All of them may be forgotten at any time: who
/// verifies has those that it needs.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    kept: HashMap<CertificateRef, Arc<Known>>,
}

#[derive(Debug)]
pub(crate) struct Known {
    certificate: StoredCertificate,
    /// Set once the certificate was found to be trusted.
    trusted: Mutex<Option<Trusted>>,
}

#[derive(Debug, Clone)]
struct Trusted {
    /// Of the trust by which that was decided.
    generation: u64,
    peer: Peer,
}

impl Cache {
    /// Those of `needed` that are known, and the others, which have to be read.
    pub(crate) fn known(&self, needed: BTreeSet<CertificateRef>) -> (Certificates, Vec<CertificateRef>) {
        let (known, missing): (Vec<_>, Vec<_>) =
            needed.into_iter().partition(|reference| self.kept.contains_key(reference));
        let known = known.into_iter().filter_map(|reference| {
            let known = self.kept.get(&reference)?.clone();
            Some((reference, known))
        });
        (Certificates { found: known.collect() }, missing)
    }

    /// Keeps certificates for later, and forgets all others where there would be too many.
    pub(crate) fn keep(&mut self, certificates: &Certificates) {
        let missing = certificates.found.keys().filter(|reference| !self.kept.contains_key(*reference));
        if self.kept.len() + missing.count() > MAX_KEPT {
            self.kept.clear();
        }
        let found = certificates.found.iter().take(MAX_KEPT);
        self.kept.extend(found.map(|(reference, known)| (reference.clone(), known.clone())));
    }
}

impl Certificates {
    /// Takes in a certificate. What is stored under a reference may be anything: it has to have that fingerprint.
    pub(crate) fn learn(&mut self, reference: CertificateRef, certificate: StoredCertificate) {
        if fingerprint(&certificate.certificate) == reference.fingerprint {
            self.found.insert(reference, Arc::new(Known { certificate, trusted: Mutex::default() }));
        }
    }

    /// Verifies a signature with the key of a certificate, and the certificate by what this node trusts now.
    pub(crate) fn verify(
        &self,
        pki: &Pki,
        now: Timestamp,
        reference: &CertificateRef,
        bytes: &[u8],
        signature: &str,
    ) -> Finding {
        let Some(known) = self.found.get(reference) else {
            return Finding::Unknown(format!(
                "the certificate that it is signed with is not stored, or not whole: certificates/{reference}"
            ));
        };
        let (peer, outdated) = match known.peer(pki, now) {
            Ok(peer) => (peer, None),
            Err(why @ (Untrusted::Expired { .. } | Untrusted::Revoked { .. })) => {
                match known.verified(|leaf, chain| pki.trust().verify_as_it_was(leaf, chain, now)) {
                    Ok(peer) => (peer, Some(why)),
                    Err(_) => return finding(&why),
                }
            }
            Err(why) => return finding(&why),
        };
        if peer.certname != reference.certname {
            return Finding::Wrong(format!(
                "it names a certificate of {}, which is one of {}",
                reference.certname, peer.certname
            ));
        }
        match (verify_signature(&known.certificate.certificate, bytes, signature), outdated) {
            (Ok(()), None) => {
                Finding::Signed { by: Some(peer.certname.clone()), signer: signer(&peer, signature) }
            }
            (Ok(()), Some(why)) => Finding::Outdated { by: peer.certname, why: why.to_string() },
            (Err(why), _) => finding(&why),
        }
    }
}

impl Known {
    /// The node that the certificate names, if it is trusted. Asked anew when the trust has changed, or the certificate
    /// has expired.
    fn peer(&self, pki: &Pki, now: Timestamp) -> Result<Peer, Untrusted> {
        let generation = pki.generation();
        let mut trusted = lock(&self.trusted);
        if let Some(Trusted { generation: known, peer }) = &*trusted
            && *known == generation
            && now <= peer.not_after
        {
            return Ok(peer.clone());
        }
        *trusted = None;
        let trust = pki.trust();
        let peer = self.verified(|leaf, chain| Trust::verify(&trust, leaf, chain, now))?;
        *trusted = Some(Trusted { generation, peer: peer.clone() });
        Ok(peer)
    }

    fn verified(
        &self,
        verify: impl FnOnce(&[u8], &[CertificateDer<'_>]) -> Result<Peer, Untrusted>,
    ) -> Result<Peer, Untrusted> {
        let StoredCertificate { certificate, intermediates } = &self.certificate;
        let intermediates: Vec<CertificateDer<'_>> =
            intermediates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        verify(certificate, &intermediates)
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

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(n: usize) -> (CertificateRef, StoredCertificate) {
        let certificate = n.to_be_bytes().to_vec();
        let certname = format!("web{n}").parse().unwrap_or_else(|error| panic!("{error}"));
        let reference = CertificateRef { certname, fingerprint: fingerprint(&certificate) };
        (reference, StoredCertificate { certificate, intermediates: Vec::new() })
    }

    fn read(cache: &mut Cache, numbers: std::ops::Range<usize>) -> Certificates {
        let (mut certificates, missing) = cache.known(numbers.map(|n| stored(n).0).collect());
        for reference in missing {
            let n = reference.certname.as_str()[3..].parse().unwrap_or_else(|error| panic!("{error}"));
            certificates.learn(reference, stored(n).1);
        }
        cache.keep(&certificates);
        certificates
    }

    /// Proves C13.
    #[test]
    fn what_one_task_needs_is_not_forgotten_because_another_reads_more() {
        let mut cache = Cache::default();
        let needed = read(&mut cache, 0..20);
        let others = read(&mut cache, 100..100 + MAX_KEPT * 2);
        assert_eq!((needed.found.len(), others.found.len()), (20, MAX_KEPT * 2));
        assert!(cache.kept.len() <= MAX_KEPT, "{}", cache.kept.len());
        assert_eq!(read(&mut cache, 0..20).found.len(), 20);
    }

    #[test]
    fn what_is_stored_in_the_place_of_a_certificate_is_none() {
        let mut certificates = Certificates::default();
        certificates.learn(stored(1).0, stored(2).1);
        assert!(certificates.found.is_empty());
    }
}
