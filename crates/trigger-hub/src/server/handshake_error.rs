//! Why a connection did not come about.

use std::time::Duration;

use trigger_core::identity::Certname;
use trigger_pki::{PkiError, Untrusted};

use super::shares::MAX_CONNECTIONS;

/// Why a connection did not come about. The sentences are for the hub's log.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("its handshake took longer than {} s: the network loses packets, the client is not one of Trigger, or the hub is overloaded", .0.as_secs())]
    TimedOut(Duration),
    #[error("its place was needed for another connection")]
    GaveWay,
    #[error("the client has closed it")]
    Closed,
    #[error("{sentence}")]
    Tls { label: &'static str, sentence: String },
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error("the hub's own files cannot be used: {0}")]
    OwnFiles(#[source] PkiError),
    #[error("{0} has more than {MAX_CONNECTIONS} connections already: look for what opens them on that node")]
    TooMany(Certname),
}

impl HandshakeError {
    /// Whether it happens without anything being wrong.
    pub(super) fn is_ordinary(&self) -> bool {
        matches!(self, Self::Closed | Self::GaveWay)
    }

    /// Whether the client was not let in for what it has shown of itself.
    pub(super) fn is_of_certificate(&self) -> bool {
        match self {
            Self::Untrusted(_) | Self::TooMany(_) => true,
            Self::Tls { label, .. } => matches!(*label, "no_certificate" | "bad_certificate"),
            Self::TimedOut(_) | Self::GaveWay | Self::Closed | Self::OwnFiles(_) => false,
        }
    }

    /// The reason, for metrics and logs.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::TimedOut(_) => "timed_out",
            Self::GaveWay => "gave_way",
            Self::Closed => "closed",
            Self::Tls { label, .. } => label,
            Self::Untrusted(error) => untrusted_label(error),
            Self::OwnFiles(_) => "own_files",
            Self::TooMany(_) => "too_many",
        }
    }

    /// Whose certificate the client has presented, as far as it is known. It need not be trusted.
    pub(super) fn subject(&self) -> Option<&str> {
        match self {
            Self::Untrusted(error) => subject(error),
            Self::TooMany(certname) => Some(certname.as_str()),
            Self::TimedOut(_) | Self::GaveWay | Self::Closed | Self::Tls { .. } | Self::OwnFiles(_) => None,
        }
    }
}

fn subject(error: &Untrusted) -> Option<&str> {
    match error {
        Untrusted::UnknownIssuer { subject, .. }
        | Untrusted::Expired { subject, .. }
        | Untrusted::NotYetValid { subject, .. }
        | Untrusted::Revoked { subject, .. }
        | Untrusted::NoRevocationList { subject, .. }
        | Untrusted::WrongName { subject, .. }
        | Untrusted::WrongPurpose { subject }
        | Untrusted::Unreadable { subject, .. } => Some(subject),
        Untrusted::NotACertname { .. } | Untrusted::BadSignature | Untrusted::UnknownSignature { .. } => None,
    }
}

/// The reason why a certificate is not trusted, for metrics and logs.
pub(super) fn untrusted_label(error: &Untrusted) -> &'static str {
    match error {
        Untrusted::UnknownIssuer { .. } => "unknown_issuer",
        Untrusted::Expired { .. } => "expired",
        Untrusted::NotYetValid { .. } => "not_yet_valid",
        Untrusted::Revoked { .. } => "revoked",
        Untrusted::NoRevocationList { .. } => "no_revocation_list",
        Untrusted::NotACertname { .. } => "no_certname",
        _ => "bad_certificate",
    }
}

/// The reason of an error of rustls, for metrics and logs.
pub(super) fn tls_label(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::NoCertificatesPresented => "no_certificate",
        rustls::Error::AlertReceived(_) => "refused_by_client",
        rustls::Error::InvalidMessage(_) => "not_tls",
        rustls::Error::InvalidCertificate(_) => "bad_certificate",
        _ => "protocol",
    }
}
