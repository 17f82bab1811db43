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
use axum::http::header::{ACCEPT, HOST};
use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use trigger_pki::{OtherEnd, Pki, PkiError};
use trigger_store::address::Address;

use super::metrics::Metrics;

/// How long one fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// How soon a fetch that failed is tried again, where the interval is longer.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// The largest list in bytes: each revoked certificate takes about 40, so a million of them.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// The port of HTTPS where a URL has none.
const DEFAULT_PORT: u16 = 443;

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

/// An HTTPS URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlUrl {
    server: Address,
    path: String,
}

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
    #[error("cannot connect to {server}: {source}")]
    Connect { server: Address, source: io::Error },
    #[error("{0}")]
    Tls(String),
    #[error(transparent)]
    Files(#[from] PkiError),
    #[error("{server} does not answer as an HTTP server: {source}")]
    Http { server: Address, source: hyper::Error },
    #[error(
        "{server} answered {status} to GET {path}: use the path of the Puppet server's own lists, and allow this node there"
    )]
    Status { server: Address, path: String, status: StatusCode },
    #[error("{server} sent less or more than a list: {reason}")]
    Body { server: Address, reason: String },
    #[error("{server} has not answered for {} s", FETCH_TIMEOUT.as_secs())]
    TimedOut { server: Address },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl FromStr for CrlUrl {
    type Err = InvalidCrlUrl;

    fn from_str(text: &str) -> Result<Self, InvalidCrlUrl> {
        let invalid = || InvalidCrlUrl(text.to_owned());
        let rest = text.strip_prefix("https://").ok_or_else(invalid)?;
        let (authority, path) = rest.split_at(rest.find('/').ok_or_else(invalid)?);
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains('#') {
            return Err(invalid());
        }
        let server = authority.parse().or_else(|_| format!("{authority}:{DEFAULT_PORT}").parse());
        Ok(Self { server: server.map_err(|_| invalid())?, path: path.to_owned() })
    }
}

/// Fetches lists, for as long as it is polled.
pub(super) async fn keep_fetching(pki: Pki, settings: CrlFetch, metrics: Arc<Metrics>) {
    let server = &settings.url.server;
    loop {
        let fetched = match timeout(FETCH_TIMEOUT, fetch(&pki, &settings)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(FetchError::TimedOut { server: server.clone() }),
        };
        let wait = match fetched {
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
    let server = || url.server.clone();
    let host = url.server.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream = TcpStream::connect((host.as_str(), url.server.port()))
        .await
        .map_err(|source| FetchError::Connect { server: server(), source })?;
    let handshake = pki.client_handshake(&[b"http/1.1"])?;
    let name = ServerName::try_from(host)
        .map_err(|_| FetchError::Tls(format!("{} is not a name that a certificate can have", url.server)))?;
    let stream = TlsConnector::from(Arc::clone(&handshake.config)).connect(name, stream).await;
    let explain = |error: &io::Error| {
        let end = OtherEnd::Server(&url.server.to_string());
        let sentence = pki.explain_io(end, error, handshake.refusal().as_ref());
        FetchError::Tls(sentence.unwrap_or_else(|| format!("no TLS connection with {}: {error}", url.server)))
    };
    let stream = stream.map_err(|error| explain(&error))?;
    let http = |source| FetchError::Http { server: server(), source };
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let request = Request::get(&url.path)
        .header(HOST, url.server.to_string())
        .header(ACCEPT, "text/plain")
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Body { server: server(), reason: error.to_string() })?;
    let answered = async {
        let answer = requests.send_request(request).await.map_err(http)?;
        if answer.status() != StatusCode::OK {
            let (path, status) = (url.path.clone(), answer.status());
            return Err(FetchError::Status { server: server(), path, status });
        }
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        let body = body.map_err(|error| FetchError::Body { server: server(), reason: error.to_string() })?;
        Ok(body.to_bytes())
    };
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        // The answer may be complete all the same; otherwise it is an error by itself.
        _ = connection => answered.await,
    }
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
        assert_eq!(url.server.to_string(), "puppet:8140");
        assert_eq!(url.path, "/puppet-ca/v1/certificate_revocation_list/ca");
        assert_eq!("https://puppet/crl".parse::<CrlUrl>().unwrap().server.to_string(), "puppet:443");
        for bad in
            ["http://puppet/crl", "https://puppet", "puppet/crl", "https:///crl", "https://puppet/a b", ""]
        {
            let error = bad.parse::<CrlUrl>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("'{bad}' is not an HTTPS URL such as")), "{error}");
        }
    }
}
