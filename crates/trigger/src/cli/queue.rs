//! `trigger queue`: what this node does, has to do, and cannot do.

use std::time::Duration;

use serde_json::json;
use trigger_core::publication::Publication;
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;

use super::{Globals, OutputFormat, Warnings, output};
use trigger_node::agent::QueueView;
use trigger_node::agent::socket::{self, Reply, Request};
use trigger_node::failure::Failure;
use trigger_node::state::{Outbox, Quarantined, StateDir, read_if_present};

/// An agent that is alive answers at once.
const TIMEOUT: Duration = Duration::from_secs(3);

/// An event in the outbox.
struct SpooledEvent {
    id: String,
    trigger: String,
    backend: String,
    targets: usize,
}

pub(crate) async fn run(globals: &Globals, warnings: &Warnings) -> Result<u8, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let state = StateDir::open(&globals.state_dir(&config))?;
    let agent = match socket::ask(&state, &Request::Queue, TIMEOUT).await {
        Some(Reply::Queue(view)) => Some(*view),
        _ => None,
    };
    let outbox = Outbox::open(&state)?;
    let mut spooled = Vec::new();
    for path in outbox.waiting()? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some(text) = read_if_present(&path)? else { continue };
        spooled.push(match Publication::from_wire(&text) {
            Ok(publication) => SpooledEvent {
                id: name,
                trigger: publication.event.trigger.to_string(),
                backend: publication.backend,
                targets: publication.event.targets.hosts.len() + publication.event.targets.groups.len(),
            },
            Err(_) => SpooledEvent {
                id: name,
                trigger: "(unreadable)".to_owned(),
                backend: String::new(),
                targets: 0,
            },
        });
    }
    let quarantined = outbox.list_quarantined()?;
    match globals.output {
        OutputFormat::Json => print_json(agent.as_ref(), &spooled, &quarantined, &warnings.take()),
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(&warnings.take());
            print_text(&state, agent.as_ref(), &spooled, &quarantined);
        }
    }
    Ok(0)
}

fn print_json(
    agent: Option<&QueueView>,
    spooled: &[SpooledEvent],
    quarantined: &[Quarantined],
    warnings: &[String],
) {
    let time = |ms: u64| output::time(Timestamp::from_unix_ms(ms));
    let running = agent.and_then(|agent| agent.running.as_ref()).map(|run| {
        json!({ "run_id": run.run_id, "started_at": time(run.started_at_unix_ms), "causes": run.causes })
    });
    let waiting: Vec<_> = agent
        .iter()
        .flat_map(|agent| &agent.waiting)
        .map(|event| {
            json!({
                "event_id": event.event_id,
                "trigger": event.trigger,
                "origin": event.origin,
                "tags": event.tags,
                "noop": event.noop,
                "retry_at": event.retry_at_unix_ms.map(time),
                "reason": event.reason,
            })
        })
        .collect();
    let spooled: Vec<_> = spooled
        .iter()
        .map(|event| json!({ "event_id": event.id, "trigger": event.trigger, "backend": event.backend, "targets": event.targets }))
        .collect();
    let quarantined: Vec<_> = quarantined
        .iter()
        .map(|aside| json!({ "file": aside.path.to_string_lossy(), "reason": aside.reason }))
        .collect();
    output::print_json(&json!({
        "agent_running": agent.is_some(),
        "certname": agent.map(|agent| &agent.certname),
        "backend": agent.map(|agent| &agent.backend),
        "disconnected": agent.and_then(|agent| agent.disconnected.as_ref()),
        "blocked": agent.and_then(|agent| agent.blocked.as_ref()),
        "running": running,
        "waiting": waiting,
        "held": agent.map(|agent| json!(agent.held)).unwrap_or_else(|| json!([])),
        "unreadable": agent.map(|agent| json!(agent.unreadable)).unwrap_or_else(|| json!([])),
        "spooled": spooled,
        "quarantined": quarantined,
        "warnings": warnings,
    }));
}

fn print_text(
    state: &StateDir,
    agent: Option<&QueueView>,
    spooled: &[SpooledEvent],
    quarantined: &[Quarantined],
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
        output::print("\nSpooled: the backend has not committed these yet");
        let mut table = output::table(&["EVENT", "TRIGGER", "TARGETS", "BACKEND"]);
        for event in spooled {
            table.add_row([&event.id, &event.trigger, &event.targets.to_string(), &event.backend]);
        }
        output::print_table(&table);
    }
    if !quarantined.is_empty() {
        output::print("\nQuarantined: these can never be published; read, mend or remove them");
        let mut table = output::table(&["FILE", "REASON"]);
        for aside in quarantined {
            table.add_row([aside.path.to_string_lossy().into_owned(), aside.reason.clone()]);
        }
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
        output::print("\nWaiting");
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
        output::print("\nHeld");
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
        output::print("\nUnreadable: deliveries in the backend that this agent cannot use and leaves there");
        let mut table = output::table(&["KEY", "REASON"]);
        table.add_rows(agent.unreadable.iter().map(|entry| [&entry.key, &entry.reason]));
        output::print_table(&table);
    }
}
