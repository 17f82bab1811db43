//! A store that a test stands in front of, for the tests of what is above it.

use std::ops::Deref;

use crate::store::{CasOutcome, Entry, KeyRange, Store, StoreError, Watch, replace_in_steps};
use async_trait::async_trait;
use trigger_core::identity::Revision;

/// A test's interference with requests. Methods that it does not override pass a request to the store.
#[async_trait]
pub trait Meddler: Send + Sync {
    /// The store behind.
    fn store(&self) -> &dyn Store;

    /// Stands in front of [`Store::put_many`].
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        self.store().put_many(entries).await
    }

    /// Stands in front of [`Store::delete_many`].
    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        self.store().delete_many(keys).await
    }

    /// Stands in front of [`Store::replace`]. Nothing: it is done in several requests, each of which passes here.
    async fn replace(
        &self,
        _keys: &[String],
        _entries: &[(String, String)],
    ) -> Option<Result<Vec<Revision>, StoreError>> {
        None
    }

    /// Stands in front of [`Store::compare_and_swap`].
    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        self.store().compare_and_swap(key, value, expected).await
    }

    /// Stands in front of [`Store::read`].
    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        self.store().read(ranges).await
    }

    /// Stands in front of [`Store::list`].
    async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(String, Revision)>, StoreError> {
        self.store().list(ranges).await
    }

    /// Stands in front of [`Store::watch`].
    async fn watch(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
        self.store().watch(ranges).await
    }

    /// Stands in front of [`Store::sweeps_itself`].
    fn sweeps_itself(&self) -> bool {
        self.store().sweeps_itself()
    }
}

/// The store with the meddler in front of it.
#[derive(Debug, Default)]
pub struct Meddled<M>(pub M);

impl<M> Deref for Meddled<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

#[async_trait]
impl<M: Meddler> Store for Meddled<M> {
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        self.0.put_many(entries).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        self.0.delete_many(keys).await
    }

    async fn replace(
        &self,
        keys: Vec<String>,
        entries: Vec<(String, String)>,
    ) -> Result<Vec<Revision>, StoreError> {
        match self.0.replace(&keys, &entries).await {
            Some(replaced) => replaced,
            None => replace_in_steps(self, keys, entries).await,
        }
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        self.0.compare_and_swap(key, value, expected).await
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        self.0.read(ranges).await
    }

    async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(String, Revision)>, StoreError> {
        self.0.list(ranges).await
    }

    async fn watch(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
        self.0.watch(ranges).await
    }

    fn sweeps_itself(&self) -> bool {
        self.0.sweeps_itself()
    }

    fn address(&self) -> &str {
        self.0.store().address()
    }
}
