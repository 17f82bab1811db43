//! A kind of backend, and the URL that selects one of it. Which kinds there are is in [`kinds`](crate::kinds).

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::address::Address;
#[cfg(feature = "clients")]
use crate::backend::{Backend, OpenError};
#[cfg(feature = "clients")]
use crate::credentials::Credentials;

/// One kind of backend: its names, its URLs, and the function that opens it.
pub struct BackendKind {
    /// Its name in the configuration (`[backends.NAME]`), as `--backend NAME` and as Puppet's provider.
    pub name: &'static str,
    /// The noun for one backend of this kind, with its article, within sentences.
    pub title: &'static str,
    /// A description, for Puppet's reference.
    pub summary: &'static str,
    /// The schemes of its URLs; the plain one first.
    pub schemes: &'static [Scheme],
    /// How many servers a URL names.
    pub addresses: AddressCount,
    /// The URL that the bare name stands for where nothing is configured; absent where there is no obvious one.
    pub default_url: Option<&'static str>,
    /// A URL in canonical form, for pages and sentences.
    pub example: &'static str,
    /// Whether entries can be read from it.
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
    /// Whether servers have to be on this machine.
    pub is_loopback_only: bool,
}

/// How bytes travel to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In the clear.
    Plain,
    /// Encrypted, with both ends' certificates verified.
    Tls,
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

/// The operations that a backend supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It keeps its entries: an agent can run on it, and outcomes can be read from it.
    ReadWrite,
    /// It only takes events.
    WriteOnly,
}

impl BackendKind {
    /// How its URLs look, such as `hub+https://HOST:PORT`.
    pub fn url_forms(&self) -> Vec<String> {
        let form = |scheme: &Scheme| {
            let host = if scheme.is_loopback_only { "localhost" } else { "HOST" };
            let addresses = match self.addresses {
                AddressCount::None => String::new(),
                AddressCount::One => format!("//{host}:PORT"),
                AddressCount::Several => format!("//{host}:PORT[,{host}:PORT…]"),
            };
            format!("{}:{addresses}", scheme.name)
        };
        self.schemes.iter().map(form).collect()
    }

    /// Its scheme whose connections are encrypted.
    pub fn tls_scheme(&self) -> Option<Scheme> {
        self.schemes.iter().copied().find(|scheme| scheme.transport == Transport::Tls)
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

/// The URL of a backend that this program can talk to; every other text is refused when it is parsed, which is before
/// anything is stored for it.
///
/// [`fmt::Display`] gives the canonical form: hosts in lower case, each address once, no slash at the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendUrl {
    kind: &'static BackendKind,
    scheme: Scheme,
    addresses: Vec<Address>,
}

impl BackendUrl {
    /// For the parser, which checks that the kind has the scheme and as many addresses.
    pub(crate) fn new(kind: &'static BackendKind, scheme: Scheme, addresses: Vec<Address>) -> Self {
        Self { kind, scheme, addresses }
    }

    /// The kind of backend that the URL selects.
    pub fn kind(&self) -> &'static BackendKind {
        self.kind
    }

    /// The part before the colon, which says whether connections are plain or encrypted.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether its connections are encrypted, for which this node needs its certificates.
    pub fn uses_tls(&self) -> bool {
        self.scheme.transport == Transport::Tls
    }

    /// The servers: as many as the kind has, each once, in the order given.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme.name)?;
        for (position, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if position == 0 { "//" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(feature = "clients")]
impl Backend {
    /// Prepares the backend that a URL selects. Connects when it is first used.
    ///
    /// # Errors
    /// Every error is one of configuration: no server has been asked anything yet.
    pub fn open(url: &BackendUrl, credentials: &Credentials) -> Result<Self, OpenError> {
        (url.kind().open)(url, credentials)
    }
}
