//! The backends that this node's configuration names, and how the address of an event in the outbox is read with them.
//!
//! An event that is fired while the node has no configuration yet is stored without a URL, or with the bare name of a
//! kind: it is for the backend that the node gets configured.

use trigger_store::kinds;
use trigger_store::url::{BackendUrl, InvalidUrl};

/// The address of an event for the backend that its node gets configured.
pub const UNADDRESSED: &str = "";

/// The backends of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeBackends {
    own: BackendUrl,
    /// The URLs that the bare names of kinds stand for, at most one of each kind.
    named: Vec<BackendUrl>,
}

impl NodeBackends {
    /// `own` is the backend of the node, and `named` has the URLs that the bare names of kinds stand for.
    pub fn new(own: BackendUrl, named: Vec<BackendUrl>) -> Self {
        Self { own, named }
    }

    /// The backend of the node.
    pub fn own(&self) -> &BackendUrl {
        &self.own
    }

    /// The URLs that the bare names of kinds stand for.
    pub fn named(&self) -> &[BackendUrl] {
        &self.named
    }

    /// Whether the configuration of this node names a backend.
    pub fn include(&self, url: &BackendUrl) -> bool {
        self.all().any(|known| known == url)
    }

    /// The URL that an event's address stands for: a URL, the bare name of a kind, or [`UNADDRESSED`].
    ///
    /// # Errors
    /// [`InvalidUrl`] if the address selects no backend, or a kind that has no URL here.
    pub fn resolve(&self, address: &str) -> Result<BackendUrl, InvalidUrl> {
        if address == UNADDRESSED {
            return Ok(self.own.clone());
        }
        let Some(kind) = kinds::by_name(address) else { return address.parse() };
        let known = self.all().find(|url| url.kind() == kind);
        known.map_or_else(|| kind.default_url.unwrap_or(address).parse(), |url| Ok(url.clone()))
    }

    fn all(&self) -> impl Iterator<Item = &BackendUrl> {
        self.named.iter().chain([&self.own])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> BackendUrl {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_read_with_the_configuration_of_the_node() {
        let node = NodeBackends::new(url("etcd://own:1"), vec![url("hub+https://table:1")]);
        let check = |address: &str, expected: &str| match node.resolve(address) {
            Ok(url) => assert_eq!(url.to_string(), expected, "{address}"),
            Err(error) => assert!(error.to_string().starts_with(expected), "{address}: {error}"),
        };
        check(UNADDRESSED, "etcd://own:1");
        check("etcd", "etcd://own:1");
        check("hub", "hub+https://table:1");
        check("dummy", "dummy:");
        check("etcd://elsewhere:1", "etcd://elsewhere:1");
        check("hub+http://::1:1", "'hub+http://::1:1' has a bad address");
        check("nonsense", "'nonsense' selects no backend");
        assert!(node.include(&url("hub+https://table:1")) && !node.include(&url("etcd://elsewhere:1")));
        let bare = NodeBackends::new(url("hub+https://own:1"), Vec::new());
        assert!(bare.resolve("etcd").is_err(), "no etcd is known here");
    }
}
