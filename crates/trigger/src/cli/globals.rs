//! The settings that every command takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use trigger_core::identity::{Certname, KeyPrefix};
use trigger_core::keyspace::Keyspace;
use trigger_core::run::command::RunCommand;
use trigger_fleet::Fleet;
use trigger_node::node_backends::NodeBackends;
use trigger_node::puppet_settings::{self, Attempt, PuppetSettingsError};
use trigger_node::state::StateDir;
use trigger_store::backend::Backend;
use trigger_store::credentials::Credentials;
use trigger_store::kinds;
use trigger_store::url::BackendUrl;

use super::puppet_wait::wait_for_puppet;
use crate::config::{
    BACKEND_VARIABLE, ChosenBackend, ConfigFile, DEFAULT_CONFIG, DEFAULT_STATE_DIR, absolute,
    certname_setting,
};
use crate::failure::Failure;
use crate::warnings::Warnings;

#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct Globals {
    /// Configuration file [default: /etc/trigger/trigger.toml]
    #[arg(long, global = true, env = "TRIGGER_CONFIG", value_name = "FILE", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    /// The backend; the help comes from the registry of kinds
    #[arg(long, global = true, env = "TRIGGER_BACKEND", value_name = "URL", hide_env = true, help = backend_help())]
    pub(crate) backend: Option<String>,
    /// This node's certname [default: Puppet's own, asked once]
    #[arg(long, global = true, env = "TRIGGER_CERTNAME", value_name = "NAME", hide_env = true)]
    pub(crate) certname: Option<String>,
    /// State directory [default: /var/lib/trigger]
    #[arg(long, global = true, env = "TRIGGER_STATE_DIR", value_name = "DIR", hide_env = true)]
    pub(crate) state_dir: Option<PathBuf>,
    /// File with the key that the fleet shares, to sign and verify events [default: Puppet's certificates]
    #[arg(long, global = true, env = "TRIGGER_SHARED_KEY", value_name = "FILE", hide_env = true)]
    pub(crate) shared_key: Option<PathBuf>,
    /// Whether events without a valid signature are refused [default: true]
    #[arg(long, global = true, env = "TRIGGER_REQUIRE_SIGNATURE", value_name = "BOOL", hide_env = true, action = clap::ArgAction::Set, hide_possible_values = true)]
    pub(crate) require_signature: Option<bool>,
    /// Output for people or for programs
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Tables and sentences
    Text,
    /// One JSON document on standard output, with warnings and errors among its fields
    Json,
    /// A graph for Graphviz, of `trigger why` only
    #[value(hide = true)]
    Dot,
}

fn backend_help() -> String {
    format!(
        "Backend URL ({}), or the name of a kind of backend ({}) whose URL the configuration has",
        kinds::url_forms(),
        kinds::names("or")
    )
}

impl Globals {
    pub(crate) fn read_config(&self) -> Result<ConfigFile, Failure> {
        ConfigFile::read(self.config.as_deref())
    }

    pub(crate) fn state_dir(&self, config: &ConfigFile) -> Result<PathBuf, Failure> {
        let configured = self.state_dir.clone().or_else(|| config.state_dir.clone());
        absolute("state_dir", configured.unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR)))
    }

    pub(crate) fn backend(&self, config: &ConfigFile) -> Result<BackendUrl, Failure> {
        Ok(self.chosen_backend(config)?.url)
    }

    /// The backend with the source of its URL.
    pub(crate) fn chosen_backend(&self, config: &ConfigFile) -> Result<ChosenBackend, Failure> {
        // Read again, because a flag hides it from clap, and the bare name of a kind in the flag is looked up in it.
        let environment = std::env::var(BACKEND_VARIABLE).ok();
        config.backend(self.backend.as_deref(), environment.as_deref())
    }

    /// The backends that the configuration of this node names.
    pub(crate) fn node_backends(&self, config: &ConfigFile) -> Result<NodeBackends, Failure> {
        let chosen = self.chosen_backend(config)?;
        Ok(config.node_backends(&chosen, self.backend.as_deref()))
    }

    /// The fleet under a prefix of the configured backend, to read from.
    pub(crate) async fn fleet(
        &self,
        config: &ConfigFile,
        prefix: Option<&KeyPrefix>,
        warnings: &Warnings,
    ) -> Result<Fleet, Failure> {
        let url = self.backend(config)?;
        let credentials = self.credentials(config, std::slice::from_ref(&url)).await?;
        self.fleet_with(config, prefix, &credentials, warnings)
    }

    /// The same with these credentials.
    pub(crate) fn fleet_with(
        &self,
        config: &ConfigFile,
        prefix: Option<&KeyPrefix>,
        credentials: &Credentials,
        warnings: &Warnings,
    ) -> Result<Fleet, Failure> {
        let url = self.backend(config)?;
        let prefix = prefix.cloned().map_or_else(|| config.prefix(), Ok)?;
        let backend = Backend::open(&url, credentials);
        let backend = backend.map_err(|error| Failure::config(error.to_string()))?;
        let Some(store) = backend.store() else {
            return Err(Failure::usage(format!("backend '{url}' is write-only: it cannot report events")));
        };
        let (codec, warning) = self.reading_codec(config, credentials, &url)?;
        warnings.extend(warning);
        Ok(Fleet::new(Arc::clone(store), Keyspace::new(prefix)).with_codec(codec))
    }

    /// The configured certname; without one, Puppet has to be asked.
    pub(crate) fn certname(&self, config: &ConfigFile) -> Result<Option<Certname>, Failure> {
        match &self.certname {
            Some(name) => certname_setting(name).map(Some),
            None => config.certname(),
        }
    }

    /// The absolute path of the configuration file that `--config` names, for processes with another working
    /// directory.
    pub(crate) fn config_path(&self) -> Option<PathBuf> {
        let path = self.config.clone()?;
        (path != Path::new(DEFAULT_CONFIG)).then(|| path.canonicalize().unwrap_or(path))
    }

    /// This node's certname for a command: as configured, as the state directory has it, or as Puppet says. Warns if
    /// Puppet has reported another one since to the agent.
    pub(crate) async fn resolve_certname(
        &self,
        config: &ConfigFile,
        state: Option<&StateDir>,
        command: &RunCommand,
    ) -> Result<Certname, Failure> {
        if let Some(certname) = self.certname(config)? {
            return Ok(certname);
        }
        // An ordinary user can neither read nor write the node's state directory, but may fire.
        let owner = state.map(StateDir::certname).transpose();
        if let Ok(Some(Some(owner))) = owner {
            if let Some(puppets) = state.and_then(|state| puppet_settings::cached(command, state.path()))
                && puppets.certname != owner.as_str()
            {
                tracing::warn!(
                    "this node counts as {owner}, but Puppet's certname for it is {}: to move it over, run 'trigger rename'",
                    puppets.certname
                );
            }
            return Ok(owner);
        }
        let certname = self.puppets_certname(command).await?;
        if matches!(owner, Ok(Some(None)))
            && let Some(Err(error)) = state.map(|state| state.set_certname(&certname))
        {
            tracing::debug!(%error, "cannot cache the certname; Puppet will be asked again");
        }
        Ok(certname)
    }

    /// The certname that Puppet reports now.
    pub(crate) async fn puppets_certname(&self, command: &RunCommand) -> Result<Certname, Failure> {
        let asked = puppet_settings::certname(command, Attempt::ONLY);
        wait_for_puppet(asked).await.map_err(|error| no_certname(&error))
    }
}

/// Sends the audit of this daemon to the configured file.
pub(crate) fn start_audit(config: &ConfigFile) -> Result<(), Failure> {
    let Some(path) = config.audit_file()? else { return Ok(()) };
    crate::logging::audit_to(&path)
        .map_err(|error| Failure::failed(format!("cannot start the audit to {}: {error}", path.display())))
}

/// The failure of a command that has no certname, because Puppet does not report one.
pub(crate) fn no_certname(error: &PuppetSettingsError) -> Failure {
    Failure::config(format!(
        "no certname is configured, and Puppet does not report one: {error}; set certname in the configuration, or give --certname"
    ))
}
