//! Addresses and URLs, as the configuration, the command line and Puppet's own files name them.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use trigger_hub::{CrlUrl, ListenAddress};
use trigger_store::address::Address;
use trigger_store::https::HttpsUrl;
use trigger_store::url::BackendUrl;

/// Each has one form, which is read as the same.
pub(crate) fn urls(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(address) = stays::<Address>(text) {
        assert!(address.port() != 0 && !address.host().is_empty(), "{address:?}");
    }
    if let Some(url) = stays::<BackendUrl>(text) {
        let is_here = url.addresses().iter().all(Address::is_loopback);
        assert!(is_here || !url.scheme().is_loopback_only, "{url} is another machine");
    }
    if let Some(url) = stays::<HttpsUrl>(text) {
        stays::<HttpsUrl>(&url.join("/path").to_string()).expect("what is below a URL is one");
    }
    let is_with_path = text.parse::<HttpsUrl>().is_ok_and(|url| !url.path().is_empty());
    assert_eq!(text.parse::<CrlUrl>().is_ok(), is_with_path);
    if let Ok(address) = text.parse::<ListenAddress>() {
        let _ = address.needs_tls();
    }
}

fn stays<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    assert_eq!(value.to_string().parse().ok().as_ref(), Some(&value));
    Some(value)
}
