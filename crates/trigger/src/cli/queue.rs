//! `trigger queue`: what this node runs, has to run, and cannot publish.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use trigger_core::time::Timestamp;
use trigger_node::agent_socket::{self, NoReply, Reply, Request};
use trigger_node::queue_view::QueueView;
use trigger_node::state::{Outbox, StateDir};

use super::globals::{Globals, OutputFormat};
use super::outbox;
use crate::documents::{QuarantinedFile, Queue, SpooledEvent};
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

/// How long to wait for the agent's answer. An agent that is alive answers at once.
const TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) async fn run(globals: &Globals, warnings: &Warnings) -> Result<ExitCode, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let path = globals.state_dir(&config)?;
    let state = StateDir::open_existing(&path)?;
    let path = state.as_ref().map_or(path.as_path(), StateDir::path);
    let agent = match agent_socket::ask(path, &Request::Queue, TIMEOUT).await {
        Ok(Reply::Queue(view)) => Ok(*view),
        Ok(Reply::Failed { message, .. }) => return Err(Failure::failed(message)),
        Ok(_) => Err(NoReply::NotUnderstood),
        Err(no_reply) => Err(no_reply),
    };
    let outbox = state.as_ref().map(|state| (state, Outbox::existing(state)));
    let (spooled, quarantined) = match outbox.map(|(state, outbox)| (state, outbox.waiting(), outbox)) {
        None => (Vec::new(), Vec::new()),
        Some((state, Ok(_), outbox)) => {
            // The queue can be looked at although the configuration has a mistake.
            let node = globals.node_backends(&config).map_err(|failure| warnings.push(failure.message)).ok();
            (outbox::spooled(state, &outbox, node.as_ref())?, outbox::quarantined(&outbox)?)
        }
        // The agent has answered a user to whom the state directory is closed.
        Some((_, Err(error), _))
            if agent.is_ok() && error.source.kind() == io::ErrorKind::PermissionDenied =>
        {
            warnings.push(format!("the outbox is not shown: {error}"));
            (Vec::new(), Vec::new())
        }
        Some((_, Err(error), _)) => return Err(error.into()),
    };
    match globals.output {
        OutputFormat::Json => {
            // That no agent runs is a field of the document.
            if let Err(no_reply @ (NoReply::NotInTime | NoReply::NotUnderstood)) = agent {
                warnings.push(sentence(path, no_reply));
            }
            output::document(&Queue::of(agent.ok(), spooled, quarantined, warnings.take()));
        }
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(&warnings.take());
            print_text(path, agent.as_ref().map_err(|no_reply| *no_reply), &spooled, &quarantined);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_text(
    state_dir: &Path,
    agent: Result<&QueueView, NoReply>,
    spooled: &[SpooledEvent],
    quarantined: &[QuarantinedFile],
) {
    match agent {
        Ok(agent) => print_agent(agent),
        Err(no_reply) => output::note(&format!("warning: {}", sentence(state_dir, no_reply))),
    }
    let is_idle =
        |agent: &QueueView| agent.running.is_none() && agent.waiting.is_empty() && agent.held.is_empty();
    if agent.is_ok_and(is_idle) {
        output::print("Nothing runs and nothing waits.");
    }
    outbox::print_outbox(spooled, quarantined);
}

/// Why nothing is known of the agent, and what follows.
fn sentence(state_dir: &Path, no_reply: NoReply) -> String {
    let place = state_dir.display();
    match no_reply {
        NoReply::NoAgent => {
            format!("no agent is running in {place}: nothing is delivered to or from this node")
        }
        NoReply::NotInTime => {
            format!("the agent of {place} is there and does not answer: its process is stopped or overloaded")
        }
        NoReply::NotUnderstood => {
            format!(
                "the agent of {place} is of another version than this program: restart it to see its queue"
            )
        }
    }
}

fn print_agent(agent: &QueueView) {
    let link = agent
        .disconnected
        .as_ref()
        .map_or_else(|| "connected".to_owned(), |why| format!("NOT CONNECTED: {why}"));
    output::print(&format!("{} on {} ({link})", agent.certname, agent.backend));
    if let Some(reason) = &agent.blocked {
        output::print(&format!("No run may start: {reason}"));
    }
    if let Some(run) = &agent.running {
        let since = output::short_time(Timestamp::from_unix_ms(run.started_at_unix_ms));
        output::print(&format!(
            "Running {} since {since} for {}",
            run.run_id,
            output::count(run.causes.len(), "event")
        ));
    }
    if !agent.waiting.is_empty() {
        output::print_heading("Waiting");
        let mut table = output::table(&["EVENT", "TRIGGER", "ORIGIN", "OPTIONS", "RETRY AT", "REASON"]);
        for event in &agent.waiting {
            let noop = event.noop.then(|| "noop".to_owned());
            let environment = event.environment.iter().map(|name| format!("environment {name}"));
            let options: Vec<String> =
                noop.into_iter().chain(environment).chain(event.tags.iter().cloned()).collect();
            let retry_at = event.retry_at_unix_ms.map(|ms| output::short_time(Timestamp::from_unix_ms(ms)));
            table.add_row([
                event.event_id.clone(),
                event.trigger.clone(),
                event.origin.clone(),
                options.join(" "),
                retry_at.unwrap_or_default(),
                event.reason.clone().unwrap_or_default(),
            ]);
        }
        output::print_table(&table);
    }
    if !agent.held.is_empty() {
        output::print_heading("Held");
        let mut table = output::table(&["EVENT", "TRIGGER", "ORIGIN", "REASON"]);
        for held in &agent.held {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            table.add_row([
                held.event_id.clone(),
                text(&held.trigger),
                text(&held.origin),
                held.reason.clone(),
            ]);
        }
        output::print_table(&table);
    }
    if !agent.unreadable.is_empty() {
        output::print_heading(
            "Unreadable: deliveries in the backend that this agent cannot use and leaves there",
        );
        let mut table = output::table(&["KEY", "REASON"]);
        agent.unreadable.iter().for_each(|entry| table.add_row([&entry.key, &entry.reason]));
        output::print_table(&table);
    }
}
