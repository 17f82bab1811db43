//! The signatures that were found to be right before. Each handshake verifies those of the revocation lists and of the
//! intermediate CAs, which are always the same, and an agent those of the hub's certificate whenever it connects again.
//!
//! Only signatures are remembered, each with all that it depends on. Whether a certificate is trusted is decided each time: its
//! time, its issuer, and whether it is revoked.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use ring::digest;
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

use crate::provider::provider;

/// How many signatures are remembered for certain. Twice as many may be.
const MAX_REMEMBERED: usize = 256;

/// What a signature depends on, and the signature.
type Digest = [u8; 32];

/// The latest signatures that were right.
#[derive(Debug, Default)]
pub(crate) struct VerifiedSignatures(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    latest: HashSet<Digest>,
    /// Those before. What is asked for again is among the latest then.
    earlier: HashSet<Digest>,
}

/// An algorithm that is not asked again for what it has verified before.
#[derive(Debug)]
pub(crate) struct Remembering<'a> {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    verified: &'a VerifiedSignatures,
}

impl VerifiedSignatures {
    /// All algorithms of the provider.
    pub(crate) fn algorithms(&self) -> Vec<Remembering<'_>> {
        let algorithms = provider().signature_verification_algorithms.all;
        algorithms.iter().map(|algorithm| Remembering { algorithm: *algorithm, verified: self }).collect()
    }

    /// Whether a signature was right before.
    fn contains(&self, digest: &Digest) -> bool {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.latest.contains(digest) {
            return true;
        }
        let is_known = remembered.earlier.contains(digest);
        if is_known {
            remembered.add(*digest);
        }
        is_known
    }

    fn add(&self, digest: Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(digest);
    }
}

impl Remembered {
    fn add(&mut self, digest: Digest) {
        if self.latest.len() >= MAX_REMEMBERED {
            self.earlier = std::mem::take(&mut self.latest);
        }
        self.latest.insert(digest);
    }
}

impl Remembering<'_> {
    fn digest(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Digest {
        let (key_algorithm, algorithm) =
            (self.algorithm.public_key_alg_id(), self.algorithm.signature_alg_id());
        let mut context = digest::Context::new(&digest::SHA256);
        for field in [&*key_algorithm, &*algorithm, public_key, message, signature] {
            context.update(&field.len().to_be_bytes());
            context.update(field);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        bytes
    }
}

impl SignatureVerificationAlgorithm for Remembering<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let digest = self.digest(public_key, message, signature);
        if self.verified.contains(&digest) {
            return Ok(());
        }
        self.algorithm.verify_signature(public_key, message, signature)?;
        self.verified.add(digest);
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.algorithm.fips()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls::pki_types::alg_id;

    use super::*;

    /// Takes a signature that is the key and the message, and counts.
    #[derive(Debug)]
    struct Concatenation;

    static ASKED: AtomicUsize = AtomicUsize::new(0);

    impl SignatureVerificationAlgorithm for Concatenation {
        fn verify_signature(
            &self,
            public_key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            ASKED.fetch_add(1, Ordering::Relaxed);
            if [public_key, message].concat() == signature { Ok(()) } else { Err(InvalidSignature) }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA256
        }
    }

    #[test]
    fn the_same_signature_is_verified_once_and_a_wrong_one_each_time() {
        let verified = VerifiedSignatures::default();
        let remembering = Remembering { algorithm: &Concatenation, verified: &verified };
        let check = |(key, message, signature): (&str, &str, &str), is_right: bool, is_asked: bool| {
            let before = ASKED.load(Ordering::Relaxed);
            let found =
                remembering.verify_signature(key.as_bytes(), message.as_bytes(), signature.as_bytes());
            assert_eq!(found.is_ok(), is_right, "{key} {message} {signature}");
            let asked = ASKED.load(Ordering::Relaxed) - before;
            assert_eq!(asked, usize::from(is_asked), "{key} {message} {signature}");
        };
        check(("key", "message", "keymessage"), true, true);
        check(("key", "message", "keymessage"), true, false);
        check(("key", "message", "keymessagE"), false, true);
        check(("key", "message", "keymessagE"), false, true);
        check(("kEy", "message", "keymessage"), false, true);
        check(("key", "messagE", "keymessage"), false, true);
        // The bytes are the same, the fields are others.
        check(("keym", "essage", "keymessage"), true, true);
    }

    #[test]
    fn the_latest_are_remembered_and_those_that_are_asked_for_again() {
        let verified = VerifiedSignatures::default();
        let digest = |n: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_be_bytes());
            digest
        };
        for n in 0..10 * MAX_REMEMBERED {
            verified.add(digest(n));
            assert!(verified.contains(&digest(0)), "asked for again and again, after {n}");
        }
        assert!(verified.contains(&digest(9 * MAX_REMEMBERED + 10)) && !verified.contains(&digest(1)));
        let remembered = verified.0.lock().unwrap();
        assert!(remembered.latest.len() + remembered.earlier.len() <= 2 * MAX_REMEMBERED);
    }
}
