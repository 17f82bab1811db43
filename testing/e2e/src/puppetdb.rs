//! A stand-in for PuppetDB: its HTTPS interface with real certificates, and answers that the test decides. Their form is that
//! of PuppetDB 8.4.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::pki::{Authority, Request, Ssl};

/// A PuppetDB on this machine. Its thread lives as long as the test's process.
#[derive(Debug, Clone)]
pub struct PuppetDb {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    catalogs: Vec<Value>,
    active: Vec<String>,
    found: Vec<String>,
    status: u16,
    bytes: usize,
    asked: Vec<(String, Value)>,
}

impl PuppetDb {
    /// Starts one with a certificate of Puppet's CA for `localhost`. It answers that it has no catalogs.
    pub fn start(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("a directory");
        let request = Request::of("puppetdb.example.com").with_alt_names(&["localhost"]);
        let ssl = Authority::puppet().issue(&request, directory);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(Mutex::new(State { status: 200, ..State::default() }));
        let (tls, shared) = (tls(&ssl), Arc::clone(&state));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, shared) = (Arc::clone(&tls), Arc::clone(&shared));
                // A client whose certificate is refused, or that goes away, is no failure of the test.
                std::thread::spawn(move || drop(serve(stream, tls, &shared)));
            }
        });
        Self { port, state }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Stores the catalog of a node.
    pub fn store(&self, certname: &str, uuid: &str) {
        self.store_of(certname, uuid, "2020-01-01T00:00:00.000Z");
    }

    /// Stores the catalog of a node that was compiled at this time.
    pub fn store_of(&self, certname: &str, uuid: &str, produced_at: &str) {
        self.with(|state| {
            state.catalogs.retain(|catalog| catalog["certname"] != certname);
            let catalog =
                json!({"certname": certname, "catalog_uuid": uuid, "producer_timestamp": produced_at});
            state.catalogs.push(catalog);
        });
    }

    /// Decides which nodes a query finds, and which nodes are active.
    pub fn finds(&self, found: &[&str], active: &[&str]) {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.with(|state| (state.found, state.active) = (list(found), list(active)));
    }

    /// Answers all with this status from now on.
    pub fn answers(&self, status: u16) {
        self.with(|state| state.status = status);
    }

    /// Makes its answers this long from now on.
    pub fn answers_with_bytes(&self, bytes: usize) {
        self.with(|state| state.bytes = bytes);
    }

    /// Returns the path and the query of each request so far.
    pub fn asked(&self) -> Vec<(String, Value)> {
        self.with(|state| state.asked.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn tls(ssl: &Ssl) -> Arc<ServerConfig> {
    let certificates = |path: &Path| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(path).expect("certificates").map(|found| found.expect("one")).collect()
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&ssl.ca()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.build().expect("a verifier");
    let key = PrivateKeyDer::from_pem_file(ssl.key()).expect("a key");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&ssl.certificate()), key);
    Arc::new(config.expect("a server's configuration"))
}

fn serve(stream: TcpStream, tls: Arc<ServerConfig>, state: &Mutex<State>) -> std::io::Result<()> {
    let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        if stream.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let query = serde_json::from_slice::<Value>(&body).unwrap_or_default()["query"].clone();
    let (status, text) = answer(&mut state.lock().unwrap_or_else(PoisonError::into_inner), &path, query);
    let stream = stream.get_mut();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        text.len()
    )?;
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

fn answer(state: &mut State, path: &str, query: Value) -> (u16, String) {
    state.asked.push((path.to_owned(), query.clone()));
    let text = query.as_str().unwrap_or_default();
    let names = |names: &[String]| -> Value {
        names.iter().map(|name| json!({ "certname": name })).collect::<Vec<_>>().into()
    };
    let is_named = |name: &str| text.contains(&format!("\"{name}\""));
    let answer = match path {
        _ if state.status != 200 => json!("Permission denied"),
        "/pdb/query/v4/catalogs" => {
            let found = state
                .catalogs
                .iter()
                .filter(|found| is_named(found["certname"].as_str().unwrap_or_default()));
            found.cloned().collect::<Vec<_>>().into()
        }
        "/pdb/query/v4/nodes" => {
            names(&state.active.iter().filter(|name| is_named(name)).cloned().collect::<Vec<_>>())
        }
        "/pdb/query/v4" => names(&state.found),
        _ => return (404, "no such path".to_owned()),
    };
    let mut text = answer.to_string();
    let padding = " ".repeat(state.bytes.saturating_sub(text.len()));
    text.push_str(&padding);
    (state.status, text)
}
