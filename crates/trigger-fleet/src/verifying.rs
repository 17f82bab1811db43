//! Reading values that count only with a right signature, and storing the certificate that others need to verify this
//! node's.

use std::collections::BTreeMap;

use trigger_core::certificate::{CertificateRef, StoredCertificate};
use trigger_core::identity::Certname;
use trigger_core::keyspace::Key;
use trigger_core::signature::Authors;
use trigger_core::wire::{Stored, WireError};
use trigger_store::store::{KeyRange, StoreError};

use crate::certificates::Certificates;
use crate::codec::{Opened, SigningError, SigningKey};
use crate::fleet::{Fleet, Record};

/// Certificates read in one request: some 3 kB each.
const CERTIFICATES_PER_READ: usize = 128;

/// Sentences about single values that are listed at most.
const MAX_SENTENCES: usize = 20;

/// What was read and does not count, or not for certain, as sentences for the reader. Of many, the first are listed and the others counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unverified {
    sentences: Vec<String>,
    more: usize,
    /// Why the outcome that is stored of a target does not count, or not for certain.
    outcomes: BTreeMap<Certname, String>,
}

impl Unverified {
    /// Adds a value that does not count.
    pub(crate) fn add(&mut self, key: &str, reason: &str) {
        self.add_sentence(|| format!("what is stored under {key} does not count: {reason}"));
    }

    /// Adds a value of which it is not certain that its node has signed it.
    fn add_outdated(&mut self, key: &str, reason: &str) {
        self.add_sentence(|| {
            format!(
                "what is stored under {key} may have been written by someone who has its node's former key: {reason}"
            )
        });
    }

    fn add_sentence(&mut self, sentence: impl FnOnce() -> String) {
        if self.sentences.len() < MAX_SENTENCES {
            self.sentences.push(sentence());
        } else {
            self.more += 1;
        }
    }

    /// Why the outcome that is stored of a target does not count, or not for certain; absent where nothing speaks against it.
    pub fn outcome_of(&self, target: &Certname) -> Option<&str> {
        self.outcomes.get(target).map(String::as_str)
    }

    fn note_outcome(&mut self, key: &Key, why: &str) {
        if let Key::Outcome { certname, .. } = key {
            self.outcomes.insert(certname.clone(), why.to_owned());
        }
    }

    /// Whether everything that was read counts.
    pub fn is_empty(&self) -> bool {
        self.sentences.is_empty()
    }

    /// One sentence for each value, and one that counts the others.
    pub fn sentences(&self) -> Vec<String> {
        let more = (self.more > 0)
            .then(|| format!("{} more stored values do not count, or not for certain", self.more));
        self.sentences.iter().cloned().chain(more).collect()
    }
}

impl Fleet {
    /// What values of the node that this fleet acts for are signed with, whose certificate is stored then.
    ///
    /// # Errors
    /// When the backend does not answer, or the node cannot sign now.
    pub(crate) async fn own_signing_key(&self) -> Result<SigningKey, StoreError> {
        let signing_key = self.codec().signing_key(self.own()).map_err(|error| self.cannot_sign(&error))?;
        self.ensure_certificate(&signing_key).await?;
        Ok(signing_key)
    }

    /// The key and the signed value of an entry of the node that this fleet acts for.
    pub(crate) async fn own_signed_entry<T: Stored>(
        &self,
        signing_key: &SigningKey,
        key: &Key,
        value: &T,
    ) -> Result<(String, String), StoreError> {
        let key = self.key(key);
        let text = signing_key.encode(&key, value).await.map_err(|error| self.cannot_sign(&error))?;
        Ok((key, text))
    }

    /// Stores a signed value of the node that this fleet acts for, whatever is stored there.
    pub(crate) async fn put_signed<T: Stored>(&self, key: &Key, value: &T) -> Result<(), StoreError> {
        let entry = self.own_signed_entry(&self.own_signing_key().await?, key, value).await?;
        self.put_all(vec![entry]).await
    }

    fn cannot_sign(&self, error: &SigningError) -> StoreError {
        StoreError::Unreachable {
            backend: self.store().address().to_owned(),
            detail: format!("this node cannot sign what it stores there: {error}").into(),
        }
    }

    /// What sets the keys of this fleet apart from those of any other.
    fn place(&self) -> String {
        format!("{} {}", self.store().address(), self.prefix())
    }

    /// The entry of the certificate that goes with a key, where it is not known to be stored. It has to be visible before
    /// anything that is signed with the key.
    pub(crate) fn certificate_entry(
        &self,
        signing_key: &SigningKey,
    ) -> Option<(CertificateRef, (String, String))> {
        let (reference, certificate) = signing_key.certificate()?;
        if self.codec().is_announced(&self.place(), reference.fingerprint) {
            return None;
        }
        let entry = self.entry(&Key::from(reference.clone()), &certificate);
        Some((reference, entry))
    }

    /// Forgets that this node's certificate is stored. To be called at every new connection to the backend, which may have been
    /// replaced by another one or by its backup: what is signed from then on is stored after the certificate.
    pub(crate) fn forget_announced(&self) {
        self.codec().forget_announced(&self.place());
    }

    /// Stores this node's certificate unless it is there as it should be. To be called now and then: whoever can write to the
    /// backend may have put something else there.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn announce_certificate(&self) -> Result<(), StoreError> {
        self.forget_announced();
        match self.codec().own_key() {
            Some(own) => self.ensure_certificate(&own).await,
            None => Ok(()),
        }
    }

    /// The entry of this node's certificate, where it is not known to be stored.
    pub(crate) fn unannounced_certificate(&self) -> Option<(CertificateRef, (String, String))> {
        self.certificate_entry(&self.codec().own_key()?)
    }

    /// Notes that a certificate of this node is stored, if it is among what was found.
    pub(crate) fn note_announced(
        &self,
        (reference, (_, text)): &(CertificateRef, (String, String)),
        found: &[Record],
    ) {
        let key = Key::from(reference.clone());
        if found.iter().any(|record| record.key == key && record.text == *text) {
            self.codec().announced(self.place(), reference.fingerprint);
        }
    }

    /// Stores the certificate that goes with a key where it is not known to be stored.
    async fn ensure_certificate(&self, signing_key: &SigningKey) -> Result<(), StoreError> {
        let Some((reference, entry)) = self.certificate_entry(signing_key) else { return Ok(()) };
        let stored = self.store().read(&[KeyRange::Key(entry.0.clone())]).await?;
        if stored.first().is_none_or(|stored| stored.value != entry.1) {
            self.put_all(vec![entry]).await?;
        }
        self.codec().announced(self.place(), reference.fingerprint);
        Ok(())
    }

    /// The certificates that texts refer to. One that is not there, or cannot be decoded, is not among them.
    pub(crate) async fn read_certificates<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Certificates, StoreError> {
        let (mut certificates, missing) = self.codec().needed_certificates(texts);
        for chunk in missing.chunks(CERTIFICATES_PER_READ) {
            let keys: Vec<KeyRange> =
                chunk.iter().map(|wanted| self.one(&Key::from(wanted.clone()))).collect();
            for record in self.read(&keys).await? {
                if let Key::Certificate { certname, fingerprint } = record.key
                    && let Ok(certificate) = self.decode::<StoredCertificate>(&record.text)
                {
                    certificates.learn(CertificateRef { certname, fingerprint }, certificate);
                }
            }
        }
        if !missing.is_empty() {
            self.codec().keep(&certificates);
        }
        Ok(certificates)
    }

    /// The value of a record whose signature lets it count; see [`Codec::open`](crate::codec::Codec::open).
    ///
    /// # Errors
    /// That the text cannot be decoded.
    pub(crate) fn open<T: Stored>(
        &self,
        key: &Key,
        text: &str,
        certificates: &Certificates,
        authors: impl FnOnce(&T) -> Authors,
    ) -> Result<Opened<T>, WireError> {
        self.codec().open(&self.key(key), text, certificates, authors)
    }

    /// The value of a record that counts, with the node that signed it where that is known. One with a certificate that is
    /// not trusted any more is noted in `unverified`. Anything else is noted there too and counts as absent, except for
    /// what cannot be decoded, which is absent without a note.
    pub(crate) fn open_or_note<T: Stored>(
        &self,
        Record { key, text, .. }: &Record,
        certificates: &Certificates,
        authors: impl FnOnce(&T) -> Authors,
        unverified: &mut Unverified,
    ) -> Option<(T, Option<Certname>)> {
        match self.open(key, text, certificates, authors) {
            Ok(Opened::Accepted { value, by, .. }) => Some((value, by)),
            Ok(Opened::Outdated { value, by, why }) => {
                unverified.add_outdated(&self.key(key), &why);
                unverified.note_outcome(key, &why);
                Some((value, Some(by)))
            }
            Ok(Opened::Refused(why) | Opened::Waits(why)) => {
                unverified.add(&self.key(key), &why);
                unverified.note_outcome(key, &why);
                None
            }
            Err(_) => None,
        }
    }
}
