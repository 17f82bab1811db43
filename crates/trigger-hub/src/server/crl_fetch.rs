//! Fetches the CA's revocation lists from the Puppet server, because nothing else on a node keeps them up to date: agents
//! of Puppet 7 never fetch them again.
//!
//! What is fetched only counts if a CA that the hub trusts has signed it and it is newer than what the hub has. It is
//! stored in a file of its own, beside Puppet's, and read from there as any change of the hub's files is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use trigger_pki::{Pki, PkiError};
use trigger_store::address::Address;
use trigger_store::https::{self, HttpsError, HttpsUrl, Limits};

use super::metrics::Metrics;

/// How soon a fetch that failed is tried again, where the interval is longer.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// What bounds one fetch. In a list each revoked certificate takes about 40 bytes, so that it may hold a million of them.
const LIMITS: Limits = Limits { time: Duration::from_secs(30), bytes: 64 * 1024 * 1024 };

/// From where revocation lists are fetched, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlFetch {
    /// The Puppet server's address for them.
    pub url: CrlUrl,
    /// How often.
    pub interval: Duration,
    /// Where they are stored. The hub's certificates have to name the file as one of more lists.
    pub file: PathBuf,
}

/// An HTTPS URL with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlUrl(HttpsUrl);

/// A text is not an HTTPS URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not an HTTPS URL such as \
     https://puppet.example.com:8140/puppet-ca/v1/certificate_revocation_list/ca"
)]
pub struct InvalidCrlUrl(String);

/// Revocation lists could not be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Request(HttpsError),
    #[error("{0}: use the path of the Puppet server's own lists, and allow this node there")]
    Refused(HttpsError),
    #[error(transparent)]
    Files(#[from] PkiError),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl FromStr for CrlUrl {
    type Err = InvalidCrlUrl;

    fn from_str(text: &str) -> Result<Self, InvalidCrlUrl> {
        let url: Result<HttpsUrl, _> = text.parse();
        url.ok().filter(|url| !url.path().is_empty()).map(Self).ok_or_else(|| InvalidCrlUrl(text.to_owned()))
    }
}

impl CrlUrl {
    fn server(&self) -> &Address {
        self.0.server()
    }
}

/// Fetches lists, for as long as it is polled.
pub(super) async fn keep_fetching(pki: Pki, settings: CrlFetch, metrics: Arc<Metrics>) {
    let server = settings.url.server();
    loop {
        let wait = match fetch(&pki, &settings).await {
            Ok(true) => {
                metrics.crl_fetched("new");
                tracing::info!(%server, file = %settings.file.display(), "newer revocation lists were fetched");
                settings.interval
            }
            Ok(false) => {
                metrics.crl_fetched("unchanged");
                tracing::debug!(%server, "the revocation lists have not changed");
                settings.interval
            }
            Err(error) => {
                metrics.crl_fetched("failed");
                tracing::warn!(%server, "revocation lists were not fetched, those of before stay in use: {error}");
                settings.interval.min(RETRY_INTERVAL)
            }
        };
        sleep(wait).await;
    }
}

/// Fetches lists and stores them if they are newer. Returns whether they were.
async fn fetch(pki: &Pki, settings: &CrlFetch) -> Result<bool, FetchError> {
    let pem = get(pki, &settings.url).await?;
    if !pki.trust().has_newer_lists(&settings.file, &pem)? {
        return Ok(false);
    }
    let path = settings.file.clone();
    let written = spawn_blocking(move || replace(&path, &pem)).await;
    match written.map_err(io::Error::other).and_then(|written| written) {
        Ok(()) => Ok(true),
        Err(source) => Err(FetchError::Write { path: settings.file.clone(), source }),
    }
}

async fn get(pki: &Pki, url: &CrlUrl) -> Result<Bytes, FetchError> {
    https::get(pki, &url.0, LIMITS).await.map_err(|error| match error {
        HttpsError::Status { .. } => FetchError::Refused(error),
        error => FetchError::Request(error),
    })
}

/// Replaces a file by a whole one.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = trigger_files::open(File::options().write(true).create(true).truncate(true), &new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_urls_with_a_path_are_taken() {
        let url: CrlUrl = "https://puppet:8140/puppet-ca/v1/certificate_revocation_list/ca".parse().unwrap();
        assert_eq!(url.server().to_string(), "puppet:8140");
        assert_eq!(url.0.path(), "/puppet-ca/v1/certificate_revocation_list/ca");
        assert_eq!("https://puppet/crl".parse::<CrlUrl>().unwrap().server().to_string(), "puppet:443");
        for bad in
            ["http://puppet/crl", "https://puppet", "puppet/crl", "https:///crl", "https://puppet/a b", ""]
        {
            let error = bad.parse::<CrlUrl>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("'{bad}' is not an HTTPS URL such as")), "{error}");
        }
    }
}
