//! One transaction of the writer: performs its writes and collects their changes.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use trigger_core::identity::Revision;
use trigger_store::store::{CasOutcome, Change, Entry};

/// A write.
#[derive(Debug)]
pub(super) enum Write {
    /// Stores entries, and deletes keys.
    Replace { keys: Vec<String>, entries: Vec<(String, String)> },
    /// Deletes keys.
    Delete(Vec<String>),
    /// Stores a key if its revision is still `expected`.
    CompareAndSwap { key: String, value: String, expected: Option<Revision> },
    /// Stores nothing, and proves that the disk takes a write.
    Probe,
    /// Writes nothing, and checks that the writer is alive and its files are in place.
    Nothing,
}

impl Write {
    /// Returns its size in bytes of keys and values.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Replace { keys, entries } => {
                let bytes: usize = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
                bytes + size_of_keys(keys)
            }
            Self::Delete(keys) => size_of_keys(keys),
            Self::CompareAndSwap { key, value, .. } => key.len() + value.len(),
            Self::Probe | Self::Nothing => 0,
        }
    }
}

fn size_of_keys(keys: &[String]) -> usize {
    keys.iter().map(String::len).sum()
}

/// The result of a write. The variants are those of [`Write`].
#[derive(Debug)]
pub(super) enum Written {
    Replace {
        deleted: Vec<Option<Revision>>,
        stored: Vec<Revision>,
    },
    /// The revision of each key's deletion; `None` for keys that were absent.
    Delete(Vec<Option<Revision>>),
    CompareAndSwap(CasOutcome),
    Probe,
    Nothing,
}

impl Written {
    /// Returns whether anything was stored. If not, the disk was not written.
    pub(super) fn changed(&self) -> bool {
        match self {
            Self::Replace { deleted, stored } => !stored.is_empty() || has_deleted(deleted),
            Self::Delete(deleted) => has_deleted(deleted),
            Self::CompareAndSwap(outcome) => matches!(outcome, CasOutcome::Written(_)),
            Self::Probe | Self::Nothing => false,
        }
    }
}

fn has_deleted(deleted: &[Option<Revision>]) -> bool {
    deleted.iter().any(Option::is_some)
}

/// A transaction being filled.
pub(super) struct Batch<'a> {
    transaction: Transaction<'a>,
    next: &'a mut Revision,
    first: Revision,
    entries: i64,
    is_probed: bool,
}

impl<'a> Batch<'a> {
    /// Begins a transaction. `next` is the first revision to give out, and moves on even if the transaction
    /// fails; `entries` are stored before it.
    pub(super) fn begin(
        connection: &'a mut Connection,
        next: &'a mut Revision,
        entries: i64,
    ) -> rusqlite::Result<Self> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let first = *next;
        Ok(Self { transaction, next, first, entries, is_probed: false })
    }

    pub(super) fn write(&mut self, write: &Write) -> rusqlite::Result<Written> {
        Ok(match write {
            Write::Replace { keys, entries } => {
                let stored =
                    entries.iter().map(|(key, value)| self.put(key, value)).collect::<Result<_, _>>()?;
                Written::Replace { deleted: self.delete_all(keys)?, stored }
            }
            Write::Delete(keys) => Written::Delete(self.delete_all(keys)?),
            Write::CompareAndSwap { key, value, expected } => {
                Written::CompareAndSwap(self.compare_and_swap(key, value, *expected)?)
            }
            Write::Probe => {
                self.probe()?;
                Written::Probe
            }
            Write::Nothing => Written::Nothing,
        })
    }

    /// Commits, if anything was written. Returns how many entries are stored now.
    pub(super) fn commit(self) -> rusqlite::Result<i64> {
        if *self.next > self.first {
            let last = Revision(self.next.0 - 1);
            self.transaction
                .prepare_cached("UPDATE position SET revision = ?1")?
                .execute([last.0.cast_signed()])?;
        }
        if *self.next > self.first || self.is_probed {
            self.transaction.commit()?;
        }
        Ok(self.entries)
    }

    /// Changes a page of the database, which the commit then writes and syncs although the page has its old content.
    fn probe(&mut self) -> rusqlite::Result<()> {
        self.is_probed = true;
        self.transaction.prepare_cached("INSERT INTO entries VALUES ('', '', 0)")?.execute(())?;
        self.transaction.prepare_cached("DELETE FROM entries WHERE key = ''")?.execute(())?;
        Ok(())
    }

    fn revision(&mut self) -> Revision {
        let revision = *self.next;
        self.next.0 += 1;
        revision
    }

    fn put(&mut self, key: &str, value: &str) -> rusqlite::Result<Revision> {
        let revision = self.revision();
        let row = (key, value, revision.0.cast_signed());
        let inserted = self
            .transaction
            .prepare_cached("INSERT INTO entries VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
            .execute(row)?;
        if inserted == 0 {
            self.transaction
                .prepare_cached("UPDATE entries SET value = ?2, revision = ?3 WHERE key = ?1")?
                .execute(row)?;
        } else {
            self.entries += 1;
        }
        Ok(revision)
    }

    fn delete_all(&mut self, keys: &[String]) -> rusqlite::Result<Vec<Option<Revision>>> {
        keys.iter().map(|key| self.delete(key)).collect()
    }

    fn delete(&mut self, key: &str) -> rusqlite::Result<Option<Revision>> {
        let deleted =
            self.transaction.prepare_cached("DELETE FROM entries WHERE key = ?1")?.execute([key])?;
        if deleted == 0 {
            return Ok(None);
        }
        self.entries -= 1;
        Ok(Some(self.revision()))
    }

    fn compare_and_swap(
        &mut self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> rusqlite::Result<CasOutcome> {
        let present = self.entry(key)?;
        if present.as_ref().map(|entry| entry.revision) != expected {
            return Ok(CasOutcome::Changed(present));
        }
        self.put(key, value).map(CasOutcome::Written)
    }

    fn entry(&self, key: &str) -> rusqlite::Result<Option<Entry>> {
        let mut query =
            self.transaction.prepare_cached("SELECT value, revision FROM entries WHERE key = ?1")?;
        let entry = query.query_row([key], |row| {
            let revision = Revision(row.get::<_, i64>(1)?.cast_unsigned());
            Ok(Entry { key: key.to_owned(), value: row.get(0)?, revision })
        });
        entry.optional()
    }
}

/// The changes that one write made, in order.
pub(super) fn changes((write, written): (Write, &Written)) -> Vec<(Revision, Change)> {
    let put = |(key, value), revision: &Revision| {
        (*revision, Change::Put(Entry { key, value, revision: *revision }))
    };
    match (write, written) {
        (Write::Replace { keys, entries }, Written::Replace { deleted, stored }) => {
            let stored = entries.into_iter().zip(stored).map(|(entry, revision)| put(entry, revision));
            stored.chain(deletions(keys, deleted)).collect()
        }
        (Write::Delete(keys), Written::Delete(deleted)) => deletions(keys, deleted).collect(),
        (
            Write::CompareAndSwap { key, value, .. },
            Written::CompareAndSwap(CasOutcome::Written(revision)),
        ) => vec![put((key, value), revision)],
        _ => Vec::new(),
    }
}

fn deletions(keys: Vec<String>, deleted: &[Option<Revision>]) -> impl Iterator<Item = (Revision, Change)> {
    keys.into_iter().zip(deleted).filter_map(|(key, revision)| Some(((*revision)?, Change::Deleted(key))))
}
