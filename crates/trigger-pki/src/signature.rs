//! Signatures as text: the algorithm's name in the TLS registry, a colon, and the signature in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use trigger_core::escaped::escaped;
use webpki::EndEntityCert;

use crate::provider::provider;
use crate::untrusted::Untrusted;

/// The algorithms with which nodes sign, with their names.
pub(crate) const SCHEMES: [(&str, SignatureScheme); 4] = [
    ("rsa_pss_rsae_sha256", SignatureScheme::RSA_PSS_SHA256),
    ("ecdsa_secp256r1_sha256", SignatureScheme::ECDSA_NISTP256_SHA256),
    ("ecdsa_secp384r1_sha384", SignatureScheme::ECDSA_NISTP384_SHA384),
    ("ed25519", SignatureScheme::ED25519),
];

/// A signature as text.
pub(crate) fn to_text(algorithm: &str, signature: &[u8]) -> String {
    format!("{algorithm}:{}", STANDARD.encode(signature))
}

/// The algorithm and the bytes of a signature.
pub(crate) fn parts(text: &str) -> Option<(&str, Vec<u8>)> {
    let (algorithm, signature) = text.split_once(':')?;
    Some((algorithm, STANDARD.decode(signature).ok()?))
}

/// Verifies that a signature was made over `bytes` with the key of a certificate. Whether the certificate is trusted
/// is another question ([`crate::Trust::verify`]).
///
/// # Errors
/// That the signature does not fit, is of an unknown form, or that the certificate cannot be read.
pub fn verify_signature(certificate_der: &[u8], bytes: &[u8], signature: &str) -> Result<(), Untrusted> {
    let (name, signature) = parts(signature)
        .ok_or_else(|| Untrusted::UnknownSignature { form: "not an algorithm and base64".to_owned() })?;
    let scheme = SCHEMES.iter().find(|(known, _)| *known == name).map(|(_, scheme)| *scheme);
    let mapping = provider().signature_verification_algorithms.mapping;
    let algorithms =
        mapping.iter().find(|(known, _)| Some(*known) == scheme).map(|(_, algorithms)| *algorithms);
    let Some(algorithms) = algorithms else {
        return Err(Untrusted::UnknownSignature { form: escaped(name) });
    };
    let der = CertificateDer::from(certificate_der);
    let certificate = EndEntityCert::try_from(&der).map_err(|error| Untrusted::Unreadable {
        subject: "the signer".to_owned(),
        reason: error.to_string(),
    })?;
    let fits = |algorithm| certificate.verify_signature(algorithm, bytes, &signature).is_ok();
    if algorithms.iter().any(|algorithm| fits(*algorithm)) { Ok(()) } else { Err(Untrusted::BadSignature) }
}
