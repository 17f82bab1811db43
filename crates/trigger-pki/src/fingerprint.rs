//! The name of a certificate that depends on all of it.

use ring::digest;
use trigger_core::certificate::Fingerprint;

/// The fingerprint of a certificate in DER form.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
    Fingerprint::from_digest(bytes)
}
