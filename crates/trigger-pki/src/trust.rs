//! Whom a node trusts: the CAs, their revocation lists, and the verdict on a certificate.

use std::path::{Path, PathBuf};

use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, ServerName, SignatureVerificationAlgorithm, TrustAnchor,
    UnixTime,
};
use trigger_core::certificate::Fingerprint;
use trigger_core::escaped::escaped;
use trigger_core::identity::Certname;
use trigger_core::time::Timestamp;
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, InvalidNameContext, KeyUsage,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};
use x509_parser::certificate::X509Certificate;

use crate::certificate::{certname, from_unix_time, name, parse, subject, timestamp, to_unix_time};
use crate::error::{FileKind, PkiError};
use crate::extensions::TrustedExtensions;
use crate::files::{self, unusable};
use crate::fingerprint::fingerprint;
use crate::revocation::{self, RevocationList, StaleList};
use crate::untrusted::Untrusted;
use crate::verified_signatures::VerifiedSignatures;

/// Whom a node trusts, as its files said when they were read.
#[derive(Debug)]
pub struct Trust {
    ca: PathBuf,
    crl: Option<PathBuf>,
    /// All certificates in the file of the CAs.
    cas: Vec<CertificateDer<'static>>,
    /// Those of them that need no other one.
    anchors: Vec<TrustAnchor<'static>>,
    /// The others, which complete the chain of a node that presents its own certificate only, as Puppet's do.
    intermediates: Vec<CertificateDer<'static>>,
    /// The newest list of each CA; absent where revocation is not checked.
    lists: Option<Vec<RevocationList>>,
    verified: VerifiedSignatures,
}

/// A node that a trusted certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its certname.
    pub certname: Certname,
    /// What its CA certifies about it besides.
    pub extensions: TrustedExtensions,
    /// Which certificate it is.
    pub fingerprint: Fingerprint,
    /// Until when the certificate is valid.
    pub not_after: Timestamp,
}

/// A certificate that is to be verified.
struct Leaf<'a> {
    parsed: X509Certificate<'a>,
    end_entity: EndEntityCert<'a>,
}

impl<'a> Leaf<'a> {
    fn parse(der: &'a CertificateDer<'a>) -> Result<Self, Untrusted> {
        let parsed = parse(der)?;
        match EndEntityCert::try_from(der) {
            Ok(end_entity) => Ok(Self { parsed, end_entity }),
            Err(error) => Err(unreadable(&parsed, &error)),
        }
    }
}

impl Trust {
    /// Reads the CAs and the lists from the contents of their files. More lists may be given, of which each counts where
    /// it is the newest of its CA.
    pub(crate) fn read(
        (ca, ca_pem): (&Path, &[u8]),
        crl: Option<(&Path, &[u8])>,
        more_lists: &[(PathBuf, Vec<u8>)],
    ) -> Result<Self, PkiError> {
        let cas = files::certificates(FileKind::Ca, ca, ca_pem)?;
        let (anchors, intermediates) = anchors(ca, &cas)?;
        let lists = match crl {
            None => None,
            Some((path, pem)) => {
                let mut ders = lists_of(path, pem)?;
                for (path, pem) in more_lists {
                    ders.extend(lists_of(path, pem)?);
                }
                let lists = revocation::newest(ders, &cas)?;
                if lists.is_empty() {
                    let reason = format!(
                        "it holds no revocation list of a CA in {}; remove it and run `puppet ssl bootstrap`, which \
                         fetches the lists again",
                        ca.display()
                    );
                    return Err(unusable(FileKind::Crl, path, reason));
                }
                Some(lists)
            }
        };
        Ok(Self {
            ca: ca.to_owned(),
            crl: crl.map(|(path, _)| path.to_owned()),
            cas,
            anchors,
            intermediates,
            lists,
            verified: VerifiedSignatures::default(),
        })
    }

    /// Verifies a certificate: that one of the CAs has issued it, that it is valid at the time `now` and not revoked, and
    /// that it names a node. The intermediate certificates that the node presents are used beside those of the CA's
    /// file. A certificate for clients and one for servers are equally good.
    ///
    /// # Errors
    /// Why it is not trusted.
    pub fn verify(
        &self,
        leaf: &[u8],
        intermediates: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<Peer, Untrusted> {
        self.verify_node(leaf, intermediates, now, self.lists.as_deref())
    }

    /// Verifies a certificate as it was while it was valid: it may have expired `now`, or been revoked since. What such a
    /// certificate proves is not certain, because nothing says when its key was used.
    ///
    /// # Errors
    /// Why it was never trusted.
    pub fn verify_as_it_was(
        &self,
        leaf: &[u8],
        intermediates: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<Peer, Untrusted> {
        let last_valid = now.min(timestamp(parse(leaf)?.validity().not_after));
        self.verify_node(leaf, intermediates, last_valid, None)
    }

    fn verify_node(
        &self,
        leaf: &[u8],
        intermediates: &[CertificateDer<'_>],
        now: Timestamp,
        lists: Option<&[RevocationList]>,
    ) -> Result<Peer, Untrusted> {
        let now = to_unix_time(now);
        let der = CertificateDer::from(leaf);
        let leaf = Leaf::parse(&der)?;
        match self.verify_chain(&leaf, intermediates, now, KeyUsage::client_auth(), lists) {
            Err(Untrusted::WrongPurpose { .. }) => {
                self.verify_chain(&leaf, intermediates, now, KeyUsage::server_auth(), lists)?;
            }
            verified => verified?,
        }
        Ok(Peer {
            certname: certname(&leaf.parsed).map_err(|reason| Untrusted::NotACertname { reason })?,
            extensions: TrustedExtensions::of(&leaf.parsed),
            fingerprint: fingerprint(&der),
            not_after: timestamp(leaf.parsed.validity().not_after),
        })
    }

    /// Whether revoked certificates are known.
    pub fn has_revocation_lists(&self) -> bool {
        self.lists.is_some()
    }

    /// The revocation lists that are out of date. They still count.
    pub fn stale_lists(&self, now: Timestamp) -> Vec<StaleList> {
        revocation::stale(self.lists.as_deref().unwrap_or_default(), now)
    }

    /// Whether PEM text that was fetched from `source` holds newer revocation lists than those known: at least one of a
    /// known CA that is newer, and none that is older.
    ///
    /// # Errors
    /// That the text is damaged, or holds no list of a known CA.
    pub fn has_newer_lists(&self, source: &Path, pem: &[u8]) -> Result<bool, PkiError> {
        let lists = revocation::newest(lists_of(source, pem)?, &self.cas)?;
        if lists.is_empty() {
            let reason = format!("it holds no revocation list of a CA in {}", self.ca.display());
            return Err(unusable(FileKind::Crl, source, reason));
        }
        Ok(revocation::is_newer(&lists, self.lists.as_deref().unwrap_or_default()))
    }

    /// Verifies a server: its certificate as [`Self::verify`] does, but for the certname, and that it is for `server`.
    pub(crate) fn verify_server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Untrusted> {
        let leaf = Leaf::parse(leaf)?;
        self.verify_chain(&leaf, intermediates, now, KeyUsage::server_auth(), self.lists.as_deref())?;
        leaf.end_entity.verify_is_valid_for_subject_name(server).map_err(|error| match error {
            Error::CertNotValidForName(InvalidNameContext { presented, .. }) => Untrusted::WrongName {
                subject: subject(&leaf.parsed),
                server: server.to_str().into_owned(),
                presented: presented.iter().map(|name| escaped(&plain_name(name))).collect(),
            },
            error => unreadable(&leaf.parsed, &error),
        })
    }

    fn verify_chain(
        &self,
        leaf: &Leaf<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
        lists: Option<&[RevocationList]>,
    ) -> Result<(), Untrusted> {
        let chain: Vec<CertificateDer<'_>> = intermediates
            .iter()
            .chain(&self.intermediates)
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        let algorithms = self.verified.algorithms();
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
            algorithms.iter().map(|algorithm| algorithm as &dyn SignatureVerificationAlgorithm).collect();
        let verified_by = |lists: &[&CertRevocationList<'_>]| {
            // Without lists nothing is asked. That is so where revocation is not checked: a file without lists is an error.
            let revocation = RevocationOptionsBuilder::new(lists).ok().map(|options| {
                options
                    .with_depth(RevocationCheckDepth::Chain)
                    .with_status_policy(UnknownStatusPolicy::Deny)
                    .with_expiration_policy(ExpirationPolicy::Ignore)
                    .build()
            });
            let leaf = &leaf.end_entity;
            leaf.verify_for_usage(&algorithms, &self.anchors, &chain, now, usage, revocation, None).map(drop)
        };
        let mut verified = Ok(());
        for lists in revocation::selections(lists.unwrap_or_default()) {
            verified = verified_by(&lists);
            // A list is asked only where it fits the issuer's key.
            if matches!(verified, Ok(()) | Err(Error::CertRevoked)) {
                break;
            }
        }
        verified.map_err(|error| match error {
            // Beside a CA of the same name, a CA without a list looks unknown.
            Error::UnknownIssuer | Error::InvalidSignatureForPublicKey if verified_by(&[]).is_ok() => {
                self.untrusted(&leaf.parsed, Error::UnknownRevocationStatus)
            }
            error => self.untrusted(&leaf.parsed, error),
        })
    }

    fn untrusted(&self, leaf: &X509Certificate<'_>, error: Error) -> Untrusted {
        let crl = self.crl.clone().unwrap_or_default();
        let issuer = name(leaf.issuer());
        match error {
            Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => Untrusted::UnknownIssuer {
                subject: subject(leaf),
                issuer,
                ca: self.ca.clone(),
                has_namesake: self.parsed_cas().any(|ca| ca.subject().as_raw() == leaf.issuer().as_raw()),
            },
            Error::CertExpired { time, not_after } => {
                let not_after = from_unix_time(not_after);
                let subject =
                    self.holder(leaf, |certificate| timestamp(certificate.validity().not_after) == not_after);
                Untrusted::Expired { subject, not_after, now: from_unix_time(time) }
            }
            Error::CertNotValidYet { time, not_before } => {
                let not_before = from_unix_time(not_before);
                let subject = self
                    .holder(leaf, |certificate| timestamp(certificate.validity().not_before) == not_before);
                Untrusted::NotYetValid { subject, not_before, now: from_unix_time(time) }
            }
            Error::CertRevoked => Untrusted::Revoked { subject: subject(leaf), crl },
            Error::UnknownRevocationStatus
            | Error::InvalidCrlSignatureForPublicKey
            | Error::IssuerNotCrlSigner => {
                Untrusted::NoRevocationList { subject: subject(leaf), issuer, crl }
            }
            Error::RequiredEkuNotFoundContext(_) => Untrusted::WrongPurpose { subject: subject(leaf) },
            error => unreadable(leaf, &error),
        }
    }

    /// The leaf, or else the CA, of which something holds: for messages.
    fn holder(&self, leaf: &X509Certificate<'_>, holds: impl Fn(&X509Certificate<'_>) -> bool) -> String {
        if holds(leaf) {
            return subject(leaf);
        }
        self.parsed_cas().find(holds).map_or_else(|| name(leaf.issuer()), |ca| subject(&ca))
    }

    fn parsed_cas(&self) -> impl Iterator<Item = X509Certificate<'_>> {
        self.cas.iter().filter_map(|der| parse(der).ok())
    }
}

/// The certificates that need no other one of the file, as anchors, and the others.
fn anchors(
    path: &Path,
    cas: &[CertificateDer<'static>],
) -> Result<(Vec<TrustAnchor<'static>>, Vec<CertificateDer<'static>>), PkiError> {
    let unreadable =
        |reason: String| unusable(FileKind::Ca, path, format!("{reason}; get the file again from the CA"));
    let parsed = cas
        .iter()
        .map(|der| parse(der).map_err(|error| unreadable(error.to_string())))
        .collect::<Result<Vec<_>, _>>()?;
    let (mut anchors, mut intermediates) = (Vec::new(), Vec::new());
    for (der, certificate) in cas.iter().zip(&parsed) {
        let issuer = certificate.issuer().as_raw();
        let is_issued_here = |other: &X509Certificate<'_>| other.subject().as_raw() == issuer;
        if certificate.subject().as_raw() != issuer && parsed.iter().any(is_issued_here) {
            intermediates.push(der.clone());
        } else {
            let anchor = anchor_from_trusted_cert(der).map_err(|error| {
                unreadable(format!("{} is no CA's certificate ({error})", subject(certificate)))
            })?;
            anchors.push(anchor.to_owned());
        }
    }
    Ok((anchors, intermediates))
}

fn lists_of<'p>(
    path: &'p Path,
    pem: &[u8],
) -> Result<Vec<(&'p Path, CertificateRevocationListDer<'static>)>, PkiError> {
    Ok(files::revocation_lists(path, pem)?.into_iter().map(|list| (path, list)).collect())
}

fn unreadable(certificate: &X509Certificate<'_>, error: &Error) -> Untrusted {
    Untrusted::Unreadable { subject: subject(certificate), reason: error.to_string() }
}

/// A name as webpki shows it (`DnsName("a.example.com")`), without its kind.
fn plain_name(name: &str) -> String {
    name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')')).trim_matches('"').to_owned()
}
