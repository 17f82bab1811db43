//! Revocation lists: which of them count.
//!
//! webpki asks the first list that it finds for an issuer's name, so that an old list before a new one would let a
//! revoked certificate in. For each issuer only the newest is kept. A CA that was made again under its old name is
//! another issuer, by its key: see [`selections`]. A list that is out of date (`nextUpdate`) still counts:
//! refusing everybody would end the fleet's work without keeping out anybody whom the list does not name. It is
//! reported instead ([`StaleList`]).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use trigger_core::time::Timestamp;
use webpki::{BorrowedCertRevocationList, CertRevocationList, EndEntityCert};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::certificate::{name, parse, timestamp};
use crate::error::{FileKind, PkiError};
use crate::files::unusable;
use crate::provider::provider;

/// A revocation list of a CA that is known, with a signature that fits.
#[derive(Debug)]
pub(crate) struct RevocationList {
    issuer: Issuer,
    /// The issuer's name for messages.
    issuer_name: String,
    /// The list's number: its bytes without leading zeros. Absent in lists of old CAs.
    number: Option<Vec<u8>>,
    this_update: Timestamp,
    next_update: Option<Timestamp>,
    pub(crate) list: CertRevocationList<'static>,
}

/// Which CA has signed a list.
#[derive(Debug, PartialEq, Eq)]
struct Issuer {
    /// Its name in DER form.
    name: Vec<u8>,
    /// Its public key in DER form: two CAs may have one name.
    key: Vec<u8>,
}

/// A revocation list that its CA should have replaced by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleList {
    /// The CA.
    pub issuer: String,
    /// Until when there should have been a newer one.
    pub next_update: Timestamp,
}

impl fmt::Display for StaleList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the revocation list of {} is out of date since {}: it still counts, but what was revoked later is not \
             known here; fetch the CA's lists again",
            self.issuer,
            self.next_update.date_and_time()
        )
    }
}

impl RevocationList {
    /// Reads a list, if one of the CAs has signed it.
    fn read(
        path: &Path,
        der: &CertificateRevocationListDer<'_>,
        cas: &[CertificateDer<'static>],
    ) -> Result<Option<Self>, PkiError> {
        let damaged = |reason: String| {
            unusable(
                FileKind::Crl,
                path,
                format!("a list in it is damaged ({reason}); fetch it again from the CA"),
            )
        };
        let (_, parsed) =
            CertificateRevocationList::from_der(der).map_err(|error| damaged(error.to_string()))?;
        let Some(issuer) = cas.iter().find_map(|ca| issuer(&parsed, ca)) else { return Ok(None) };
        let list = BorrowedCertRevocationList::from_der(der)
            .and_then(|list| list.to_owned())
            .map_err(|error| damaged(error.to_string()))?;
        Ok(Some(Self {
            issuer,
            issuer_name: name(parsed.issuer()),
            number: parsed.crl_number().map(|number| number.to_bytes_be()),
            this_update: timestamp(parsed.last_update()),
            next_update: parsed.next_update().map(timestamp),
            list: list.into(),
        }))
    }

    /// Whether this list or another one of the same issuer is newer: by number, then by date.
    fn compare_age(&self, other: &Self) -> Ordering {
        let by_number = |list: &Self| list.number.as_ref().map(|number| (number.len(), number.clone()));
        by_number(self).cmp(&by_number(other)).then(self.this_update.cmp(&other.this_update))
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        self.next_update.is_some_and(|next| next < now)
    }
}

/// The newest list of each issuer. Lists of other CAs, and those whose signature does not fit, do not count.
pub(crate) fn newest<'l>(
    lists: impl IntoIterator<Item = (&'l Path, CertificateRevocationListDer<'static>)>,
    cas: &[CertificateDer<'static>],
) -> Result<Vec<RevocationList>, PkiError> {
    let mut newest: Vec<RevocationList> = Vec::new();
    for (path, der) in lists {
        let Some(list) = RevocationList::read(path, &der, cas)? else {
            tracing::debug!(path = %path.display(), "a revocation list of another CA is left out");
            continue;
        };
        match newest.iter_mut().find(|known| known.issuer == list.issuer) {
            Some(known) if list.compare_age(known).is_gt() => *known = list,
            Some(_) => {}
            None => newest.push(list),
        }
    }
    Ok(newest)
}

/// Whether some lists hold one that is newer than those known, and none that is older.
pub(crate) fn is_newer(lists: &[RevocationList], known: &[RevocationList]) -> bool {
    let ages: Vec<_> = lists
        .iter()
        .map(|list| {
            let known = known.iter().find(|known| known.issuer == list.issuer);
            known.map_or(Ordering::Greater, |known| list.compare_age(known))
        })
        .collect();
    ages.contains(&Ordering::Greater) && !ages.contains(&Ordering::Less)
}

/// The lists that are out of date.
pub(crate) fn stale(lists: &[RevocationList], now: Timestamp) -> Vec<StaleList> {
    let stale = |list: &RevocationList| {
        let next_update = list.next_update.filter(|_| list.is_stale(now))?;
        Some(StaleList { issuer: list.issuer_name.clone(), next_update })
    };
    lists.iter().filter_map(stale).collect()
}

/// The lists by which a chain may be checked, one for each issuer's name, because webpki asks no second one. Where several
/// issuers have one name, there is a selection for each of their lists; the wrong one does not fit the issuer's key, and
/// says nothing of the certificate.
pub(crate) fn selections(lists: &[RevocationList]) -> Vec<Vec<&CertRevocationList<'static>>> {
    let mut by_name: BTreeMap<&[u8], Vec<&CertRevocationList<'static>>> = BTreeMap::new();
    for list in lists {
        by_name.entry(&list.issuer.name).or_default().push(&list.list);
    }
    by_name.values().fold(vec![Vec::new()], |selections, namesakes| {
        let with = |list| selections.iter().map(move |selection| [selection.as_slice(), &[list]].concat());
        namesakes.iter().flat_map(|list| with(*list)).collect()
    })
}

/// The CA as the issuer of a list, if it has signed it.
fn issuer(list: &CertificateRevocationList<'_>, ca: &CertificateDer<'_>) -> Option<Issuer> {
    let parsed = parse(ca).ok()?;
    let name = list.issuer().as_raw();
    if parsed.subject().as_raw() != name {
        return None;
    }
    let signed = list.tbs_cert_list.as_ref();
    let signature = list.signature_value.data.as_ref();
    let verifier = EndEntityCert::try_from(ca).ok()?;
    let algorithms = provider().signature_verification_algorithms.all;
    let fits = algorithms.iter().any(|known| verifier.verify_signature(*known, signed, signature).is_ok());
    fits.then(|| Issuer { name: name.to_vec(), key: parsed.public_key().raw.to_vec() })
}
