//! The registry of the kinds of backend. The parser of URLs, the help, the configuration, the sentences of errors and
//! the Puppet module's type aliases and providers all follow from [`KINDS`].
//!
//! To add a kind: write its file here, with a [`BackendKind`], and enter it in [`KINDS`]. Then
//! `SNAPSHOTS=overwrite cargo test -p trigger --test cli --test puppet_module` writes the pages and Puppet files that
//! follow.

mod dummy;
mod etcd;
mod hub;

use std::fmt;
use std::hash::{Hash, Hasher};

#[cfg(feature = "clients")]
use crate::backend::{Backend, OpenError};
#[cfg(feature = "clients")]
use crate::credentials::Credentials;
#[cfg(feature = "clients")]
use crate::url::BackendUrl;

/// Every kind, in the order in which pages and sentences name them.
pub static KINDS: &[&BackendKind] = &[&hub::KIND, &etcd::KIND, &dummy::KIND];

/// The URL of the backend that is used where none is configured: the hub on this machine.
pub const DEFAULT_URL: &str = hub::DEFAULT_URL;

/// What one kind of backend is called, how its URLs look, and how it is opened.
pub struct BackendKind {
    /// Its name in the configuration (`[backends.NAME]`), as `--backend NAME` and as Puppet's provider.
    pub name: &'static str,
    /// The noun for one backend of this kind, with its article, within sentences.
    pub title: &'static str,
    /// What it does, for Puppet's reference.
    pub summary: &'static str,
    /// The schemes of its URLs; the plain one first.
    pub schemes: &'static [Scheme],
    /// How many servers a URL names.
    pub addresses: AddressCount,
    /// The URL that the bare name stands for where nothing is configured; absent where there is no obvious one.
    pub default_url: Option<&'static str>,
    /// A URL in canonical form, for pages and sentences.
    pub example: &'static str,
    /// What it can do with what it is given.
    pub access: Access,
    /// Prepares a backend without connecting to it.
    #[cfg(feature = "clients")]
    pub(crate) open: fn(&BackendUrl, &Credentials) -> Result<Backend, OpenError>,
}

/// The part of a URL before the colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Its text.
    pub name: &'static str,
    /// How connections are made under it.
    pub transport: Transport,
}

/// How bytes travel to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In the clear.
    Plain,
    /// Encrypted, with both ends' certificates verified.
    Tls,
}

impl Transport {
    /// Whether this version can connect that way. TLS has its schemes, so that a URL with one is answered with the
    /// reason, but no implementation yet.
    pub fn is_supported(self) -> bool {
        match self {
            Self::Plain => true,
            Self::Tls => false,
        }
    }
}

/// How many servers a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressCount {
    /// The URL is its scheme and a colon.
    None,
    /// One.
    One,
    /// One or more, which are members of one cluster.
    Several,
}

/// What a backend can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It keeps what it is given: an agent can be run on it, and outcomes can be read from it.
    ReadWrite,
    /// It only takes events.
    WriteOnly,
}

impl BackendKind {
    /// The schemes that this version can use.
    pub fn supported_schemes(&self) -> impl Iterator<Item = Scheme> {
        self.schemes.iter().copied().filter(|scheme| scheme.transport.is_supported())
    }

    /// How its URLs look, such as `hub+http://HOST:PORT`.
    pub fn url_forms(&self) -> Vec<String> {
        let addresses = match self.addresses {
            AddressCount::None => "",
            AddressCount::One => "//HOST:PORT",
            AddressCount::Several => "//HOST:PORT[,HOST:PORT…]",
        };
        self.supported_schemes().map(|scheme| format!("{}:{addresses}", scheme.name)).collect()
    }
}

impl fmt::Debug for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for BackendKind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for BackendKind {}

impl Hash for BackendKind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// The kind with this name.
pub fn by_name(name: &str) -> Option<&'static BackendKind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

/// The kind whose URLs have this scheme, supported or not.
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

/// The beginnings of URLs that name servers in the clear, as a sentence lists them.
pub fn plain_schemes() -> String {
    let kinds = KINDS.iter().filter(|kind| kind.addresses != AddressCount::None);
    let schemes = kinds.flat_map(|kind| kind.schemes).filter(|scheme| scheme.transport == Transport::Plain);
    list(schemes.map(|scheme| format!("{}://", scheme.name)), "or")
}

/// The beginnings of URLs of backends that an agent can be run on, as a sentence lists them.
pub fn readable_schemes() -> String {
    let kinds = KINDS.iter().filter(|kind| kind.access == Access::ReadWrite);
    list(kinds.flat_map(|kind| kind.supported_schemes()).map(|scheme| format!("{}://", scheme.name)), "or")
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
        assert_eq!(url_forms(), "hub+http://HOST:PORT, etcd://HOST:PORT[,HOST:PORT…] or dummy:");
        assert_eq!(readable_schemes(), "hub+http:// or etcd://");
    }

    /// A kind that can be written only has nothing to watch, so the registry and what is opened must agree.
    #[cfg(feature = "clients")]
    #[test]
    fn what_is_opened_can_do_what_the_registry_says() {
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
