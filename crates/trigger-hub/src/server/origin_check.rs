//! Refuses requests that a web page could send. On loopback nothing identifies the client, and a page that a browser
//! on this machine has loaded must not be able to fire: a page of another origin carries its `Origin`, one that
//! rebound its own name to loopback carries that name as `Host`, and a plain form cannot send JSON. Over TLS the client's
//! name is checked by itself; a browser that has a node's certificate sends it for any page, though.
//!
//! A client that reaches the hub through a forwarded port or a proxy names that one instead. Only the operator of the hub
//! knows such names, and allows them.

use std::net::SocketAddr;

use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use trigger_store::address::Address;

use super::refusal::Refusal;

/// The names by which a hub may be addressed.
#[derive(Debug)]
pub(super) struct OriginCheck {
    /// The names, each `HOST:PORT`; absent over TLS, where the client has verified the name.
    authorities: Option<Vec<String>>,
}

impl OriginCheck {
    /// Creates the check of a hub that listens on `address` and may be addressed as one of `allowed_hosts` too.
    pub(super) fn new(address: SocketAddr, allowed_hosts: &[Address]) -> Self {
        let port = address.port();
        let names = ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{host}:{port}"));
        let mut authorities = vec![address.to_string()];
        authorities.extend(names);
        authorities.extend(allowed_hosts.iter().map(Address::to_string));
        // Clients omit HTTP's own port.
        let bare: Vec<_> =
            authorities.iter().filter_map(|own| own.strip_suffix(":80")).map(str::to_owned).collect();
        authorities.extend(bare);
        Self { authorities: Some(authorities) }
    }

    /// Creates the check of a hub that speaks TLS.
    pub(super) fn for_tls() -> Self {
        Self { authorities: None }
    }

    /// Refuses a request that names another host, or comes from another origin.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let forbidden = |sentence: String| Refusal::new(StatusCode::FORBIDDEN, sentence);
        let Some(authorities) = &self.authorities else {
            // No program of a fleet sends it, and every browser does.
            return match headers.get(ORIGIN) {
                Some(_) => Err(forbidden(
                    "the request comes from a web page, and no page may use this hub".to_owned(),
                )),
                None => Ok(()),
            };
        };
        let knows = |authority: &str| authorities.iter().any(|own| own.eq_ignore_ascii_case(authority));
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let named = host.is_some_and(knows)
            && hosts.next().is_none()
            && uri.authority().is_none_or(|authority| knows(authority.as_str()));
        if !named {
            return Err(forbidden(unknown_host(&authorities[0], host)));
        }
        let own = |origin: &HeaderValue| {
            origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://")).is_some_and(knows)
        };
        if !headers.get_all(ORIGIN).iter().all(own) {
            return Err(forbidden(
                "the request comes from a web page of another origin, which may not use this hub".to_owned(),
            ));
        }
        Ok(())
    }
}

/// The sentence for a request that names another host. Only a name that has the form of an address is repeated.
fn unknown_host(own: &str, host: Option<&str>) -> String {
    let host = host.map(|host| if host.contains(':') { host.to_owned() } else { format!("{host}:80") });
    match host.and_then(|host| host.parse::<Address>().ok()) {
        Some(host) => format!(
            "the request's Host is not this hub's own: use http://{own}, or allow the name where the hub runs, with \
             '--allowed-host {host}' or with allowed_hosts = [\"{host}\"] under [hub] in its configuration"
        ),
        None => format!("the request's Host is not this hub's own: use http://{own}"),
    }
}

/// Refuses a body that is not declared as JSON: no page can declare that across origins without asking first.
pub(super) fn check_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the request needs 'Content-Type: application/json'",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, headers: &[(&'static str, &'static str)], expected: bool) {
        let answer = answer(address, &[], headers);
        assert_eq!(answer.is_ok(), expected, "{headers:?}");
    }

    fn answer(
        address: &str,
        allowed_hosts: &[&str],
        headers: &[(&'static str, &'static str)],
    ) -> Result<(), String> {
        let map = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        let allowed: Vec<Address> = allowed_hosts.iter().map(|host| host.parse().unwrap()).collect();
        let origin_check = OriginCheck::new(address.parse().unwrap(), &allowed);
        let answer = origin_check.check(&Uri::from_static("/v1/put"), &map);
        answer.map_err(|refusal| refusal.sentence)
    }

    #[test]
    fn a_forwarded_port_is_allowed_by_name_and_the_refusal_says_how() {
        let forwarded = [("host", "Hub.example.com:9000")];
        let refused = answer("127.0.0.1:8145", &[], &forwarded).unwrap_err();
        assert_eq!(
            refused,
            "the request's Host is not this hub's own: use http://127.0.0.1:8145, or allow the name where the hub runs, \
             with '--allowed-host hub.example.com:9000' or with allowed_hosts = [\"hub.example.com:9000\"] under [hub] in \
             its configuration"
        );
        let allowed = ["hub.example.com:9000", "proxy.example.com:80"];
        assert_eq!(answer("127.0.0.1:8145", &allowed, &forwarded), Ok(()));
        // Clients omit HTTP's own port.
        assert_eq!(answer("127.0.0.1:8145", &allowed, &[("host", "proxy.example.com")]), Ok(()));
        assert!(answer("127.0.0.1:8145", &allowed, &[("host", "hub.example.com:9001")]).is_err());
        let page = [forwarded[0], ("origin", "http://evil.example")];
        assert!(answer("127.0.0.1:8145", &allowed, &page).is_err());
        let hostile = answer("127.0.0.1:8145", &[], &[("host", "\"; rm -rf /")]).unwrap_err();
        assert_eq!(hostile, "the request's Host is not this hub's own: use http://127.0.0.1:8145");
    }

    #[test]
    fn a_hub_knows_its_own_names_only() {
        for host in ["127.0.0.1:8145", "localhost:8145", "LocalHost:8145", "[::1]:8145"] {
            check("127.0.0.1:8145", &[("host", host)], true);
        }
        for host in
            ["evil.example", "evil.example:8145", "127.0.0.1", "127.0.0.1:80", "localhost:8145.evil", ""]
        {
            check("127.0.0.1:8145", &[("host", host)], false);
        }
        check("127.0.0.1:8145", &[], false);
        check("127.0.0.5:8145", &[("host", "127.0.0.5:8145")], true);
        check("127.0.0.1:80", &[("host", "localhost")], true);
    }

    #[test]
    fn over_tls_any_name_is_good_and_no_page_is() {
        let check = |headers: &[(&'static str, &'static str)]| {
            let map =
                headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            OriginCheck::for_tls().check(&Uri::from_static("/v1/put"), &map.collect()).is_ok()
        };
        assert!(check(&[("host", "hub.example.com:8145")]));
        assert!(!check(&[("host", "hub.example.com:8145"), ("origin", "https://hub.example.com:8145")]));
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let host = ("host", "127.0.0.1:8145");
        check("127.0.0.1:8145", &[host, ("origin", "http://127.0.0.1:8145")], true);
        for origin in
            ["http://evil.example", "null", "https://127.0.0.1:8145", "http://127.0.0.1:81", "file://"]
        {
            check("127.0.0.1:8145", &[host, ("origin", origin)], false);
        }
    }
}
