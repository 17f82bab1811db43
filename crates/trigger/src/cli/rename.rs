//! `trigger rename`: moves this node's state directory over to its new certname.
//!
//! What is the machine's moves along: the outbox, whose events keep the origin that they were fired under, the notes
//! about events that ended here, and the groups. What is addressed to the old certname in the backend stays there.

use std::process::ExitCode;
use std::time::Duration;

use trigger_core::identity::{Certname, EventId};
use trigger_node::agent;
use trigger_node::agent_socket::{self, Reply, Request};
use trigger_node::state::{Runs, StateDir};
use trigger_pki::LazyPki;
use trigger_store::credentials::Credentials;

use super::globals::{Globals, OutputFormat};
use crate::config::{ConfigFile, run_command};
use crate::documents::Renamed;
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

/// How long to wait for the agent, which checks its configuration before it answers.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) async fn run(globals: &Globals, warnings: &Warnings) -> Result<ExitCode, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let state = StateDir::open(&globals.state_dir(&config)?)?;
    let to = match globals.certname(&config)? {
        Some(certname) => certname,
        None => globals.puppets_certname(&run_command(config.run_cmd.as_deref())?).await?,
    };
    let directory = state.path().display().to_string();
    let Some(from) = state.certname()? else {
        return Err(Failure::failed(format!(
            "the state directory {directory} belongs to no certname yet: an agent takes it at its start"
        )));
    };
    let mut left = Vec::new();
    if from != to {
        rename(&state, &to).await?;
        match open_deliveries(globals, &config, &from).await {
            Ok(events) => left = events,
            Err(failure) => warnings.push(format!("which events wait for {from} is not known: {failure}")),
        }
    }
    let renamed = Renamed::new(directory, &from, &to, left, warnings.take());
    match globals.output {
        OutputFormat::Json => output::document(&renamed),
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(&renamed.warnings);
            output::print(&renamed.sentence());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The events whose deliveries to the earlier certname have not ended. A hub that knows its clients shows them to that
/// certname alone, and to operators: there they are read with the certificate that this node had under it.
async fn open_deliveries(
    globals: &Globals,
    config: &ConfigFile,
    certname: &Certname,
) -> Result<Vec<EventId>, Failure> {
    let backend = globals.backend(config)?;
    let credentials = globals.credentials(config, std::slice::from_ref(&backend)).await?;
    let fleet = globals.fleet_with(config, None, &credentials, &Warnings::default())?;
    if fleet.asker().await?.sees(certname) {
        return Ok(fleet.open_deliveries(certname).await?);
    }
    let earlier = credentials.tls.and_then(|tls| tls.files().of_earlier_certname(certname));
    let Some(earlier) = earlier else {
        return Err(Failure::failed(format!(
            "{backend} shows them to {certname} and to operators only, and the certificate of {certname} is not on this node \
             any more; as an operator, 'trigger status' lists the latest events, and 'trigger node forget {certname}' ends \
             what waits for it"
        )));
    };
    let credentials = Credentials { tls: Some(LazyPki::new(earlier)) };
    let fleet = globals.fleet_with(config, None, &credentials, &Warnings::default())?;
    Ok(fleet.open_deliveries(certname).await?)
}

/// Has the agent give the directory to another certname, or does so where no agent runs.
async fn rename(state: &StateDir, to: &Certname) -> Result<(), Failure> {
    let request = Request::Rename { certname: to.clone() };
    match agent_socket::ask(state.path(), &request, TIMEOUT).await {
        Ok(Reply::Renamed) => return Ok(()),
        Ok(Reply::Failed { message, .. }) => return Err(Failure::failed(message)),
        Ok(_) => {
            return Err(Failure::failed(
                "the agent is of an earlier version and cannot do that: restart it, and repeat the command",
            ));
        }
        Err(_) => {}
    }
    // The agent may have closed its socket before it answered, because it starts again.
    if state.certname()?.as_ref() == Some(to) {
        return Ok(());
    }
    let Some(_only_one_here) = state.lock_for_agent()? else {
        return Err(Failure::failed(format!(
            "the agent of {} does not answer: see its log, and repeat the command",
            state.path().display()
        )));
    };
    agent::rename(state, &Runs::open(state)?, to).map_err(Failure::failed)
}
