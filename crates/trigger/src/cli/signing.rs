//! With what this node signs and verifies: a key that the fleet shares, else the node's certificate.

use std::path::PathBuf;
use std::sync::Arc;

use trigger_core::run::command::CommandKind;
use trigger_fleet::codec::{Codec, Means};
use trigger_node::clock;
use trigger_pki::{LazyPki, SharedKey};
use trigger_store::credentials::Credentials;
use trigger_store::kinds::Access;
use trigger_store::url::BackendUrl;

use super::globals::Globals;
use crate::config::{ConfigFile, absolute, run_command};
use crate::failure::Failure;

/// The ways out for a node that has nothing to sign with.
const WAYS: &str = "sign this node's certificate (`puppet ssl bootstrap`, or name its files in [tls]), or give all nodes \
     a key that they share (`trigger keygen FILE`, setting shared_key), or set require_signature = false, with which \
     anyone who can write to the backend makes Puppet run here";
/// Why a node cannot verify, and what mends it.
const NOTHING_TO_VERIFY_WITH: &str = "neither this node's certificates nor a shared key are known here; name them in the \
     configuration (`[tls]`, `shared_key`), or set require_signature = false where nothing is signed";

/// What this node's settings say about signatures.
pub(crate) struct Signing {
    shared_key: Option<PathBuf>,
    require: Option<bool>,
}

impl Globals {
    /// The settings about signatures.
    pub(crate) fn signing(&self, config: &ConfigFile) -> Result<Signing, Failure> {
        let shared_key = self.shared_key.clone().or_else(|| config.shared_key.clone());
        let shared_key = shared_key.map(|path| absolute("shared_key", path)).transpose()?;
        Ok(Signing { shared_key, require: self.require_signature.or(config.require_signature) })
    }

    /// The codec of a command that reads from a backend, and a warning where signatures cannot be verified, so that
    /// everything is shown as it is written.
    pub(crate) fn reading_codec(
        &self,
        config: &ConfigFile,
        credentials: &Credentials,
        backend: &BackendUrl,
    ) -> Result<(Codec, Option<String>), Failure> {
        let signing = self.signing(config)?;
        let credentials = found(config, credentials, backend);
        let unread = match signing.means(&credentials) {
            Ok(Some(means)) => match means.check() {
                Ok(()) => return Ok((signing.with(means), None)),
                Err(error) => Some(error.to_string()),
            },
            Ok(None) => None,
            Err(failure) => Some(failure.message),
        };
        let unverified = || match unread {
            Some(error) => format!("what follows is not verified, because signatures cannot be: {error}"),
            None => format!("what follows is not verified: {NOTHING_TO_VERIFY_WITH}"),
        };
        Ok((Codec::default(), (signing.require != Some(false)).then(unverified)))
    }

    /// The codec of a command that fires without an agent, and a warning for an event that it could not sign. Puppet is
    /// asked for the node's certificates as the agent would, unless its last answer still counts.
    pub(crate) async fn firing_codec(
        &self,
        config: &ConfigFile,
        credentials: &Credentials,
        backend: &BackendUrl,
    ) -> Result<(Codec, Option<String>), Failure> {
        let signing = self.signing(config)?;
        if backend.kind().access == Access::WriteOnly {
            return Ok((Codec::default(), None));
        }
        let mut credentials = credentials.clone();
        let mut reason = None;
        let has_puppet = run_command(config.run_cmd.as_deref())?.kind() != CommandKind::Other;
        if signing.wants_certificates() && has_puppet {
            match self.certificates(config).await {
                Ok(certificates) => credentials.tls = Some(certificates),
                Err(failure) => reason = Some(failure.message),
            }
        }
        if let Some(means) = signing.means(&found(config, &credentials, backend))? {
            return Ok((signing.with(means), None));
        }
        let reason = reason.unwrap_or_else(|| "this node has nothing to sign with".to_owned());
        Ok((Codec::default(), signing.unsigned(&reason)))
    }

    /// A warning for an event that is not signed, if that can matter.
    pub(crate) fn unsigned(&self, config: &ConfigFile, reason: &str) -> Result<Option<String>, Failure> {
        Ok(self.signing(config)?.unsigned(reason))
    }
}

/// The node's certificates, if they are there or have to be: Puppet names files on a node without certificates as well.
fn found(config: &ConfigFile, credentials: &Credentials, backend: &BackendUrl) -> Credentials {
    let is_expected = config.tls.is_given() || backend.uses_tls();
    let is_there = |certificates: &LazyPki| is_expected || certificates.files().certificate.exists();
    Credentials { tls: credentials.tls.clone().filter(is_there) }
}

impl Signing {
    /// Whether this node's certificate is what it signs with, if it has one.
    pub(crate) fn wants_certificates(&self) -> bool {
        self.shared_key.is_none() && self.require != Some(false)
    }

    /// The codec of an agent.
    ///
    /// # Errors
    /// If it has nothing to sign with, and the settings do not say that it need not. The shared key has to be readable; a certificate
    /// may come later where the configuration or the link to the backend names it.
    pub(crate) fn agents_codec(
        &self,
        config: &ConfigFile,
        credentials: &Credentials,
        backend: &BackendUrl,
    ) -> Result<Codec, Failure> {
        match self.means(&found(config, credentials, backend))? {
            Some(means) => {
                if self.require == Some(false) {
                    tracing::warn!(
                        "signatures are not required (require_signature = false): anyone who can write to the backend \
                         makes Puppet run here"
                    );
                }
                Ok(self.with(means))
            }
            None if self.require == Some(false) => {
                tracing::warn!(
                    "nothing is signed or verified (require_signature = false): anyone who can write to the backend makes \
                     Puppet run here"
                );
                Ok(Codec::default())
            }
            None => Err(Failure::config(format!("this node has nothing to sign with: {WAYS}"))),
        }
    }

    fn unsigned(&self, reason: &str) -> Option<String> {
        (self.require != Some(false)).then(|| {
            format!(
                "the event is not signed, and nodes that require signatures refuse it: {reason}; run an agent here, \
                 or {WAYS}"
            )
        })
    }

    fn means(&self, credentials: &Credentials) -> Result<Option<Means>, Failure> {
        if let Some(path) = &self.shared_key {
            let key = SharedKey::open(path)
                .map_err(|error| Failure::config(format!("setting shared_key: {error}")))?;
            return Ok(Some(Means::SharedKey(key)));
        }
        let certificates = credentials.tls.clone();
        Ok(certificates
            .map(|certificates| Means::Certificates { certificates, clock: Arc::new(clock::wall) }))
    }

    fn with(&self, means: Means) -> Codec {
        Codec::signing(means, self.require.unwrap_or(true))
    }
}
