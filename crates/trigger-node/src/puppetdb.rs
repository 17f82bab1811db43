//! The client of PuppetDB: over mutual TLS, with the certificate of this node.
//!
//! PuppetDB is where the configuration says, else where Puppet's own `puppetdb.conf` does, which is beside its
//! `puppet.conf`. Both are read again for each question.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trigger_core::event::MAX_TARGETS;
use trigger_core::identity::Certname;
use trigger_core::puppetdb::{self, InvalidAnswer, MAX_ASKED, StoredCatalog};
use trigger_core::run::command::RunCommand;
use trigger_pki::{LazyPki, PkiError};
use trigger_store::https::{self, HttpsError, HttpsUrl, InvalidHttpsUrl, Limits};

use crate::agent::catalogs::{AskError, PuppetDb};
use crate::puppet_settings;

/// The name of Puppet's own file about PuppetDB.
const CONF: &str = "puppetdb.conf";
/// The path of queries.
const QUERY: &str = "/pdb/query/v4";
/// What bounds a question about catalogs: each is some 150 bytes.
const CATALOG_LIMITS: Limits = Limits { time: Duration::from_secs(5), bytes: MAX_ASKED * 1024 };
/// What bounds the answer to a query: some 300 bytes for each of the most targets that an event may have.
const QUERY_LIMITS: Limits = Limits { time: Duration::from_secs(30), bytes: MAX_TARGETS * 320 };

/// PuppetDB could not be asked, or did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum PuppetDbError {
    /// No address is known.
    #[error(
        "no PuppetDB is known here: set url in the table [puppetdb] of the configuration, since there is no puppetdb.conf \
         beside Puppet's own puppet.conf"
    )]
    NotKnown,
    /// The address in `puppetdb.conf` is none.
    #[error("{} names PuppetDB: {source}", path.display())]
    Address {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: InvalidHttpsUrl,
    },
    /// It is not known where this node's certificates are.
    #[error("PuppetDB is asked with this node's certificate, and Puppet has not said yet where that is")]
    NoCertificates,
    /// The certificates cannot be used.
    #[error(transparent)]
    Certificates(#[from] PkiError),
    /// The request failed.
    #[error("PuppetDB cannot be asked: {0}")]
    Request(#[from] HttpsError),
    /// PuppetDB answered something else.
    #[error("the answer of PuppetDB at {server} cannot be used: {source}")]
    Answer {
        /// Its address.
        server: String,
        /// What is wrong.
        source: InvalidAnswer,
    },
}

/// Where PuppetDB is, and how it is asked.
#[derive(Debug, Clone)]
pub struct Client {
    url: Option<HttpsUrl>,
    command: RunCommand,
    state_dir: PathBuf,
    certificates: Option<LazyPki>,
}

impl Client {
    /// A client of the PuppetDB at `url`, else of the one that Puppet's own files name. Without `certificates`, they are
    /// those that Puppet has said this node has.
    pub fn new(
        url: Option<HttpsUrl>,
        command: RunCommand,
        state_dir: &Path,
        certificates: Option<LazyPki>,
    ) -> Self {
        Self { url, command, state_dir: state_dir.to_owned(), certificates }
    }

    /// The address of PuppetDB, if one is known here.
    ///
    /// # Errors
    /// [`PuppetDbError::Address`].
    pub fn url(&self) -> Result<Option<HttpsUrl>, PuppetDbError> {
        if let Some(url) = &self.url {
            return Ok(Some(url.clone()));
        }
        let settings = puppet_settings::cached(&self.command, &self.state_dir);
        let Some(path) = settings.map(|settings| settings.config.with_file_name(CONF)) else {
            return Ok(None);
        };
        let Ok(conf) = fs::read_to_string(&path) else { return Ok(None) };
        let url = puppetdb::server_url(&conf).map(str::parse).transpose();
        url.map_err(|source| PuppetDbError::Address { path, source })
    }

    /// Returns the certnames that a query in PuppetDB's language finds, of active nodes alone.
    ///
    /// # Errors
    /// [`PuppetDbError`].
    pub async fn query(&self, query: &str) -> Result<BTreeSet<Certname>, PuppetDbError> {
        let found =
            self.ask("", QUERY_LIMITS, puppetdb::pql_question(query), puppetdb::read_certnames).await?;
        let mut active = BTreeSet::new();
        for certnames in Vec::from_iter(found).chunks(MAX_ASKED) {
            let question = puppetdb::active_question(certnames);
            let answer = self.ask("/nodes", QUERY_LIMITS, question, puppetdb::read_certnames).await?;
            active.extend(answer.into_iter().filter(|certname| certnames.contains(certname)));
        }
        Ok(active)
    }

    async fn ask<T>(
        &self,
        path: &str,
        limits: Limits,
        question: String,
        read: impl Fn(&[u8]) -> Result<T, InvalidAnswer>,
    ) -> Result<T, PuppetDbError> {
        let url = self.url()?.ok_or(PuppetDbError::NotKnown)?;
        let puppets = || puppet_settings::cached(&self.command, &self.state_dir)?.tls.map(LazyPki::new);
        let certificates = self.certificates.clone().or_else(puppets).ok_or(PuppetDbError::NoCertificates)?;
        let url = url.join(&format!("{QUERY}{path}"));
        let answer = https::post_json(&certificates.get()?, &url, limits, question).await?;
        let server = || url.server().to_string();
        read(&answer).map_err(|source| PuppetDbError::Answer { server: server(), source })
    }
}

impl PuppetDb for Client {
    fn is_there(&self) -> bool {
        // An address that is none is an error of the first question.
        !matches!(self.url(), Ok(None))
    }

    async fn catalogs(&self, certnames: &[Certname]) -> Result<BTreeMap<Certname, StoredCatalog>, AskError> {
        let question = puppetdb::catalogs_question(certnames);
        let read = |answer: &[u8]| puppetdb::read_catalogs(certnames, answer);
        self.ask("/catalogs", CATALOG_LIMITS, question, read).await.map_err(|error| match &error {
            PuppetDbError::Request(HttpsError::Status { status, .. }) if status.is_client_error() => {
                let why = format!(
                    "{error}; let this node's certificate query it (its auth.conf and certificate-allowlist)"
                );
                AskError::Refused(why)
            }
            PuppetDbError::NotKnown | PuppetDbError::Address { .. } => AskError::Refused(error.to_string()),
            _ => AskError::Failed(error.to_string()),
        })
    }
}
