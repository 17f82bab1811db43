//! `trigger agent`: the node's daemon.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use trigger_core::identity::{GroupName, KeyPrefix};

use super::{Globals, block_on, inside_run, resolve_certname};
use crate::config::{metrics_file, run_command, run_timeout, runs_per_minute};
use trigger_node::agent::{self, AgentSettings, Stopped};
use trigger_node::failure::Failure;
use trigger_node::state::StateDir;

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// A group this node belongs to; repeat for more
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<GroupName>,
    /// Where in the backend to register [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<KeyPrefix>,
    /// What runs when this node is triggered, split into words but never given to a shell [default: puppet agent]
    #[arg(long, env = "TRIGGER_RUN_CMD", value_name = "CMD ARGS", hide_env = true)]
    run_cmd: Option<String>,
    /// A run is ended after this long [default: 1h]
    #[arg(long, env = "TRIGGER_RUN_TIMEOUT", value_name = "DURATION", hide_env = true)]
    run_timeout: Option<String>,
    /// How many runs may start in any minute, from 1 to 600; what comes on top waits [default: 10]
    #[arg(long, env = "TRIGGER_RUNS_PER_MINUTE", value_name = "NUMBER", hide_env = true)]
    runs_per_minute: Option<String>,
    /// A file to keep metrics in, for node_exporter's textfile collector (its name ends in .prom) [default: none]
    #[arg(long, env = "TRIGGER_METRICS_FILE", value_name = "FILE", hide_env = true)]
    metrics_file: Option<PathBuf>,
    /// This program was an agent until a moment ago, and lost its claim
    #[arg(long = AFTER_A_LOSS, hide = true)]
    claim_lost: bool,
}

/// Given by [`start_again`] alone, and never to a child.
const AFTER_A_LOSS: &str = "claim-lost";

pub(crate) fn run(globals: &Globals, args: &AgentArgs) -> Result<u8, Failure> {
    crate::logging::start();
    inside_run::reexec_without_run_env()?;
    let stopped = block_on(async {
        // Resolved the same way at a start and before a reload: what a start would refuse, a reload does too.
        let resolve = async || settings(globals, args).await;
        agent::run(resolve().await?, async || agent::check(&resolve().await?)).await
    })?;
    match stopped {
        Stopped::Terminated => Ok(0),
        Stopped::Reload => Err(start_again(false)),
        Stopped::ClaimLost => Err(start_again(true)),
    }
}

/// Replaces this process by a fresh one with the same arguments, which reads the new configuration. The
/// pid stays, and a run in progress is adopted like any other.
fn start_again(after_a_loss: bool) -> Failure {
    tracing::info!("starting anew, with the configuration read again");
    let flag = format!("--{AFTER_A_LOSS}");
    let arguments = std::env::args_os().skip(1).filter(|argument| *argument != *flag);
    let arguments = arguments.chain(after_a_loss.then(|| flag.clone().into()));
    let error = std::process::Command::new("/proc/self/exe").args(arguments).exec();
    Failure::failed(format!("cannot start again: {error}"))
}

async fn settings(globals: &Globals, args: &AgentArgs) -> Result<AgentSettings, Failure> {
    let config = globals.read_config()?;
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let words = args.run_cmd.as_deref().or(config.run_cmd.as_deref());
    let command = run_command(words)?;
    let timeout: Duration = run_timeout(args.run_timeout.as_deref().or(config.run_timeout.as_deref()))?;
    let runs_per_minute = runs_per_minute(args.runs_per_minute.as_deref(), config.runs_per_minute)?;
    let metrics_file = metrics_file(args.metrics_file.as_deref().or(config.metrics_file.as_deref()))?;
    let backend = globals.backend(&config)?;
    let state = StateDir::open(&globals.state_dir(&config))?;
    let certname = resolve_certname(globals, &config, Some(&state), &command).await?;
    let groups = if args.groups.is_empty() { config.groups()? } else { args.groups.clone() };
    let prefix = args.prefix.clone().map_or_else(|| config.prefix(), Ok)?;

    // What is added here, `inside_run` takes away from the daemons that a run starts.
    let mut run_environment = BTreeMap::from([
        ("TRIGGER_BACKEND".to_owned(), backend.clone()),
        ("TRIGGER_CERTNAME".to_owned(), certname.to_string()),
        ("TRIGGER_PREFIX".to_owned(), prefix.to_string()),
        ("TRIGGER_STATE_DIR".to_owned(), state.path().to_string_lossy().into_owned()),
    ]);
    if let Some(path) = globals.config_path() {
        run_environment.insert("TRIGGER_CONFIG".to_owned(), path.to_string_lossy().into_owned());
    }
    Ok(AgentSettings {
        certname,
        state,
        backend,
        prefix,
        groups,
        command_words: command.words(),
        command,
        run_timeout: timeout,
        runs_per_minute,
        metrics_file,
        run_environment,
        may_inherit_claim: !args.claim_lost,
    })
}
