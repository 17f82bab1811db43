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
        "'{0}' needs TLS, which this version does not speak yet: use {schemes} on loopback",
        schemes = kinds::plain_schemes()
    )]
    NeedsTls(String),
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
                if !scheme.transport.is_supported() {
                    return Err(InvalidUrl::NeedsTls(url.to_owned()));
                }
                parse_addresses(url, rest.strip_suffix('/').unwrap_or(rest))?
            }
        };
        if kind.addresses == AddressCount::One && addresses.len() > 1 {
            return Err(InvalidUrl::SeveralAddresses { url: url.to_owned(), kind: kind.title });
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
        check("etcd://a:2379,[::1]:2379", "etcd at etcd://a:2379,[::1]:2379");
        check("dummy:", "dummy at dummy:");
    }

    #[test]
    fn one_backend_has_one_form() {
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
        check(
            "http://x",
            "'http://x' selects no backend: give hub+http://HOST:PORT, etcd://HOST:PORT[,HOST:PORT…] or dummy:",
        );
        for unknown in ["", "hub", "etcd:a:1", "dummy:x", "dummy://", "HUB+HTTP://a:1"] {
            check(
                unknown,
                &format!(
                    "'{unknown}' selects no backend: give hub+http://HOST:PORT, etcd://HOST:PORT[,HOST:PORT…] or dummy:"
                ),
            );
        }
        check("etcd://a:2379,b", "'etcd://a:2379,b' has a bad address 'b': each is HOST:PORT");
        check("hub+http://user@h:1", "'hub+http://user@h:1' has a bad address 'user@h:1': each is HOST:PORT");
        check(
            "hub+http://::1:8145",
            "'hub+http://::1:8145' has a bad address '::1:8145': an IPv6 address stands in brackets, as in [::1]:8145",
        );
        check("hub+http://a:1,b:2", "'hub+http://a:1,b:2' names several addresses, but a hub has one");
        for tls in ["etcds://a:2379", "hub+https://a:8145"] {
            check(
                tls,
                &format!(
                    "'{tls}' needs TLS, which this version does not speak yet: use hub+http:// or etcd:// on loopback"
                ),
            );
        }
    }
}
