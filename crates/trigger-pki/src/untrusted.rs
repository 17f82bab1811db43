//! Why a certificate or a signature is not trusted, each as one sentence with its remedy.

use std::fmt;
use std::path::PathBuf;

use trigger_core::time::Timestamp;

use crate::error::NoCertname;

/// Why a certificate or a signature is not trusted. Names in it that come from the certificate are cleaned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// No CA that this node trusts has issued it.
    #[error("{}", unknown_issuer(subject, issuer, ca, *has_namesake))]
    UnknownIssuer {
        /// Whose certificate it is.
        subject: String,
        /// The CA that it names.
        issuer: String,
        /// The file of the CAs that this node trusts.
        ca: PathBuf,
        /// Whether a CA of that name is in the file, with another key.
        has_namesake: bool,
    },
    /// It is no longer valid.
    #[error(
        "the certificate of {subject} expired at {}, and the clock of this machine says {}: renew the certificate, or \
         set the clock", not_after.date_and_time(), now.date_and_time()
    )]
    Expired {
        /// Whose certificate it is: the node's, or that of a CA above it.
        subject: String,
        /// Until when it was valid.
        not_after: Timestamp,
        /// The time of the verification.
        now: Timestamp,
    },
    /// It is not valid yet.
    #[error(
        "the certificate of {subject} is valid from {}, and the clock of this machine says {}: set the clock here, or \
         that of the CA if it signed with a wrong one", not_before.date_and_time(), now.date_and_time()
    )]
    NotYetValid {
        /// Whose certificate it is: the node's, or that of a CA above it.
        subject: String,
        /// From when it is valid.
        not_before: Timestamp,
        /// The time of the verification.
        now: Timestamp,
    },
    /// The CA has revoked it.
    #[error(
        "the certificate of {subject} is revoked, as the lists in {} say: a node that shall take part again needs a new \
         certificate (`puppet ssl clean` and `puppet ssl bootstrap` there)", crl.display()
    )]
    Revoked {
        /// Whose certificate it is.
        subject: String,
        /// The file of the revocation lists.
        crl: PathBuf,
    },
    /// No revocation list says whether it is revoked.
    #[error(
        "{} has no revocation list by which the certificate of {subject} can be checked (issued by {issuer}): remove \
         the file and run `puppet ssl bootstrap`, which fetches the lists of all CAs again", crl.display()
    )]
    NoRevocationList {
        /// Whose certificate it is.
        subject: String,
        /// The CA that it names.
        issuer: String,
        /// The file of the revocation lists.
        crl: PathBuf,
    },
    /// It is for other names than the one under which its server was addressed.
    #[error(
        "the certificate of {subject} is not for the name {server}, only for {}: use one of these names in the URL, or \
         add the name to the certificate (`dns_alt_names`)",
        names(presented)
    )]
    WrongName {
        /// Whose certificate it is.
        subject: String,
        /// The name in the URL.
        server: String,
        /// The names in the certificate.
        presented: Vec<String>,
    },
    /// It may not be used for TLS.
    #[error(
        "the certificate of {subject} may not be used to prove the identity of a node (its extended key usage): \
             get one from the Puppet CA"
    )]
    WrongPurpose {
        /// Whose certificate it is.
        subject: String,
    },
    /// Its subject is not a certname.
    #[error("the certificate is not a Puppet node's: {reason}")]
    NotACertname {
        /// What the name is, or that there is none.
        reason: NoCertname,
    },
    /// A signature was not made over these bytes with the key of this certificate.
    #[error(
        "the signature does not fit: it was made over other data, or with another key than that of its certificate"
    )]
    BadSignature,
    /// A signature of an unknown form.
    #[error("the signature has a form that this version does not know ({form}): update Trigger on this node")]
    UnknownSignature {
        /// The name of its algorithm, or what is wrong with it.
        form: String,
    },
    /// What is no certificate, or not one of this use.
    #[error("the certificate of {subject} cannot be used: {reason}")]
    Unreadable {
        /// Whose certificate it is, as far as it can be read.
        subject: String,
        /// What is wrong.
        reason: String,
    },
}

fn unknown_issuer(subject: &str, issuer: &str, ca: &std::path::Path, has_namesake: bool) -> String {
    let ca = ca.display();
    let found = if has_namesake {
        format!("which has the name of a CA in {ca} and another key")
    } else {
        format!("which is not among the CAs in {ca}")
    };
    format!(
        "the certificate of {subject} was issued by {issuer}, {found}: both ends need certificates of one CA; compare \
         the file with the CA's own, and renew the certificates of a CA that was replaced"
    )
}

fn names(presented: &[String]) -> impl fmt::Display {
    if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") }
}
