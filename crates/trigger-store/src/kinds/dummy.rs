//! A backend that takes events and does nothing with them.

use crate::kind::{Access, AddressCount, BackendKind, Scheme, Transport};

pub(super) const KIND: BackendKind = BackendKind {
    name: "dummy",
    title: "a dummy",
    summary: "Goes the whole way and delivers nothing: a dry run. Used only when named.",
    schemes: &[Scheme { name: "dummy", transport: Transport::Plain, is_loopback_only: false }],
    addresses: AddressCount::None,
    default_url: Some("dummy:"),
    example: "dummy:",
    access: Access::WriteOnly,
    #[cfg(feature = "clients")]
    open: |_, _| Ok(crate::backend::Backend::WriteOnly),
};
