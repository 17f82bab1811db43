//! The backend on etcd v3 (3.4 and later).
//!
//! etcd's limits, and how this client respects them:
//!
//! * A transaction takes 128 operations, and a request 1.5 MiB, so [`writing`] sends chunks, several in flight.
//! * A request without an answer may or may not have been done, so [`failure`] sorts every failure by what is known.
//! * A large prefix does not fit one answer, so [`reading`] reads pages at one revision.
//! * A watch stream is not resumed by its client library, can be overtaken by compaction, repeats events in some
//!   releases and hangs on a stopped server, so [`watching`] proves its continuity or ends.
//!
//! Nothing here knows what the keys mean.

mod connection;
mod failure;
mod reading;
mod watching;
mod writing;

use std::sync::Arc;

use async_trait::async_trait;
use trigger_core::identity::Revision;

use self::connection::{Connections, RequestKind};
use crate::backend::OpenError;
use crate::connector::Connector;
use crate::credentials::Credentials;
use crate::kind::BackendUrl;
use crate::store::{CasOutcome, Entry, KeyRange, Store, StoreError, Watch, replace_in_steps};

/// The protocol within TLS.
pub(crate) const ALPN: &[u8] = b"h2";

/// A store on an etcd cluster. Clones share their connection.
#[derive(Clone)]
pub struct EtcdStore {
    connections: Arc<Connections>,
}

impl EtcdStore {
    /// A store on the cluster whose members `url` names. Connects when first used, so it needs no server and no
    /// runtime yet.
    ///
    /// # Errors
    /// [`OpenError::BadAddress`] when the client library does not take an address.
    pub fn new(url: &BackendUrl, connector: Connector) -> Result<Self, OpenError> {
        Ok(Self { connections: Arc::new(Connections::new(url, connector)?) })
    }

    /// A store on the cluster with these members, each `HOST:PORT`, over plain connections.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when there is no endpoint, or one is no address.
    pub fn connect(endpoints: &[String]) -> Result<Self, StoreError> {
        let url = format!("etcd://{}", endpoints.join(","));
        let refused = |detail: String| StoreError::Refused { backend: url.clone(), detail: detail.into() };
        let url: BackendUrl = url.parse().map_err(|error| refused(format!("{error}")))?;
        let connector = Connector::new(&url, &Credentials::default(), ALPN);
        connector.and_then(|connector| Self::new(&url, connector)).map_err(|error| refused(error.to_string()))
    }

    async fn entries(&self, ranges: &[KeyRange], keys_only: bool) -> Result<Vec<Entry>, StoreError> {
        match reading::read(&self.connections, ranges, keys_only).await {
            Ok(snapshot) => Ok(snapshot.entries),
            Err(failure) => Err(self.connections.error(failure, RequestKind::Read)),
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        writing::put_many(&self.connections, entries).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        writing::delete_many(&self.connections, keys).await
    }

    async fn replace(
        &self,
        keys: Vec<String>,
        entries: Vec<(String, String)>,
    ) -> Result<Vec<Revision>, StoreError> {
        match writing::replace_at_once(&self.connections, &keys, &entries).await {
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
        writing::compare_and_swap(&self.connections, key, value, expected).await
    }

    async fn prepare(&self) {
        self.connections.prepare().await;
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        self.entries(ranges, false).await
    }

    async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(String, Revision)>, StoreError> {
        let entries = self.entries(ranges, true).await?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.revision)).collect())
    }

    async fn watch(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
        watching::watch(Arc::clone(&self.connections), ranges).await
    }

    async fn server_version(&self) -> Result<Option<String>, StoreError> {
        let version = self.connections.server_version().await;
        version.map(Some).map_err(|failure| self.connections.error(failure, RequestKind::Read))
    }

    fn address(&self) -> &str {
        self.connections.address()
    }
}
