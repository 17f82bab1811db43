//! `trigger agent`: the node's daemon.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use trigger_core::identity::{GroupName, KeyPrefix};
use trigger_core::run::command::{CommandKind, RunCommand, WORKING_DIRECTORY};
use trigger_node::agent::policy_file::PolicyFile;
use trigger_node::agent::{self, AgentError, AgentSettings, CertnameSource, Stopped};
use trigger_node::puppet_settings::{self, Attempt, PuppetSettingsError};
use trigger_node::puppetdb;
use trigger_node::state::StateDir;
use trigger_store::backend::Backend;
use trigger_store::credentials::Credentials;
use trigger_store::url::BackendUrl;

use super::certificates::no_certificates;
use super::first_process::run_daemon_as_child;
use super::globals::{Globals, no_certname, start_audit};
use super::reexec::{reexec_with_flag, reexec_without_run_env};
use super::runtime::block_on;
use crate::config::{
    BackendSource, ConfigFile, metrics_file, run_command, run_timeout, runs_per_minute, settle,
};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// A group this node belongs to; repeat for more
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<GroupName>,
    /// The key prefix to register under [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<KeyPrefix>,
    /// The command that runs when this node is triggered; it is split into words, but no shell interprets it [default: puppet agent]
    #[arg(long, env = "TRIGGER_RUN_CMD", value_name = "CMD ARGS", hide_env = true)]
    run_cmd: Option<String>,
    /// How long a run may take before it is ended [default: 1h]
    #[arg(long, env = "TRIGGER_RUN_TIMEOUT", value_name = "DURATION", hide_env = true)]
    run_timeout: Option<String>,
    /// The most runs that may start in any minute, from 1 to 600; more runs have to wait [default: 10]
    #[arg(long, env = "TRIGGER_RUNS_PER_MINUTE", value_name = "NUMBER", hide_env = true)]
    runs_per_minute: Option<String>,
    /// A file to write metrics to, for node_exporter's textfile collector (its name ends in .prom) [default: none]
    #[arg(long, env = "TRIGGER_METRICS_FILE", value_name = "FILE", hide_env = true)]
    metrics_file: Option<PathBuf>,
    /// Given only by an agent that restarts itself because it has lost its claim
    #[arg(long = CLAIM_LOST, hide = true)]
    claim_lost: bool,
}

/// The flag that [`restart`] adds. Child processes never get it.
const CLAIM_LOST: &str = "claim-lost";

pub(crate) fn run(globals: &Globals, args: &AgentArgs) -> Result<ExitCode, Failure> {
    if let Some(code) = run_daemon_as_child()? {
        return Ok(code);
    }
    crate::logging::start();
    reexec_without_run_env()?;
    let stopped = block_on(async {
        // The same function for a start and for the check before a reload, so that a reload refuses what a start
        // would refuse.
        let resolve = || settings(globals, args);
        let present = resolve().await?;
        start_audit(&globals.read_config()?)?;
        let source = present.certname_source.clone();
        let check = || async {
            let settings = resolve().await?;
            agent::check(&settings)?;
            // A mistake in a configuration is no reason to stop working. After a restart it is: see `CertnameSource`.
            if settings.certname_source != source {
                agent::check_owner(&settings)?
            }
            Ok::<_, Failure>(())
        };
        if globals.certname.is_some() {
            // A name on the command line or in the environment is a person's, who reads this.
            agent::check_owner(&present)?;
        }
        let file = globals.config.clone();
        let read_policy = move || {
            let policy = ConfigFile::read(file.as_deref()).and_then(|config| config.policy());
            policy.map_err(|failure| failure.message)
        };
        let policy_file = PolicyFile::new(present.policy.source().into(), read_policy);
        let puppetdb = puppetdb::Client::new(
            globals.read_config()?.puppetdb_url()?,
            present.command.clone(),
            present.state.path(),
            present.credentials.tls.clone(),
        );
        Ok::<_, Failure>(agent::on_os::run(present, policy_file, puppetdb, check).await?)
    })?;
    match stopped {
        Stopped::Terminated => Ok(ExitCode::SUCCESS),
        Stopped::Reload | Stopped::Renamed => Err(restart(false)),
        Stopped::ClaimLost => Err(restart(true)),
    }
}

/// Re-executes this process with the same arguments, so that the configuration is read again. The pid stays, and a
/// run in progress is adopted as at every start. Returns only if that fails.
fn restart(claim_lost: bool) -> Failure {
    tracing::info!("restarting with the configuration read again");
    let Err(error) = reexec_with_flag(&format!("--{CLAIM_LOST}"), claim_lost);
    Failure::failed(format!("cannot restart: {error}"))
}

/// What Puppet alone can say at the first start of an agent.
struct Wanted {
    /// What the node lacks.
    lack: &'static str,
    /// How an operator gives it in the place of Puppet.
    setting: &'static str,
    /// The failure of a node that has no Puppet.
    without_puppet: fn(&PuppetSettingsError) -> Failure,
}

const CERTNAME: Wanted = Wanted { lack: "certname", setting: "certname", without_puppet: no_certname };
const CERTIFICATES: Wanted =
    Wanted { lack: "certificates", setting: "[tls]", without_puppet: no_certificates };

/// Asks Puppet for what a node needs that has not asked it yet. A Puppet that is slow, broken or not installed yet is
/// asked on, later and with more patience each time: a fresh start of this process would begin with the least.
///
/// # Errors
/// If the run command is not Puppet and there is no Puppet: only a setting helps such a node. And if a request to reload
/// cannot be followed.
async fn ask_puppet<T>(
    command: &RunCommand,
    wanted: &Wanted,
    ask: impl AsyncFn(Attempt) -> Result<T, PuppetSettingsError>,
) -> Result<T, Failure> {
    let Wanted { lack, setting, without_puppet } = wanted;
    let mut reload = signal(SignalKind::hangup()).map_err(AgentError::Signals)?;
    let mut attempt = Attempt::FIRST;
    let mut warned_of = None;
    agent::on_os::extend_start(attempt.timeout);
    loop {
        let asked = tokio::select! {
            biased;
            Some(()) = reload.recv() => return Err(restart(false)),
            asked = ask(attempt) => asked,
        };
        let error = match asked {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_not_installed() && command.kind() == CommandKind::Other => {
                return Err(without_puppet(&error));
            }
            Err(error) => error.to_string(),
        };
        if warned_of.as_ref() != Some(&error) {
            tracing::warn!(
                error,
                "this node has no {lack} yet, because Puppet does not report any: mend Puppet, or set {setting} in the \
                 configuration; Puppet is asked again and again, and nothing is delivered until then"
            );
            // The service manager, and a Puppet run that starts this service, need not wait for a Puppet that works.
            agent::on_os::notify_waiting(&format!("no {lack} yet: {error}"));
            warned_of = Some(error);
        }
        tokio::select! {
            biased;
            Some(()) = reload.recv() => return Err(restart(false)),
            () = tokio::time::sleep(attempt.pause) => attempt = attempt.next(),
        }
    }
}

/// Refuses a command of which no run does what its operator means. A relative path would be looked for in a directory that
/// no operator thinks of.
pub(super) fn check_command(command: &RunCommand) -> Result<(), Failure> {
    if let Some(why) = command.refusal() {
        return Err(Failure::config(format!("setting run_cmd: {why}")));
    }
    match command.relative_path() {
        Some(path) => Err(Failure::config(format!(
            "setting run_cmd: '{path}' is a relative path, and runs start in the directory {WORKING_DIRECTORY}: give an \
             absolute path"
        ))),
        None => Ok(()),
    }
}

/// Refuses a backend that cannot be opened or watched. No server is asked.
fn check_backend(url: &BackendUrl, credentials: &Credentials) -> Result<(), Failure> {
    let backend = Backend::open(url, credentials).map_err(|error| Failure::config(error.to_string()))?;
    match backend.store() {
        Some(_) => Ok(()),
        None => Err(AgentError::WriteOnlyBackend { url: url.clone() }.into()),
    }
}

/// The agent's PATH with the directory of its own program at the end, so that a run finds `trigger` wherever it is
/// installed. Absent if that directory cannot be part of a PATH.
fn path_with_this_program() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let directory = program.parent()?.to_str()?;
    path_with(std::env::var("PATH").ok().as_deref(), directory)
}

/// Without a PATH, programs are searched for in this one (execvp(3)).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn path_with(path: Option<&str>, directory: &str) -> Option<String> {
    let path = path.filter(|path| !path.is_empty()).unwrap_or(DEFAULT_PATH);
    let is_known = path.split(':').any(|known| known.trim_end_matches('/') == directory);
    match (is_known, directory.contains(':')) {
        (true, _) => Some(path.to_owned()),
        (false, false) => Some(format!("{path}:{directory}")),
        (false, true) => None,
    }
}

async fn settings(globals: &Globals, args: &AgentArgs) -> Result<AgentSettings, Failure> {
    let config = globals.read_config()?;
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    config.audit_file()?;
    config.puppetdb_url()?;
    let words = args.run_cmd.as_deref().or(config.run_cmd.as_deref());
    let command = run_command(words)?;
    check_command(&command)?;
    command.doubts().iter().for_each(|doubt| tracing::warn!("{doubt}"));
    let timeout: Duration = run_timeout(args.run_timeout.as_deref().or(config.run_timeout.as_deref()))?;
    let runs_per_minute = runs_per_minute(args.runs_per_minute.as_deref(), config.runs_per_minute)?;
    let metrics_file = metrics_file(args.metrics_file.as_deref().or(config.metrics_file.as_deref()))?;
    let chosen = globals.chosen_backend(&config)?;
    if chosen.source == BackendSource::Default && chosen.named_kind.is_none() {
        tracing::warn!(backend = %chosen.url, "no backend is configured: the agent uses the hub on this machine");
    }
    let named_backends = config.node_backends(&chosen, globals.backend.as_deref()).named().to_vec();
    let backend = chosen.url;
    let state = StateDir::open(&globals.state_dir(&config)?)?;
    let groups = if args.groups.is_empty() { config.groups()? } else { args.groups.clone() };
    let prefix = args.prefix.clone().map_or_else(|| config.prefix(), Ok)?;
    let certname_source =
        globals.certname(&config)?.map_or(CertnameSource::Puppet, CertnameSource::Configured);
    let signing = globals.signing(&config)?;
    let has_puppet = command.kind() != CommandKind::Other;
    // Puppet may let this process wait, so all that can be refused is refused before.
    let certificates = match config.known_certificates(state.path(), &command)? {
        None if backend.uses_tls() || (signing.wants_certificates() && has_puppet) => {
            let ask = async |attempt| puppet_settings::tls_files(&command, attempt).await;
            let puppets = ask_puppet(&command, &CERTIFICATES, ask).await?;
            Some(config.certificates_beside(puppets)?)
        }
        known => known,
    };
    let credentials = Credentials { tls: certificates };
    check_backend(&backend, &credentials)?;
    let codec = signing.agents_codec(&config, &credentials, &backend)?;
    let certname = match (state.certname()?, &certname_source) {
        // The runs and outcomes in the directory are its owner's; see `CertnameSource`.
        (Some(owner), _) => owner,
        (None, CertnameSource::Configured(certname)) => certname.clone(),
        (None, CertnameSource::Puppet) => {
            ask_puppet(&command, &CERTNAME, async |attempt| {
                puppet_settings::certname(&command, attempt).await
            })
            .await?
        }
    };

    // `reexec` removes these variables from daemons that a run starts.
    let mut run_environment = BTreeMap::from([
        ("TRIGGER_BACKEND".to_owned(), backend.to_string()),
        ("TRIGGER_CERTNAME".to_owned(), certname.to_string()),
        ("TRIGGER_PREFIX".to_owned(), prefix.to_string()),
        ("TRIGGER_STATE_DIR".to_owned(), state.path().to_string_lossy().into_owned()),
    ]);
    if let Some(path) = path_with_this_program() {
        run_environment.insert("PATH".to_owned(), path);
    }
    if let Some(path) = globals.config_path() {
        run_environment.insert("TRIGGER_CONFIG".to_owned(), path.to_string_lossy().into_owned());
    }
    Ok(AgentSettings {
        certname,
        certname_source,
        state,
        backend,
        named_backends,
        credentials,
        codec,
        prefix,
        groups,
        command_words: command.words(),
        command,
        run_timeout: timeout,
        runs_per_minute,
        settle: settle(config.settle.as_deref())?,
        policy: config.policy()?,
        socket_groups: config.socket.groups.clone(),
        metrics_file,
        run_environment,
        may_inherit_claim: !args.claim_lost,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_the_program_is_searched_last() {
        let check = |path: Option<&str>, directory: &str, expected: Option<&str>| {
            assert_eq!(path_with(path, directory).as_deref(), expected, "{path:?} {directory}");
        };
        check(Some("/usr/bin:/bin"), "/opt/trigger", Some("/usr/bin:/bin:/opt/trigger"));
        check(Some("/opt/trigger/:/bin"), "/opt/trigger", Some("/opt/trigger/:/bin"));
        check(Some("/bin"), "/a:b", None);
        let expected = format!("{DEFAULT_PATH}:/opt/trigger");
        check(None, "/opt/trigger", Some(&expected));
        check(Some(""), "/opt/trigger", Some(&expected));
    }
}
