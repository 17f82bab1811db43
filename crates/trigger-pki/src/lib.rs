//! Puppet's certificates: the identity of a node, and whom it trusts.
//!
//! Whether a certificate is trusted is a pure function of the certificate, of what was read from the files, and of the
//! time ([`Trust::verify`]); [`Pki`] reads the files and reads them again when they change. The cryptography is that of
//! rustls and webpki. Nothing here opens a connection.

mod certificate;
mod error;
mod explain;
mod extensions;
mod files;
mod fingerprint;
mod identity;
mod lazy;
mod pki;
mod provider;
mod revocation;
mod sealing;
mod shared_key;
mod signature;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod trust;
mod untrusted;
mod verified_signatures;

pub use self::error::{FileKind, NoCertname, PkiError};
pub use self::explain::OtherEnd;
pub use self::extensions::TrustedExtensions;
pub use self::files::TlsFiles;
pub use self::fingerprint::fingerprint;
pub use self::identity::Identity;
pub use self::lazy::LazyPki;
pub use self::pki::Pki;
pub use self::revocation::StaleList;
pub use self::sealing::{OpeningKey, Sealed, SealingError, seal};
pub use self::shared_key::SharedKey;
pub use self::signature::verify_signature;
pub use self::tls::Handshake;
pub use self::trust::{Peer, Trust};
pub use self::untrusted::Untrusted;
/// A certificate in DER form.
pub use rustls::pki_types::CertificateDer;
