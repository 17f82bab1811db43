//! Who signed an event, as its target has found out.

use std::collections::BTreeMap;
use std::fmt;

/// What a target has verified of an event's signature. The signer is always the event's origin: an event that another
/// node has signed is refused, and has no signer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Signer {
    /// There is no signature, so that the origin is a claim of whoever could write to the backend.
    #[default]
    Unsigned,
    /// The key that the fleet shares, so that the origin is a claim of one of its nodes.
    SharedKey,
    /// The key of a certificate of Puppet's CA, whose certname is the origin.
    Certificate {
        /// How the event is signed, as its signature names it.
        algorithm: String,
        /// The SHA-256 of the certificate, in lower-case hexadecimal digits.
        fingerprint: String,
        /// The certificate's trusted extensions, by their short name or their OID.
        extensions: BTreeMap<String, String>,
    },
}

impl Signer {
    /// The trusted extensions that the CA has signed; none without a certificate.
    pub fn extension(&self, name: &str) -> Option<&str> {
        match self {
            Self::Certificate { extensions, .. } => extensions.get(name).map(String::as_str),
            Self::Unsigned | Self::SharedKey => None,
        }
    }
}

/// How the origin was verified, for logs.
impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => f.write_str("unsigned"),
            Self::SharedKey => f.write_str("shared key"),
            Self::Certificate { algorithm, .. } => f.write_str(algorithm),
        }
    }
}
