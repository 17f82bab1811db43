//! Single requests to HTTPS servers that are no backends: PuppetDB, and the Puppet server's CA. Both ends verify each other by
//! the node's certificates; what is answered is bounded in size and time.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use trigger_core::duration;
use trigger_pki::{OtherEnd, Pki, PkiError};

use crate::address::Address;

/// The port of HTTPS where a URL has none.
const DEFAULT_PORT: u16 = 443;
/// How much of a refusal's body an error repeats, in characters.
const QUOTED_CHARS: usize = 200;

/// An HTTPS URL: a server, and a path that may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsUrl {
    server: Address,
    path: String,
}

/// A text is not an HTTPS URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an HTTPS URL such as https://puppet.example.com:8140/path")]
pub struct InvalidHttpsUrl(String);

impl HttpsUrl {
    /// The server.
    pub fn server(&self) -> &Address {
        &self.server
    }

    /// The path; empty, or with its first slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The URL of what is below this one. `path` begins with a slash.
    #[must_use]
    pub fn join(&self, path: &str) -> Self {
        Self { server: self.server.clone(), path: format!("{}{path}", self.path.trim_end_matches('/')) }
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.server, self.path)
    }
}

impl FromStr for HttpsUrl {
    type Err = InvalidHttpsUrl;

    fn from_str(text: &str) -> Result<Self, InvalidHttpsUrl> {
        let invalid = || InvalidHttpsUrl(text.to_owned());
        let rest = text.strip_prefix("https://").ok_or_else(invalid)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains('#') {
            return Err(invalid());
        }
        let server = authority.parse().or_else(|_| format!("{authority}:{DEFAULT_PORT}").parse());
        Ok(Self { server: server.map_err(|_| invalid())?, path: path.to_owned() })
    }
}

/// What bounds a request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long it may take, with the connection.
    pub time: Duration,
    /// The most bytes of the answer's body.
    pub bytes: usize,
}

/// A request came to nothing.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum HttpsError {
    #[error("cannot connect to {server}: {source}")]
    Connect { server: Address, source: io::Error },
    #[error("{0}")]
    Tls(String),
    #[error(transparent)]
    Files(#[from] PkiError),
    #[error("{server} does not answer as an HTTP server: {source}")]
    Http { server: Address, source: hyper::Error },
    #[error("{server} answered {status} to {method} {path}{said}")]
    Status { server: Address, method: Method, path: String, status: StatusCode, said: String },
    #[error("{server} sent more than {limit} bytes")]
    TooLong { server: Address, limit: usize },
    #[error("the answer of {server} broke off: {reason}")]
    Body { server: Address, reason: String },
    #[error("{server} has not answered for {}", duration::format_short(*limit))]
    TimedOut { server: Address, limit: Duration },
}

/// Gets what is at a URL, as plain text.
///
/// # Errors
/// [`HttpsError`]; any status but 200 is one.
pub async fn get(pki: &Pki, url: &HttpsUrl, limits: Limits) -> Result<Bytes, HttpsError> {
    request(pki, url, limits, Method::GET, "text/plain", None).await
}

/// Posts a JSON document and returns the JSON document of the answer.
///
/// # Errors
/// [`HttpsError`]; any status but 200 is one.
pub async fn post_json(pki: &Pki, url: &HttpsUrl, limits: Limits, body: String) -> Result<Bytes, HttpsError> {
    request(pki, url, limits, Method::POST, "application/json", Some(body)).await
}

async fn request(
    pki: &Pki,
    url: &HttpsUrl,
    limits: Limits,
    method: Method,
    form: &'static str,
    body: Option<String>,
) -> Result<Bytes, HttpsError> {
    let answer = send(pki, url, limits.bytes, method, form, body);
    let timed_out = || HttpsError::TimedOut { server: url.server.clone(), limit: limits.time };
    timeout(limits.time, answer).await.map_err(|_| timed_out())?
}

async fn send(
    pki: &Pki,
    url: &HttpsUrl,
    limit: usize,
    method: Method,
    form: &'static str,
    body: Option<String>,
) -> Result<Bytes, HttpsError> {
    let server = || url.server.clone();
    let host = url.server.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream = TcpStream::connect((host.as_str(), url.server.port()))
        .await
        .map_err(|source| HttpsError::Connect { server: server(), source })?;
    let handshake = pki.client_handshake(&[b"http/1.1"])?;
    let name = ServerName::try_from(host)
        .map_err(|_| HttpsError::Tls(format!("{} is not a name that a certificate can have", url.server)))?;
    let stream = TlsConnector::from(Arc::clone(&handshake.config)).connect(name, stream).await;
    let explain = |error: &io::Error| {
        let end = OtherEnd::Server(&url.server.to_string());
        let sentence = pki.explain_io(end, error, handshake.refusal().as_ref());
        HttpsError::Tls(sentence.unwrap_or_else(|| format!("no TLS connection with {}: {error}", url.server)))
    };
    let stream = stream.map_err(|error| explain(&error))?;
    let http = |source| HttpsError::Http { server: server(), source };
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let path = if url.path.is_empty() { "/" } else { &url.path };
    let mut request = Request::builder()
        .method(&method)
        .uri(path)
        .header(HOST, url.server.to_string())
        .header(ACCEPT, form);
    if body.is_some() {
        request = request.header(CONTENT_TYPE, form);
    }
    let broken = |reason: String| HttpsError::Body { server: server(), reason };
    let request = request
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| broken(error.to_string()))?;
    let answered = async {
        let answer = requests.send_request(request).await.map_err(http)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), limit).collect().await;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => HttpsError::TooLong { server: server(), limit },
            None => broken(error.to_string()),
        });
        if status != StatusCode::OK {
            let said = body.map_or_else(|_| String::new(), |body| quoted(&body.to_bytes()));
            let (path, method) = (url.path.clone(), method.clone());
            return Err(HttpsError::Status { server: server(), method, path, status, said });
        }
        Ok(body?.to_bytes())
    };
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        // The answer may be complete all the same; otherwise it is an error by itself.
        _ = connection => answered.await,
    }
}

/// The first line of what a server says beside a refusal.
fn quoted(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('<'));
    line.map_or_else(String::new, |line| format!(": {}", line.chars().take(QUOTED_CHARS).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use trigger_pki::testing::TestCa;

    use super::*;

    #[test]
    fn only_https_urls_are_taken() {
        let url: HttpsUrl =
            "https://puppet:8140/puppet-ca/v1/certificate_revocation_list/ca".parse().unwrap();
        assert_eq!(url.server.to_string(), "puppet:8140");
        assert_eq!(url.path, "/puppet-ca/v1/certificate_revocation_list/ca");
        assert_eq!("https://puppet/crl".parse::<HttpsUrl>().unwrap().server.to_string(), "puppet:443");
        for (base, below) in
            [("https://db:8081", "https://db:8081/a"), ("https://db:8081/x/", "https://db:8081/x/a")]
        {
            assert_eq!(base.parse::<HttpsUrl>().unwrap().join("/a").to_string(), below);
        }
        for bad in ["http://puppet/crl", "puppet/crl", "https:///crl", "https://", "https://puppet/a b", ""] {
            let error = bad.parse::<HttpsUrl>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("'{bad}' is not an HTTPS URL such as")), "{error}");
        }
    }

    #[test]
    fn a_refusal_is_quoted_in_one_short_line() {
        assert_eq!(quoted(b""), "");
        assert_eq!(quoted(b"\n  the query is bad\nmore"), ": the query is bad");
        assert_eq!(quoted(b"<html>\n<b>x</b>"), "");
        assert_eq!(quoted(&[b'x'; 9999]).len(), QUOTED_CHARS + 2);
    }

    #[tokio::test]
    async fn an_answer_is_as_long_as_its_limit_at_most() {
        const LIMITS: Limits = Limits { time: Duration::from_secs(20), bytes: 10 };
        let directory = tempfile::tempdir().unwrap();
        let mut ca = TestCa::new("puppet").unwrap();
        let [server, node] = ["puppet.example.com", "web01.example.com"]
            .map(|name| Pki::open(ca.node(&directory.path().join(name), name).unwrap()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url: HttpsUrl = format!("https://{address}/crl").parse().unwrap();
        let get = async |answer: String| {
            let serve = async {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = TlsAcceptor::from(server.server_config(&[b"http/1.1"]).unwrap());
                let mut stream = acceptor.accept(stream).await.unwrap();
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
                // A client that has read enough closes the connection.
                let _ = stream.write_all(answer.as_bytes()).await;
            };
            let ((), answer) = tokio::join!(serve, super::get(&node, &url, LIMITS));
            answer.map_err(|error| error.to_string())
        };
        let too_long = format!("{address} sent more than 10 bytes");
        let whole = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let chunked = |body: &str| {
            let chunks: String = body.chars().map(|char| format!("1\r\n{char}\r\n")).collect();
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
        };
        for form in [&whole as &dyn Fn(&str) -> String, &chunked] {
            assert_eq!(get(form("0123456789")).await.as_deref(), Ok(&b"0123456789"[..]));
            assert_eq!(get(form("0123456789a")).await, Err(too_long.clone()));
        }
    }
}
