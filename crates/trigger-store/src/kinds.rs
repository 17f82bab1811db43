//! The registry of the kinds of backend. The parser of URLs, the help, the configuration, the sentences of errors and
//! the Puppet module's type aliases and providers all follow from [`KINDS`].
//!
//! To add a kind: write its file here, with a [`BackendKind`], and enter it in [`KINDS`]. Then
//! `SNAPSHOTS=overwrite cargo test -p trigger --test cli --test puppet_module` writes the pages and Puppet files that
//! follow.

mod dummy;
mod etcd;
mod hub;

pub use crate::kind::{Access, AddressCount, BackendKind, Scheme, Transport};

/// Every kind, in the order in which pages and sentences name them.
pub static KINDS: &[&BackendKind] = &[&hub::KIND, &etcd::KIND, &dummy::KIND];

/// The URL of the backend that is used where none is configured: the hub on this machine.
pub const DEFAULT_URL: &str = hub::DEFAULT_URL;

/// The kind with this name.
pub fn by_name(name: &str) -> Option<&'static BackendKind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

/// The kind whose URLs have this scheme.
pub fn by_scheme(name: &str) -> Option<(&'static BackendKind, Scheme)> {
    let mut schemes = KINDS.iter().flat_map(|kind| kind.schemes.iter().map(move |scheme| (*kind, *scheme)));
    schemes.find(|(_, scheme)| scheme.name == name)
}

/// The names of all kinds, as a sentence lists them with "and" or "or".
pub fn names(conjunction: &str) -> String {
    list(KINDS.iter().map(|kind| kind.name.to_owned()), conjunction)
}

/// The forms of all URLs, as a sentence lists them.
pub fn url_forms() -> String {
    list(KINDS.iter().flat_map(|kind| kind.url_forms()), "or")
}

/// The beginnings of URLs of backends that an agent can be run on, as a sentence lists them.
pub fn readable_schemes() -> String {
    let kinds = KINDS.iter().filter(|kind| kind.access == Access::ReadWrite);
    list(kinds.flat_map(|kind| kind.schemes).map(|scheme| format!("{}://", scheme.name)), "or")
}

fn list(items: impl Iterator<Item = String>, conjunction: &str) -> String {
    let items: Vec<String> = items.collect();
    match items.as_slice() {
        [most @ .., last] if !most.is_empty() => format!("{} {conjunction} {last}", most.join(", ")),
        _ => items.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_schemes_are_unique() {
        for kind in KINDS {
            assert_eq!(by_name(kind.name), Some(*kind));
            for scheme in kind.schemes {
                assert_eq!(by_scheme(scheme.name), Some((*kind, *scheme)));
            }
        }
    }

    #[test]
    fn defaults_are_urls_of_their_kind() {
        for kind in KINDS {
            if let Some(url) = kind.default_url {
                assert_eq!(url.parse::<crate::url::BackendUrl>().unwrap().kind(), *kind);
            }
        }
        assert_eq!(KINDS[0].default_url, Some(DEFAULT_URL));
    }

    #[test]
    fn sentences_name_every_kind() {
        assert_eq!(names("and"), "hub, etcd and dummy");
        assert_eq!(
            url_forms(),
            "hub+http://localhost:PORT, hub+https://HOST:PORT, etcd://HOST:PORT[,HOST:PORT…], \
             etcds://HOST:PORT[,HOST:PORT…] or dummy:"
        );
        assert_eq!(readable_schemes(), "hub+http://, hub+https://, etcd:// or etcds://");
    }

    /// A kind that can be written only has nothing to watch, so the registry and what is opened must agree.
    #[cfg(feature = "clients")]
    #[test]
    fn what_is_opened_can_do_what_the_registry_says() {
        use crate::backend::Backend;
        use crate::credentials::Credentials;
        use crate::url::BackendUrl;
        for kind in KINDS {
            let url: BackendUrl = kind.example.parse().unwrap();
            let backend = Backend::open(&url, &Credentials::default()).unwrap();
            assert_eq!(backend.store().is_some(), kind.access == Access::ReadWrite, "{}", kind.name);
            if let Some(store) = backend.store() {
                assert_eq!(store.address(), kind.example);
            }
        }
    }
}
