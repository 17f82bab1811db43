//! The certificates of this node: those that the configuration names, else Puppet's.

use std::path::Path;

use trigger_core::run::command::RunCommand;
use trigger_node::puppet_settings::{self, Attempt, PuppetSettingsError};
use trigger_pki::{LazyPki, TlsFiles};
use trigger_store::credentials::Credentials;
use trigger_store::url::BackendUrl;

use super::globals::Globals;
use super::puppet_wait::wait_for_puppet;
use crate::config::{ConfigFile, run_command};
use crate::failure::Failure;

impl ConfigFile {
    /// The certificates of this node, as far as they are known without asking Puppet: those of `[tls]`, completed by
    /// what Puppet answered when it was asked before. Whether the files are there shows when they are read.
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
    /// The certificates of this node. Puppet is asked where the configuration does not name them all and no answer is
    /// kept that still counts.
    pub(crate) async fn certificates(&self, config: &ConfigFile) -> Result<LazyPki, Failure> {
        if let Some(files) = config.tls.files()? {
            return Ok(LazyPki::new(files));
        }
        let command = run_command(config.run_cmd.as_deref())?;
        let state_dir = self.state_dir(config)?;
        let asked = puppet_settings::known_tls_files(&command, &state_dir, Attempt::ONLY);
        let puppets = wait_for_puppet(asked).await;
        config.certificates_beside(puppets.map_err(|error| no_certificates(&error))?)
    }

    /// The credentials of a command that uses one of these backends: with the certificates of this node where one of them
    /// needs them, and otherwise if they are known.
    pub(crate) async fn credentials(
        &self,
        config: &ConfigFile,
        backends: &[BackendUrl],
    ) -> Result<Credentials, Failure> {
        let tls = if backends.iter().any(BackendUrl::uses_tls) {
            Some(self.certificates(config).await?)
        } else {
            config.known_certificates(&self.state_dir(config)?, &run_command(config.run_cmd.as_deref())?)?
        };
        Ok(Credentials { tls })
    }
}

/// The failure of a command that needs the node's certificates, because Puppet does not say where they are.
pub(crate) fn no_certificates(error: &PuppetSettingsError) -> Failure {
    Failure::config(format!(
        "this node's certificates are needed, and Puppet does not say where they are: {error}; name them in the \
         configuration (`[tls]`)"
    ))
}
