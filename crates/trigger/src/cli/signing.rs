//! With what this node signs and verifies: a key that the fleet shares, else the node's certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use trigger_core::time::Timestamp;
use trigger_fleet::codec::{Codec, Means};
use trigger_pki::{LazyPki, SharedKey};
use trigger_store::credentials::Credentials;
use trigger_store::url::BackendUrl;

use super::certificates::needs_certificates;
use super::globals::Globals;
use crate::config::{ConfigFile, absolute};
use crate::failure::Failure;
use crate::warnings::Warnings;

/// The ways out for a node that has nothing to sign with.
const WAYS: &str = "sign this node's certificate (`puppet ssl bootstrap`, or name its files in [tls]), or give all nodes \
     a key that they share (`trigger keygen FILE`, setting shared_key), or set require_signature = false, with which \
     whoever can write to the backend makes Puppet run here";

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

    /// The codec of a command that reads. Where this user may not read what signatures are verified with, a warning says
    /// so, and everything is shown as it is written.
    pub(crate) fn reading_codec(
        &self,
        config: &ConfigFile,
        credentials: &Credentials,
    ) -> Result<(Codec, Option<String>), Failure> {
        let signing = self.signing(config)?;
        let unread = match (&signing.shared_key, &credentials.tls) {
            (Some(path), _) => SharedKey::open(path).err(),
            (None, Some(certificates)) => certificates.get().err(),
            (None, None) => None,
        };
        match unread {
            Some(_) if signing.require == Some(false) => Ok((Codec::default(), None)),
            Some(error) => Ok((
                Codec::default(),
                Some(format!("what follows is not verified, because signatures cannot be: {error}")),
            )),
            None => Ok((
                signing.means(credentials)?.map_or_else(Codec::default, |means| signing.with(means)),
                None,
            )),
        }
    }

    /// The codec of a command that fires without an agent.
    pub(crate) fn firing_codec(
        &self,
        config: &ConfigFile,
        credentials: &Credentials,
        warnings: &Warnings,
    ) -> Result<Codec, Failure> {
        let signing = self.signing(config)?;
        match signing.means(credentials)? {
            Some(means) => Ok(signing.with(means)),
            None => {
                if signing.require == Some(true) {
                    warnings.push(format!("the event is not signed unless an agent signs it: {WAYS}"));
                }
                Ok(Codec::default())
            }
        }
    }
}

impl Signing {
    /// Whether this node's certificate is what it signs with, if it has one.
    pub(crate) fn wants_certificates(&self) -> bool {
        self.shared_key.is_none() && self.require != Some(false)
    }

    /// The codec of an agent.
    ///
    /// # Errors
    /// If it has nothing to sign with and is not told that it need not. The shared key has to be readable; a certificate
    /// may come later where the configuration or the link to the backend names it.
    pub(crate) fn agents_codec(
        &self,
        config: &ConfigFile,
        credentials: &Credentials,
        backend: &BackendUrl,
    ) -> Result<Codec, Failure> {
        let is_expected = config.tls.is_given() || needs_certificates(backend);
        let is_there = |certificates: &LazyPki| is_expected || certificates.files().certificate.exists();
        let found = Credentials { tls: credentials.tls.clone().filter(is_there) };
        match self.means(&found)? {
            Some(means) => {
                if self.require == Some(false) {
                    tracing::warn!(
                        "signatures are not required (require_signature = false): whoever can write to the backend makes \
                         Puppet run here"
                    );
                }
                Ok(self.with(means))
            }
            None if self.require == Some(false) => {
                tracing::warn!(
                    "nothing is signed or verified (require_signature = false): whoever can write to the backend makes \
                     Puppet run here"
                );
                Ok(Codec::default())
            }
            None => Err(Failure::config(format!("this node has nothing to sign with: {WAYS}"))),
        }
    }

    fn means(&self, credentials: &Credentials) -> Result<Option<Means>, Failure> {
        if let Some(path) = &self.shared_key {
            let key = SharedKey::open(path)
                .map_err(|error| Failure::config(format!("setting shared_key: {error}")))?;
            return Ok(Some(Means::SharedKey(key)));
        }
        let certificates = credentials.tls.clone();
        Ok(certificates.map(|certificates| Means::Certificates { certificates, clock: Arc::new(now) }))
    }

    fn with(&self, means: Means) -> Codec {
        Codec::signing(means, self.require.unwrap_or(true))
    }
}

fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}
