//! A backend by its URL: a full store, or one that only takes events.

use std::sync::Arc;

#[cfg(feature = "clients")]
use crate::etcd::EtcdStore;
#[cfg(feature = "clients")]
use crate::hub::HubStore;
use crate::store::Store;
#[cfg(feature = "clients")]
use crate::store::StoreError;
#[cfg(feature = "clients")]
use crate::url::BackendUrl;

/// What a URL selects.
#[derive(Clone)]
pub enum Backend {
    /// Keeps what it is given, and tells.
    Store(Arc<dyn Store>),
    /// Takes events and does nothing with them: for dry runs.
    Dummy,
}

impl Backend {
    /// Prepares the backend. Connects when it is first used.
    #[cfg(feature = "clients")]
    pub fn open(url: &BackendUrl) -> Result<Self, StoreError> {
        Ok(match url {
            BackendUrl::Hub { authority } => Self::Store(Arc::new(HubStore::new(authority))),
            BackendUrl::Etcd { endpoints } => Self::Store(Arc::new(EtcdStore::connect(endpoints)?)),
            BackendUrl::Dummy => Self::Dummy,
        })
    }

    /// The store, where there is one to read from.
    pub fn store(&self) -> Option<&Arc<dyn Store>> {
        match self {
            Self::Store(store) => Some(store),
            Self::Dummy => None,
        }
    }
}
