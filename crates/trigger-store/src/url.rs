//! The one URL that selects a backend.

use std::str::FromStr;

/// Where the hub listens unless told otherwise.
pub const DEFAULT_HUB_URL: &str = "hub+http://127.0.0.1:8145";

/// A backend as its URL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendUrl {
    /// `hub+http://HOST:PORT`
    Hub {
        /// `HOST:PORT`.
        authority: String,
    },
    /// `etcd://HOST:PORT[,HOST:PORT]…`
    Etcd {
        /// Each `HOST:PORT`.
        endpoints: Vec<String>,
    },
    /// `dummy:`
    Dummy,
}

/// Why a URL selects no backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum InvalidUrl {
    #[error("'{0}' selects no backend: give hub+http://HOST:PORT, etcd://HOST:PORT[,HOST:PORT…] or dummy:")]
    UnknownScheme(String),
    #[error("'{0}' needs TLS, which this version does not speak yet: use hub+http:// or etcd:// on loopback")]
    NeedsTls(String),
    #[error("'{url}' has a bad address '{address}': each is HOST:PORT")]
    BadAddress { url: String, address: String },
}

impl FromStr for BackendUrl {
    type Err = InvalidUrl;

    fn from_str(url: &str) -> Result<Self, InvalidUrl> {
        if url == "dummy:" {
            return Ok(Self::Dummy);
        }
        let address = |text: &str| {
            let valid = text.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok()
            });
            if valid {
                return Ok(text.to_owned());
            }
            Err(InvalidUrl::BadAddress { url: url.to_owned(), address: text.to_owned() })
        };
        match url.split_once("://") {
            Some(("hub+http", rest)) => Ok(Self::Hub { authority: address(rest.trim_end_matches('/'))? }),
            Some(("etcd", rest)) => {
                let endpoints = rest.trim_end_matches('/').split(',').map(address);
                Ok(Self::Etcd { endpoints: endpoints.collect::<Result<_, _>>()? })
            }
            Some(("hub+https" | "etcds", _)) => Err(InvalidUrl::NeedsTls(url.to_owned())),
            _ => Err(InvalidUrl::UnknownScheme(url.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: &str) {
        let got = match url.parse::<BackendUrl>() {
            Ok(backend) => format!("{backend:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn each_backend_has_its_url() {
        check("hub+http://127.0.0.1:8145", "Hub { authority: \"127.0.0.1:8145\" }");
        check("etcd://a:2379,[::1]:2379", "Etcd { endpoints: [\"a:2379\", \"[::1]:2379\"] }");
        check("dummy:", "Dummy");
    }

    #[test]
    fn a_bad_url_is_told_what_would_be_good() {
        check(
            "http://x",
            "'http://x' selects no backend: give hub+http://HOST:PORT, etcd://HOST:PORT[,HOST:PORT…] or dummy:",
        );
        check("etcd://a:2379,b", "'etcd://a:2379,b' has a bad address 'b': each is HOST:PORT");
        check("hub+http://user@h:1", "'hub+http://user@h:1' has a bad address 'user@h:1': each is HOST:PORT");
        check(
            "etcds://a:2379",
            "'etcds://a:2379' needs TLS, which this version does not speak yet: use hub+http:// or etcd:// on loopback",
        );
    }
}
