//! Reads the one URL that selects a backend and says where it is.

use std::str::FromStr;

use crate::address::{Address, InvalidAddress};
use crate::kind::AddressCount;
pub use crate::kind::BackendUrl;
use crate::kinds;

/// A URL selects no backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum InvalidUrl {
    #[error("'{0}' selects no backend: give {forms}", forms = kinds::url_forms())]
    UnknownScheme(String),
    #[error(
        "'{url}' would speak to another machine in the clear, which works on loopback only: use {scheme}://{address}"
    )]
    NeedsTls { url: String, scheme: &'static str, address: Address },
    #[error("'{url}' has a bad address '{address}': {source}")]
    BadAddress { url: String, address: String, source: InvalidAddress },
    #[error("'{url}' names several addresses, but {kind} has one")]
    SeveralAddresses { url: String, kind: &'static str },
}

impl FromStr for BackendUrl {
    type Err = InvalidUrl;

    fn from_str(url: &str) -> Result<Self, InvalidUrl> {
        let unknown = || InvalidUrl::UnknownScheme(url.to_owned());
        let (scheme, rest) = url.split_once(':').ok_or_else(unknown)?;
        let (kind, scheme) = kinds::by_scheme(scheme).ok_or_else(unknown)?;
        let addresses = match kind.addresses {
            AddressCount::None if rest.is_empty() => Vec::new(),
            AddressCount::None => return Err(unknown()),
            AddressCount::One | AddressCount::Several => {
                let rest = rest.strip_prefix("//").ok_or_else(unknown)?;
                parse_addresses(url, rest.strip_suffix('/').unwrap_or(rest))?
            }
        };
        if kind.addresses == AddressCount::One && addresses.len() > 1 {
            return Err(InvalidUrl::SeveralAddresses { url: url.to_owned(), kind: kind.title });
        }
        if scheme.is_loopback_only
            && let Some(address) = addresses.iter().find(|address: &&Address| !address.is_loopback())
        {
            let scheme = kind.tls_scheme().map_or(scheme.name, |scheme| scheme.name);
            return Err(InvalidUrl::NeedsTls { url: url.to_owned(), scheme, address: address.clone() });
        }
        Ok(Self::new(kind, scheme, addresses))
    }
}

fn parse_addresses(url: &str, list: &str) -> Result<Vec<Address>, InvalidUrl> {
    let mut addresses = Vec::new();
    for text in list.split(',') {
        let address = text.parse().map_err(|source| InvalidUrl::BadAddress {
            url: url.to_owned(),
            address: text.to_owned(),
            source,
        })?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: &str) {
        let got = match url.parse::<BackendUrl>() {
            Ok(backend) => format!("{} at {backend}", backend.kind().name),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn each_backend_has_its_url() {
        check("hub+http://127.0.0.1:8145", "hub at hub+http://127.0.0.1:8145");
        check("hub+https://hub:8145", "hub at hub+https://hub:8145");
        check("etcd://a:2379,[::1]:2379", "etcd at etcd://a:2379,[::1]:2379");
        check("etcds://a:2379,b:2379", "etcd at etcds://a:2379,b:2379");
        check("dummy:", "dummy at dummy:");
    }

    #[test]
    fn one_backend_has_one_form() {
        check("hub+https://Hub.example.com:8145/", "hub at hub+https://hub.example.com:8145");
        check("hub+http://LocalHost:8145/", "hub at hub+http://localhost:8145");
        check("etcd://A:1,b:2,a:1", "etcd at etcd://a:1,b:2");
    }

    #[test]
    fn the_form_that_is_shown_is_parsed_again() {
        for kind in kinds::KINDS {
            let url: BackendUrl = kind.example.parse().unwrap();
            assert_eq!(url.kind(), *kind);
            assert_eq!(url.to_string(), kind.example);
        }
    }

    #[test]
    fn a_bad_url_is_answered_with_what_would_be_good() {
        check("http://x", &format!("'http://x' selects no backend: give {}", kinds::url_forms()));
        for unknown in ["", "hub", "etcd:a:1", "dummy:x", "dummy://", "HUB+HTTP://a:1"] {
            check(unknown, &format!("'{unknown}' selects no backend: give {}", kinds::url_forms()));
        }
        check("etcd://a:2379,b", "'etcd://a:2379,b' has a bad address 'b': each is HOST:PORT");
        check("hub+http://user@h:1", "'hub+http://user@h:1' has a bad address 'user@h:1': each is HOST:PORT");
        check(
            "hub+http://::1:8145",
            "'hub+http://::1:8145' has a bad address '::1:8145': an IPv6 address stands in brackets, as in [::1]:8145",
        );
        check("hub+http://a:1,b:2", "'hub+http://a:1,b:2' names several addresses, but a hub has one");
    }

    #[test]
    fn a_hub_on_another_machine_is_not_spoken_to_in_the_clear() {
        for local in ["127.0.0.1", "127.1.2.3", "localhost", "localhost.", "[::1]", "[0:0::0:1]"] {
            check(&format!("hub+http://{local}:1"), &format!("hub at hub+http://{local}:1"));
        }
        for remote in ["hub.example.com", "localhost.example.com", "10.0.0.1", "[::]", "[::2]", "0.0.0.0"] {
            check(
                &format!("hub+http://{remote}:1/"),
                &format!(
                    "'hub+http://{remote}:1/' would speak to another machine in the clear, which works on loopback \
                     only: use hub+https://{remote}:1"
                ),
            );
        }
    }
}
