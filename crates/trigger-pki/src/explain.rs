//! Errors of rustls as sentences that say which end is at fault, and what mends it.

use std::io;

use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

use crate::files::TlsFiles;
use crate::identity::Identity;
use crate::untrusted::Untrusted;

/// The other end of a connection, as it is called in messages.
#[derive(Debug, Clone, Copy)]
pub enum OtherEnd<'a> {
    /// A server, by the name and port of the URL.
    Server(&'a str),
    /// A client, by its address.
    Client(&'a str),
}

impl OtherEnd<'_> {
    fn name(self) -> String {
        match self {
            Self::Server(name) => format!("the server {name}"),
            Self::Client(address) => format!("the client at {address}"),
        }
    }

    fn plain_remedy(self) -> &'static str {
        match self {
            Self::Server(_) => "use the URL's scheme without TLS (`hub+http`, `etcd`), or have it serve TLS",
            Self::Client(_) => "the URL there has to begin with `hub+https`",
        }
    }
}

/// The error of rustls in an error of a connection, if there is one.
pub(crate) fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

pub(crate) fn explain(
    end: OtherEnd<'_>,
    error: &Error,
    refusal: Option<&Untrusted>,
    files: &TlsFiles,
    identity: &Identity,
) -> String {
    let other = end.name();
    if let Some(refusal) = refusal {
        return format!("{other} is not trusted: {refusal}");
    }
    match error {
        Error::AlertReceived(alert) => refused(&other, *alert, files, identity),
        Error::NoCertificatesPresented => {
            format!(
                "{other} presents no certificate: it needs one of the Puppet CA in {}",
                files.ca.display()
            )
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!("{other} does not speak TLS: {}", end.plain_remedy())
        }
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => old_tls(&other),
        Error::NoApplicationProtocol => other_protocol(&other),
        error => format!("no TLS connection with {other}: {error}"),
    }
}

fn old_tls(other: &str) -> String {
    format!("{other} speaks neither TLS 1.2 nor TLS 1.3: enable one of the two there")
}

fn other_protocol(other: &str) -> String {
    format!("{other} speaks TLS, and not the protocol that the URL names: compare its address with the URL")
}

/// The connection was closed in the handshake.
pub(crate) fn closed(end: OtherEnd<'_>) -> String {
    let other = end.name();
    match end {
        OtherEnd::Server(_) => format!(
            "{other} closed the connection in the TLS handshake: it may have refused this node's certificate, be \
             overloaded, or not speak TLS; see its log"
        ),
        OtherEnd::Client(_) => format!("{other} closed the connection in the TLS handshake"),
    }
}

/// The other end has refused this one, and only its alert says why.
fn refused(other: &str, alert: AlertDescription, files: &TlsFiles, identity: &Identity) -> String {
    let certificate =
        format!("this node's certificate {} ({})", files.certificate.display(), identity.certname());
    match alert {
        AlertDescription::CertificateRevoked => format!(
            "{other} refuses {certificate}: it is revoked; a node that shall take part again needs a new one (`puppet \
             ssl clean` and `puppet ssl bootstrap` here)"
        ),
        AlertDescription::CertificateExpired => format!(
            "{other} refuses {certificate}: it is valid from {} to {}, and not at the time of the clock there; renew \
             it, or set that machine's clock",
            identity.not_before().date_and_time(),
            identity.not_after().date_and_time()
        ),
        AlertDescription::UnknownCA => format!(
            "{other} refuses {certificate}: it does not know the CA that issued it, or has no revocation list of this \
             CA; both ends need certificates of one CA, and the files of that machine have to be up to date"
        ),
        AlertDescription::AccessDenied => format!(
            "{other} refuses {certificate}: its common name is not a certname there; get a certificate from the \
             Puppet CA"
        ),
        AlertDescription::CertificateRequired => {
            format!(
                "{other} has got no certificate, although this node presents {}",
                files.certificate.display()
            )
        }
        AlertDescription::NoApplicationProtocol => other_protocol(other),
        AlertDescription::ProtocolVersion => old_tls(other),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => format!(
            "{other} refuses {certificate}, and says only `{alert:?}`: see its log; it has to trust the CA of this \
             node, and the certificate must not be expired or revoked"
        ),
        alert => format!("{other} has ended the TLS connection with `{alert:?}`: see its log"),
    }
}
