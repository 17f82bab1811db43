//! A node's certificate as the backend stores it, and how a signature refers to it.

use std::fmt;
use std::str::FromStr;

use crate::identity::Certname;
use crate::text_serde::serde_as_text;

/// Intermediate certificates that are stored with a certificate at most. Puppet's CA has one.
pub const MAX_INTERMEDIATES: usize = 4;
/// The largest certificate that is read from a backend, in bytes. One of Puppet's has 1.5 kB.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// The SHA-256 of a certificate's DER. As text it has 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint with this digest.
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The digest.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Text that is not a [`Fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint: it has 64 hexadecimal digits in lower case")]
pub struct InvalidFingerprint;

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    // Only the canonical form: another spelling of one fingerprint would be a second key.
    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return Err(InvalidFingerprint);
        }
        let mut digest = [0; 32];
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err(InvalidFingerprint) };
            *byte = high * 16 + low;
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(Fingerprint);

/// Names a stored certificate. As text it is `<certname>/<fingerprint>`, the end of the certificate's key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateRef {
    /// The node whose certificate it is.
    pub certname: Certname,
    /// The certificate.
    pub fingerprint: Fingerprint,
}

impl fmt::Display for CertificateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.certname, self.fingerprint)
    }
}

/// Text that is not a [`CertificateRef`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the reference to a certificate: it is a certname, '/', and a fingerprint")]
pub struct InvalidCertificateRef;

impl FromStr for CertificateRef {
    type Err = InvalidCertificateRef;

    fn from_str(text: &str) -> Result<Self, InvalidCertificateRef> {
        let (certname, fingerprint) = text.split_once('/').ok_or(InvalidCertificateRef)?;
        Ok(Self {
            certname: certname.parse().map_err(|_| InvalidCertificateRef)?,
            fingerprint: fingerprint.parse().map_err(|_| InvalidCertificateRef)?,
        })
    }
}

/// The value of a certificate's key, in DER: what a reader needs beside its own CA to verify a node's signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCertificate {
    /// The node's certificate.
    pub certificate: Vec<u8>,
    /// The certificates between it and the root of the CA, in any order.
    pub intermediates: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_one_spelling() {
        let fingerprint = Fingerprint::from_digest(std::array::from_fn(|n| u8::try_from(n * 8).unwrap()));
        let text = fingerprint.to_string();
        assert!(text.starts_with("000810") && text.len() == 64, "{text}");
        assert_eq!(text.parse(), Ok(fingerprint));
        let reference = CertificateRef { certname: "web01.example.com".parse().unwrap(), fingerprint };
        assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
        for bad in ["", "ab", &text[1..], &text.to_uppercase(), &format!("{text}0"), &"g".repeat(64)] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(InvalidFingerprint), "{bad}");
            let reference = format!("web01/{bad}");
            assert_eq!(reference.parse::<CertificateRef>(), Err(InvalidCertificateRef), "{bad}");
        }
        for bad in [format!("WEB01/{text}"), format!("a/b/{text}"), text] {
            assert_eq!(bad.parse::<CertificateRef>(), Err(InvalidCertificateRef), "{bad}");
        }
    }
}
