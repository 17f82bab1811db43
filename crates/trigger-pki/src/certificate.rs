//! What is read from a certificate, trusted or not.

use std::time::Duration;

use rustls::pki_types::UnixTime;
use trigger_core::escaped::escaped;
use trigger_core::identity::Certname;
use trigger_core::time::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use crate::error::NoCertname;
use crate::untrusted::Untrusted;

/// Parses a certificate.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Untrusted> {
    let unreadable = |reason: String| Untrusted::Unreadable { subject: "a node".to_owned(), reason };
    let (rest, certificate) = X509Certificate::from_der(der)
        .map_err(|error| unreadable(format!("it is not in the form of an X.509 certificate ({error})")))?;
    if !rest.is_empty() {
        return Err(unreadable("other data follows it".to_owned()));
    }
    Ok(certificate)
}

/// The certname in a certificate: the one common name of its subject.
pub(crate) fn certname(certificate: &X509Certificate<'_>) -> Result<Certname, NoCertname> {
    let names: Vec<_> = certificate.subject().iter_common_name().collect();
    match names.as_slice() {
        [name] => name.as_str().unwrap_or_default().parse().map_err(NoCertname::Invalid),
        names => Err(NoCertname::Count(names.len())),
    }
}

/// Whose certificate it is, for messages: its common name, else its whole subject.
pub(crate) fn subject(certificate: &X509Certificate<'_>) -> String {
    name(certificate.subject())
}

/// A name in a certificate, for messages.
pub(crate) fn name(name: &X509Name<'_>) -> String {
    match name.iter_common_name().next().and_then(|name| name.as_str().ok()) {
        Some(name) => escaped(name),
        None => escaped(&name.to_string()),
    }
}

/// A time in a certificate. One before 1970 counts as 1970.
pub(crate) fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::from_unix_ms(u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000))
}

/// A time as webpki has it.
pub(crate) fn to_unix_time(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(time.as_unix_ms()))
}

/// A time as webpki has it.
pub(crate) fn from_unix_time(time: UnixTime) -> Timestamp {
    Timestamp::from_unix_ms(time.as_secs().saturating_mul(1000))
}
