//! Reading values that count only with a right signature, and storing the certificate that others need to verify this
//! node's.

use trigger_core::certificate::{CertificateRef, StoredCertificate};
use trigger_core::identity::Certname;
use trigger_core::keyspace::Key;
use trigger_core::signature::Authors;
use trigger_core::wire::{Stored, WireError};
use trigger_store::store::{KeyRange, StoreError};

use crate::codec::{Opened, SigningError};
use crate::fleet::{Fleet, Record};

/// Certificates read in one request: some 3 kB each.
const CERTIFICATES_PER_READ: usize = 128;

/// Sentences about single values that are listed at most.
const MAX_SENTENCES: usize = 20;

/// What was read and does not count, as sentences for the reader. Of many, the first are listed and the others counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unverified {
    sentences: Vec<String>,
    more: usize,
}

impl Unverified {
    /// Adds a value that does not count.
    pub(crate) fn add(&mut self, key: &str, reason: &str) {
        if self.sentences.len() < MAX_SENTENCES {
            self.sentences.push(format!("what is stored under {key} does not count: {reason}"));
        } else {
            self.more += 1;
        }
    }

    /// Whether everything that was read counts.
    pub fn is_empty(&self) -> bool {
        self.sentences.is_empty()
    }

    /// One sentence for each value, and one that counts the others.
    pub fn sentences(&self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("{} more stored values do not count either", self.more));
        self.sentences.iter().cloned().chain(more).collect()
    }
}

impl Fleet {
    /// The key and the signed value of an entry to write.
    pub(crate) fn signed_entry<T: Stored>(
        &self,
        key: &Key,
        value: &T,
        author: &Certname,
    ) -> Result<(String, String), SigningError> {
        let key = self.key(key);
        let text = self.codec().encode_signed(&key, value, author)?;
        Ok((key, text))
    }

    /// The same for a value of the node that this fleet acts for.
    pub(crate) fn own_signed_entry<T: Stored>(
        &self,
        key: &Key,
        value: &T,
    ) -> Result<(String, String), StoreError> {
        self.signed_entry(key, value, self.own()).map_err(|error| StoreError::Unreachable {
            backend: self.store().address().to_owned(),
            detail: format!("this node cannot sign what it stores there: {error}").into(),
        })
    }

    /// What sets the keys of this fleet apart from those of any other.
    fn place(&self) -> String {
        format!("{} {}", self.store().address(), self.prefix())
    }

    /// The entry of this node's certificate, where it is not known to be stored. It has to be visible before anything that
    /// is signed with it.
    pub(crate) fn certificate_entry(&self) -> Option<(CertificateRef, (String, String))> {
        let (reference, certificate) = self.codec().unannounced(&self.place())?;
        let entry = self.entry(&Key::from(reference.clone()), &certificate);
        Some((reference, entry))
    }

    /// Stores this node's certificate unless it is there as it should be. To be called at every new connection to the
    /// backend, which may have been replaced by another one or by its backup, and now and then: whoever can write to the
    /// backend may have put something else there.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn announce_certificate(&self) -> Result<(), StoreError> {
        self.codec().forget_announced(&self.place());
        self.ensure_certificate().await
    }

    /// Stores this node's certificate where it is not known to be stored.
    pub(crate) async fn ensure_certificate(&self) -> Result<(), StoreError> {
        let Some((reference, entry)) = self.certificate_entry() else { return Ok(()) };
        let stored = self.store().read(&[KeyRange::Key(entry.0.clone())]).await?;
        if stored.first().is_none_or(|stored| stored.value != entry.1) {
            self.store().put_many(vec![entry]).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
        self.codec().announced(self.place(), reference.fingerprint);
        Ok(())
    }

    /// Reads the certificates that texts refer to and that are not known yet. One that is not there, or cannot be decoded,
    /// stays unknown.
    pub(crate) async fn read_certificates<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), StoreError> {
        for chunk in self.codec().wanted_certificates(texts).chunks(CERTIFICATES_PER_READ) {
            let keys: Vec<KeyRange> =
                chunk.iter().map(|wanted| self.one(&Key::from(wanted.clone()))).collect();
            for record in self.read(&keys).await? {
                if let Key::Certificate { certname, fingerprint } = record.key
                    && let Ok(certificate) = self.decode::<StoredCertificate>(&record.text)
                {
                    self.codec().learn(CertificateRef { certname, fingerprint }, certificate);
                }
            }
        }
        Ok(())
    }

    /// The value of a record whose signature lets it count; see [`Codec::open`](crate::codec::Codec::open). Its certificate has to have been read.
    ///
    /// # Errors
    /// That the text cannot be decoded.
    pub(crate) fn open<T: Stored>(
        &self,
        key: &Key,
        text: &str,
        authors: impl FnOnce(&T) -> Authors,
    ) -> Result<Opened<T>, WireError> {
        self.codec().open(&self.key(key), text, authors)
    }

    /// The value of a record that counts, with the node that signed it where that is known. Anything else is noted in
    /// `unverified`, except for what cannot be decoded, which counts as absent.
    pub(crate) fn open_or_note<T: Stored>(
        &self,
        Record { key, text, .. }: &Record,
        authors: impl FnOnce(&T) -> Authors,
        unverified: &mut Unverified,
    ) -> Option<(T, Option<Certname>)> {
        match self.open(key, text, authors) {
            Ok(Opened::Accepted { value, by, .. }) => Some((value, by)),
            Ok(Opened::Refused(why) | Opened::Waits(why)) => {
                unverified.add(&self.key(key), &why);
                None
            }
            Err(_) => None,
        }
    }
}
