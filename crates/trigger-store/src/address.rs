//! `HOST:PORT`, as URLs of backends name their servers.
//!
//! Parsing is strict, because the Puppet module accepts the same texts by a regular expression, and because an address
//! that no client can connect to must be refused as configuration rather than found at the first event.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// DNS's own limit for a name.
const MAX_HOST_BYTES: usize = 253;
/// DNS's own limit for what stands between two dots.
const MAX_LABEL_BYTES: usize = 63;

/// A host and a TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// A name in lower case, an IPv4 address, or an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is on this machine: `localhost` or an address of the loopback interface.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host.trim_end_matches('.') == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum InvalidAddress {
    #[error("each is HOST:PORT")]
    Form,
    #[error("an IPv6 address stands in brackets, as in [::1]:8145")]
    Brackets,
    #[error("its host is neither a name nor an IP address")]
    Host,
    #[error("it ends with its port: no path may follow")]
    Path,
    #[error("its port is not a number from 1 to 65535")]
    Port,
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidAddress::Form)?;
        if host.is_empty() || host.contains(['/', '@', '?', '#']) {
            return Err(InvalidAddress::Form);
        }
        if port.contains(['/', '?', '#']) {
            return Err(InvalidAddress::Path);
        }
        check_host(host)?;
        Ok(Self { host: host.to_ascii_lowercase(), port: parse_port(port)? })
    }
}

fn parse_port(text: &str) -> Result<u16, InvalidAddress> {
    // Rust's own parser takes a sign and leading zeros too.
    if text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidAddress::Port);
    }
    text.parse().map_err(|_| InvalidAddress::Port)
}

fn check_host(host: &str) -> Result<(), InvalidAddress> {
    let valid = if let Some(literal) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        // An IPv4 address inside has a second spelling, in digits and colons.
        !literal.contains('.') && literal.parse::<Ipv6Addr>().is_ok()
    } else if host.contains(':') {
        return Err(InvalidAddress::Brackets);
    } else {
        host.parse::<Ipv4Addr>().is_ok() || is_name(host)
    };
    if valid { Ok(()) } else { Err(InvalidAddress::Host) }
}

/// Whether a resolver may know this name; a dot at the end says that no search domain is to be appended.
fn is_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name whose last label is a number would be taken for an IPv4 address, which it is not.
    let last_is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    host.len() <= MAX_HOST_BYTES && name.split('.').all(is_label) && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = match text.parse::<Address>() {
            Ok(address) => address.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn a_host_is_a_name_or_an_ip_address() {
        for good in [
            "a:1",
            "a-b.c_d.example.com:65535",
            "127.0.0.1:8145",
            "[::1]:1",
            "[fe80:0:0:0:1:2:3:4]:1",
            "a.:1",
        ] {
            check(good, good);
        }
        check("LB01.Example.com:80", "lb01.example.com:80");
        check("[FE80::1]:80", "[fe80::1]:80");
        let long = format!("{}:1", "a".repeat(64));
        for bad in [
            "a b:1",
            "-a:1",
            "a-:1",
            "a..b:1",
            "1.2.3.999:1",
            "1:1",
            "ä:1",
            "[::1:1",
            "[x]:1",
            "[::ffff:1.2.3.4]:1",
            &long,
        ] {
            let expected = if bad == "[::1:1" { InvalidAddress::Brackets } else { InvalidAddress::Host };
            check(bad, &expected.to_string());
        }
    }

    #[test]
    fn an_ipv6_address_without_brackets_is_not_taken_for_a_name() {
        for bad in ["::1:8145", "fe80::1", "2001:db8::1:2379"] {
            check(bad, "an IPv6 address stands in brackets, as in [::1]:8145");
        }
    }

    #[test]
    fn an_address_has_no_path() {
        for bad in ["a:8145/path", "a:8145?x=1", "a:/x"] {
            check(bad, "it ends with its port: no path may follow");
        }
    }

    #[test]
    fn a_port_has_one_spelling() {
        for bad in ["a:", "a:0", "a:080", "a:+80", "a:65536", "a:http", "a:99999999999999999999"] {
            check(bad, "its port is not a number from 1 to 65535");
        }
        for bad in ["a", "", ":1", "user@h:1", "h/x:1", "h?x:1"] {
            check(bad, "each is HOST:PORT");
        }
    }
}
