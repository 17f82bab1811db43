//! An etcd cluster.

use crate::kind::{Access, AddressCount, BackendKind, Scheme, Transport};

pub(super) const KIND: BackendKind = BackendKind {
    name: "etcd",
    title: "an etcd cluster",
    summary: "Fires through etcd, at the URL that the configuration gives for it (`[backends.etcd]`).",
    schemes: &[
        Scheme { name: "etcd", transport: Transport::Plain, is_loopback_only: false },
        Scheme { name: "etcds", transport: Transport::Tls, is_loopback_only: false },
    ],
    addresses: AddressCount::Several,
    default_url: None,
    example: "etcd://127.0.0.1:2379",
    access: Access::ReadWrite,
    #[cfg(feature = "clients")]
    open,
};

#[cfg(feature = "clients")]
fn open(
    url: &crate::kind::BackendUrl,
    credentials: &crate::credentials::Credentials,
) -> Result<crate::backend::Backend, crate::backend::OpenError> {
    use crate::backend::Backend;
    use crate::connector::Connector;
    let connector = Connector::new(url, credentials, crate::etcd::ALPN)?;
    Ok(Backend::Store(std::sync::Arc::new(crate::etcd::EtcdStore::new(url, connector)?)))
}
