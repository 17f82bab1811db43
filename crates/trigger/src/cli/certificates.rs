//! The certificates of this node: those that the configuration names, else Puppet's.

use std::path::Path;

use trigger_core::run::command::RunCommand;
use trigger_node::puppet_settings::{self, Attempt, PuppetSettingsError};
use trigger_pki::{LazyPki, TlsFiles};
use trigger_store::credentials::Credentials;
use trigger_store::kinds::Transport;
use trigger_store::url::BackendUrl;

use super::globals::Globals;
use crate::config::{ConfigFile, run_command};
use crate::failure::Failure;

/// Whether a backend asks for the certificates of this node.
pub(crate) fn needs_certificates(url: &BackendUrl) -> bool {
    url.scheme().transport == Transport::Tls
}

impl ConfigFile {
    /// The certificates of this node, as far as they are known without asking Puppet: those of `[tls]`, completed by
    /// what Puppet answered when the agent asked it. Whether the files are there shows when they are read.
    pub(crate) fn known_certificates(
        &self,
        state_dir: &Path,
        command: &RunCommand,
    ) -> Result<Option<LazyPki>, Failure> {
        if let Some(files) = self.tls.files()? {
            return Ok(Some(LazyPki::new(files)));
        }
        let puppets = puppet_settings::cached(command, state_dir).and_then(|settings| settings.tls);
        puppets.map(|files| self.certificates_beside(files)).transpose()
    }

    /// The certificates of this node, where Puppet has these files.
    pub(crate) fn certificates_beside(&self, puppets: TlsFiles) -> Result<LazyPki, Failure> {
        self.tls.completed_by(puppets).map(LazyPki::new)
    }
}

impl Globals {
    /// The credentials of a command that uses one of these backends. Puppet is asked where one of them needs certificates
    /// and none are known.
    pub(crate) async fn credentials(
        &self,
        config: &ConfigFile,
        backends: &[BackendUrl],
    ) -> Result<Credentials, Failure> {
        let command = run_command(config.run_cmd.as_deref())?;
        let known = config.known_certificates(&self.state_dir(config)?, &command)?;
        if known.is_some() || !backends.iter().any(needs_certificates) {
            return Ok(Credentials { tls: known });
        }
        let puppets = puppet_settings::tls_files(&command, Attempt::FIRST).await;
        let puppets = puppets.map_err(|error| no_certificates(&error))?;
        Ok(Credentials { tls: Some(config.certificates_beside(puppets)?) })
    }
}

/// The failure of a command that needs the node's certificates, because Puppet does not say where they are.
pub(crate) fn no_certificates(error: &PuppetSettingsError) -> Failure {
    Failure::config(format!(
        "the backend needs this node's certificates, and Puppet does not say where they are: {error}; name them in the \
         configuration (`[tls]`)"
    ))
}
