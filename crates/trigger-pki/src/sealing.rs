//! Sealing bytes to a key that their reader has made for them alone: an X25519 agreement of two keys that are used once,
//! HKDF-SHA-256 and AES-256-GCM, all of ring.
//!
//! Nothing here says who sealed: that is for the signature around it.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::SystemRandom;

/// Keeps these keys apart from those of any other use.
const SALT: &[u8] = b"trigger: the output of a run, 1";

/// A public key.
type PublicKey = [u8; 32];

/// The key of a reader, for one sealed value.
pub struct OpeningKey {
    private: EphemeralPrivateKey,
    public: PublicKey,
}

/// Bytes that one key opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The public key of the sealing side.
    pub key: [u8; 32],
    /// The bytes, encrypted.
    pub bytes: Vec<u8>,
}

/// Why bytes were not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    /// The system gives no random numbers.
    #[error("the system has no random numbers")]
    NoRandomNumbers,
    /// The key of the other side is none, or the bytes were sealed to another key or changed since.
    #[error("it is not sealed to the key of this request")]
    OtherKey,
}

impl OpeningKey {
    /// Makes a key.
    ///
    /// # Errors
    /// [`SealingError::NoRandomNumbers`].
    pub fn generate() -> Result<Self, SealingError> {
        let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new());
        let private = private.map_err(|_| SealingError::NoRandomNumbers)?;
        let public = private.compute_public_key().map_err(|_| SealingError::NoRandomNumbers)?;
        let public = public.as_ref().try_into().map_err(|_| SealingError::NoRandomNumbers)?;
        Ok(Self { private, public })
    }

    /// The public part, which seals.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Opens what was sealed to this key.
    ///
    /// # Errors
    /// [`SealingError::OtherKey`].
    pub fn open(self, sealed: &Sealed) -> Result<Vec<u8>, SealingError> {
        let key = content_key(self.private, &sealed.key, (&self.public, &sealed.key))?;
        let mut bytes = sealed.bytes.clone();
        let opened =
            key.open_in_place(nonce(), Aad::empty(), &mut bytes).map_err(|_| SealingError::OtherKey)?;
        Ok(opened.to_vec())
    }
}

/// Seals bytes to the public key of a reader.
///
/// # Errors
/// [`SealingError`].
pub fn seal(reader: &[u8; 32], mut bytes: Vec<u8>) -> Result<Sealed, SealingError> {
    let OpeningKey { private, public } = OpeningKey::generate()?;
    let key = content_key(private, reader, (reader, &public))?;
    key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut bytes).map_err(|_| SealingError::OtherKey)?;
    Ok(Sealed { key: public, bytes })
}

/// The key that the two sides alone share. `sides` are the public keys of the reader and of the sealing side.
fn content_key(
    private: EphemeralPrivateKey,
    other: &PublicKey,
    sides: (&PublicKey, &PublicKey),
) -> Result<LessSafeKey, SealingError> {
    let agreed = agree_ephemeral(private, &UnparsedPublicKey::new(&X25519, other), |secret| {
        let parts = [sides.0.as_slice(), sides.1.as_slice()];
        let pseudorandom = Salt::new(HKDF_SHA256, SALT).extract(secret);
        pseudorandom.expand(&parts, &AES_256_GCM).map(UnboundKey::from).map(LessSafeKey::new)
    });
    agreed.and_then(|key| key).map_err(|_| SealingError::OtherKey)
}

/// Each key seals once, so that its nonce need not differ from any other.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves C13.
    #[test]
    fn the_key_that_bytes_were_sealed_to_opens_them_and_no_other() {
        let reader = OpeningKey::generate().unwrap();
        let sealed = seal(&reader.public(), b"output".to_vec()).unwrap();
        assert_eq!(sealed.bytes.len(), b"output".len() + trigger_core::run_log::SEAL_BYTES);
        assert!(!sealed.bytes.windows(6).any(|bytes| bytes == b"output"));
        assert_eq!(reader.open(&sealed), Ok(b"output".to_vec()));
        let other = OpeningKey::generate().unwrap();
        assert_eq!(other.open(&sealed), Err(SealingError::OtherKey));
    }

    #[test]
    fn bytes_that_were_changed_are_not_opened() {
        for place in ["bytes", "tag", "key"] {
            let reader = OpeningKey::generate().unwrap();
            let mut sealed = seal(&reader.public(), b"output".to_vec()).unwrap();
            match place {
                "bytes" => sealed.bytes[0] ^= 1,
                "tag" => *sealed.bytes.last_mut().unwrap() ^= 1,
                _ => sealed.key[0] ^= 1,
            }
            assert_eq!(reader.open(&sealed), Err(SealingError::OtherKey), "{place}");
        }
        assert!(seal(&[0; 32], Vec::new()).is_err(), "a key that agrees to nothing");
    }
}
