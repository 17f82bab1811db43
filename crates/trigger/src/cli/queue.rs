//! `trigger queue`: what this node runs, has to run, and cannot publish.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use trigger_core::publication::Publication;
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;
use trigger_node::agent_socket::{self, Reply, Request};
use trigger_node::queue_view::QueueView;
use trigger_node::state::{Outbox, StateDir, read_if_present};

use super::globals::{Globals, OutputFormat};
use crate::documents::{QuarantinedFile, Queue, SpooledEvent};
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

/// How long to wait for the agent's answer. An agent that is alive answers at once.
const TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) async fn run(globals: &Globals, warnings: &Warnings) -> Result<ExitCode, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let state = StateDir::open(&globals.state_dir(&config))?;
    let agent = match agent_socket::ask(state.path(), &Request::Queue, TIMEOUT).await {
        Some(Reply::Queue(view)) => Some(*view),
        _ => None,
    };
    let outbox = Outbox::open(&state)?;
    let mut spooled = Vec::new();
    for path in outbox.waiting()? {
        if let Some(text) = read_if_present(state.host(), &path)? {
            spooled.push(spooled_event(&path, &text));
        }
    }
    let quarantined: Vec<QuarantinedFile> = outbox
        .list_quarantined()?
        .into_iter()
        .map(|file| QuarantinedFile { file: file.path.to_string_lossy().into_owned(), reason: file.reason })
        .collect();
    match globals.output {
        OutputFormat::Json => output::document(&Queue::of(agent, spooled, quarantined, warnings.take())),
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(&warnings.take());
            print_text(&state, agent.as_ref(), &spooled, &quarantined);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn spooled_event(path: &Path, text: &str) -> SpooledEvent {
    let event_id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match Publication::from_wire(text) {
        Ok(publication) => SpooledEvent {
            event_id,
            trigger: publication.event.trigger.to_string(),
            backend: publication.backend,
            targets: publication.event.targets.hosts.len() + publication.event.targets.groups.len(),
        },
        Err(_) => {
            SpooledEvent { event_id, trigger: "(unreadable)".to_owned(), backend: String::new(), targets: 0 }
        }
    }
}

fn print_text(
    state: &StateDir,
    agent: Option<&QueueView>,
    spooled: &[SpooledEvent],
    quarantined: &[QuarantinedFile],
) {
    match agent {
        Some(agent) => print_agent(agent),
        None => output::note(&format!(
            "warning: no agent is running in {}: nothing is delivered to or from this node",
            state.path().display()
        )),
    }
    let is_idle = agent
        .is_none_or(|agent| agent.running.is_none() && agent.waiting.is_empty() && agent.held.is_empty());
    if agent.is_some() && is_idle {
        output::print("Nothing runs and nothing waits.");
    }
    if !spooled.is_empty() {
        output::print_heading("Spooled: the backend has not committed these yet");
        let mut table = output::table(&["EVENT", "TRIGGER", "TARGETS", "BACKEND"]);
        for event in spooled {
            table.add_row([&event.event_id, &event.trigger, &event.targets.to_string(), &event.backend]);
        }
        output::print_table(&table);
    }
    if !quarantined.is_empty() {
        output::print_heading("Quarantined: these can never be published; read, correct or remove them");
        let mut table = output::table(&["FILE", "REASON"]);
        quarantined.iter().for_each(|file| table.add_row([&file.file, &file.reason]));
        output::print_table(&table);
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
            let options: Vec<String> = noop.into_iter().chain(event.tags.iter().cloned()).collect();
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
