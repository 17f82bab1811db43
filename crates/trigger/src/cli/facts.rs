//! `trigger facts`: what Puppet's fact `trigger` shows of this node. It has to be quick, and leaves no trace: it creates
//! nothing, and asks no backend and no Puppet.

use std::process::ExitCode;
use std::time::Duration;

use trigger_core::run::RunResult;
use trigger_core::run::record::RunRecord;
use trigger_node::agent_socket::{self, Reply, Request};
use trigger_node::state::{Runs, StateDir};

use super::globals::Globals;
use crate::config::{BackendSource, ConfigFile};
use crate::documents::Facts;
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

/// How long to wait for the agent's answer: Puppet waits for each fact before every run.
const TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) async fn run(globals: &Globals, warnings: &Warnings) -> Result<ExitCode, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let state = state_dir(globals, &config)?;
    let agent = match &state {
        Some(state) => agent_socket::ask(state.path(), &Request::Queue, TIMEOUT).await.ok(),
        None => None,
    };
    let agent = match &agent {
        Some(Reply::Queue(view)) => Some(&**view),
        _ => None,
    };
    let owner = state.as_ref().and_then(|state| state.certname().ok().flatten());
    let chosen = globals.chosen_backend(&config)?;
    let facts = Facts::new(
        globals.certname(&config)?.or(owner),
        (chosen.source != BackendSource::Default).then(|| chosen.url.to_string()),
        &config.prefix()?,
        &config.groups()?,
        agent,
        state.as_ref().and_then(last_run).as_ref(),
        warnings.take(),
    );
    // The text for people is the document too: it is what they see with `facter trigger`.
    output::document(&facts);
    Ok(ExitCode::SUCCESS)
}

/// The node's state directory, if it is there and open to this user.
fn state_dir(globals: &Globals, config: &ConfigFile) -> Result<Option<StateDir>, Failure> {
    Ok(StateDir::open_existing(&globals.state_dir(config)?).ok().flatten())
}

/// The latest run that has ended.
fn last_run(state: &StateDir) -> Option<(RunRecord, RunResult)> {
    Runs::open(state).ok()?.completed_runs().ok()?.pop()
}
