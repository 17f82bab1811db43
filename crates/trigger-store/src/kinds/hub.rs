//! Trigger's own hub.

use crate::kind::{Access, AddressCount, BackendKind, Scheme, Transport};

/// The default address of a hub.
pub(super) const DEFAULT_URL: &str = "hub+http://127.0.0.1:8145";

pub(super) const KIND: BackendKind = BackendKind {
    name: "hub",
    title: "a hub",
    summary: "Fires through the hub, at the URL that the configuration gives for it (`[backends.hub]`).",
    schemes: &[
        Scheme { name: "hub+http", transport: Transport::Plain, is_loopback_only: true },
        Scheme { name: "hub+https", transport: Transport::Tls, is_loopback_only: false },
    ],
    addresses: AddressCount::One,
    default_url: Some(DEFAULT_URL),
    example: DEFAULT_URL,
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
    let connector = Connector::new(url, credentials, crate::hub::ALPN)?;
    Ok(Backend::Store(std::sync::Arc::new(crate::hub::HubStore::new(url, connector))))
}
