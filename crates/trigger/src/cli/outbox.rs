//! `trigger outbox`: the events that this node has fired and the backend does not have, and how an operator mends them.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use trigger_core::identity::{EventId, KeyPrefix};
use trigger_core::publication::Publication;
use trigger_core::wire::Stored;
use trigger_node::clock;
use trigger_node::node_backends::{NodeBackends, UNADDRESSED};
use trigger_node::os::Os;
use trigger_node::state::{Edited, Outbox, StateDir, read_if_present};
use trigger_store::kinds::Access;
use trigger_store::url::BackendUrl;

use super::globals::{Globals, OutputFormat};
use crate::config::{BackendSource, ConfigFile};
use crate::documents::{OutboxChange, OutboxList, QuarantinedFile, SpooledEvent, Time};
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

#[derive(Debug, Args)]
pub(crate) struct OutboxArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the events that wait for a backend or are quarantined
    List,
    /// Send events to the backend of this node (or the one of --backend), also quarantined ones
    Readdress {
        /// The events
        #[arg(required_unless_present = "all")]
        events: Vec<EventId>,
        /// All events that wait for a backend which this node's configuration does not name
        #[arg(long, conflicts_with = "events")]
        all: bool,
        /// Another key prefix for them [default: the one they have]
        #[arg(long, value_name = "KEYPREFIX")]
        prefix: Option<KeyPrefix>,
    },
    /// Remove events for good: no node runs for them
    Drop {
        /// The events
        #[arg(required = true)]
        events: Vec<EventId>,
    },
}

pub(crate) fn run(globals: &Globals, args: &OutboxArgs, warnings: &Warnings) -> Result<ExitCode, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let path = globals.state_dir(&config)?;
    let Some(state) = StateDir::open_existing(&path)? else {
        return without_state(globals, args, &path, warnings);
    };
    let outbox = Outbox::existing(&state);
    match &args.action {
        Action::List => list(globals, &config, &state, &outbox, warnings)?,
        Action::Readdress { events, all, prefix } => {
            let backend = target(globals, &config)?;
            let events = if *all { elsewhere(globals, &config, &state, &outbox)? } else { events.clone() };
            let change = |publication: &mut Publication| {
                publication.backend = backend.to_string();
                if let Some(prefix) = prefix {
                    publication.prefix = prefix.clone();
                }
            };
            edit("sent on", &events, |event| Ok(outbox.readdress(event, clock::wall(), change)?))?;
            let count = output::count(events.len(), "event");
            let text = format!(
                "Readdressed {count} to {backend}. This node's agent, or its next fire, publishes them."
            );
            print_change(globals.output, "readdressed", &events, Some(&backend), &text, warnings);
        }
        Action::Drop { events } => {
            edit("dropped", events, |event| Ok(outbox.drop_event(event, clock::wall())?))?;
            let text = format!("Dropped {}.", output::count(events.len(), "event"));
            print_change(globals.output, "dropped", events, None, &text, warnings);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A node without a state directory has an empty outbox.
fn without_state(
    globals: &Globals,
    args: &OutboxArgs,
    path: &Path,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    match &args.action {
        Action::List => print_list(globals.output, Vec::new(), Vec::new(), warnings),
        Action::Readdress { .. } | Action::Drop { .. } => {
            return Err(Failure::failed(format!(
                "there is no state directory {}, so this node has no outbox",
                path.display()
            )));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The backend that events are sent to.
fn target(globals: &Globals, config: &ConfigFile) -> Result<BackendUrl, Failure> {
    let chosen = globals.chosen_backend(config)?;
    if chosen.source == BackendSource::Default {
        return Err(Failure::config(
            "no backend is configured on this node: give the URL with --backend, or configure one".to_owned(),
        ));
    }
    if chosen.url.kind().access == Access::WriteOnly {
        return Err(Failure::usage(format!(
            "backend '{}' delivers nothing: to remove an event, use 'trigger outbox drop'",
            chosen.url
        )));
    }
    Ok(chosen.url)
}

/// The events that wait for a backend which the configuration does not name.
fn elsewhere(
    globals: &Globals,
    config: &ConfigFile,
    state: &StateDir,
    outbox: &Outbox,
) -> Result<Vec<EventId>, Failure> {
    let node = globals.node_backends(config)?;
    let spooled = spooled(state, outbox, Some(&node))?;
    Ok(spooled
        .iter()
        .filter(|event| event.is_elsewhere)
        .filter_map(|event| event.event_id.parse().ok())
        .collect())
}

/// Changes one event after the other. Fails after the last one if an event could not be changed.
/// `done` says what has been done to an event. Where not all of it can be done, the failure says what was.
fn edit(
    done: &str,
    events: &[EventId],
    mut change: impl FnMut(EventId) -> Result<Edited, Failure>,
) -> Result<(), Failure> {
    let (mut edited, mut failures) = (Vec::new(), Vec::new());
    for event in events {
        match change(*event)? {
            Edited::Done => edited.push(event.to_string()),
            Edited::Busy => {
                failures.push(format!("event {event} is being published at this moment: try again"));
            }
            Edited::Absent => failures.push(format!("event {event} is not in this node's outbox")),
            Edited::Refused(reason) => {
                failures.push(format!("event {event} can be published nowhere: {reason}"));
            }
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    if !edited.is_empty() {
        failures.push(format!("{done}: {}", edited.join(", ")));
    }
    Err(Failure::failed(failures.join("; ")))
}

fn print_change(
    format: OutputFormat,
    action: &'static str,
    events: &[EventId],
    backend: Option<&BackendUrl>,
    text: &str,
    warnings: &Warnings,
) {
    match format {
        OutputFormat::Json => output::document(&OutboxChange {
            action,
            events: events.iter().map(EventId::to_string).collect(),
            backend: backend.map(BackendUrl::to_string),
            warnings: warnings.take(),
        }),
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(&warnings.take());
            output::print(text);
        }
    }
}

fn list(
    globals: &Globals,
    config: &ConfigFile,
    state: &StateDir,
    outbox: &Outbox,
    warnings: &Warnings,
) -> Result<(), Failure> {
    // An outbox can be looked at although the configuration has a mistake.
    let node = globals.node_backends(config).map_err(|failure| warnings.push(failure.message)).ok();
    let spooled = spooled(state, outbox, node.as_ref())?;
    print_list(globals.output, spooled, quarantined(outbox)?, warnings);
    Ok(())
}

fn print_list(
    format: OutputFormat,
    spooled: Vec<SpooledEvent>,
    quarantined: Vec<QuarantinedFile>,
    warnings: &Warnings,
) {
    match format {
        OutputFormat::Json => {
            output::document(&OutboxList { spooled, quarantined, warnings: warnings.take() });
        }
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(&warnings.take());
            if spooled.is_empty() && quarantined.is_empty() {
                output::print("The outbox is empty.");
            }
            print_outbox(&spooled, &quarantined);
        }
    }
}

/// The events that wait in the outbox. Those for a backend that is not among `node` are marked.
pub(super) fn spooled(
    state: &StateDir,
    outbox: &Outbox,
    node: Option<&NodeBackends>,
) -> Result<Vec<SpooledEvent>, Failure> {
    let mut events = Vec::new();
    let tries = outbox.last_tries();
    for path in outbox.waiting()? {
        if let Some(text) = read_if_present(state.host(), &path)? {
            let last_try = Outbox::<Os>::event_of(&path).and_then(|event| tries.get(&event));
            let reason = last_try.map_or(FOR_ITS_TURN, String::as_str);
            events.push(spooled_event(&path, &text, node, reason));
        }
    }
    Ok(events)
}

/// Why an event waits that has not been tried yet, or not since what was tried is known.
const FOR_ITS_TURN: &str = "it waits for its turn";
/// Stands for what a file says that cannot be read.
const UNREADABLE: &str = "(unreadable)";

fn spooled_event(path: &Path, text: &str, node: Option<&NodeBackends>, reason: &str) -> SpooledEvent {
    let event_id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match Publication::from_wire(text) {
        Ok(publication) => SpooledEvent {
            event_id,
            trigger: publication.event.trigger.to_string(),
            is_elsewhere: node.is_some_and(|node| !is_for(node, &publication.backend)),
            backend: publication.backend,
            fired_at: Some(Time(publication.event.fired_at)),
            targets: publication.event.targets.hosts.len() + publication.event.targets.groups.len(),
            reason: reason.to_owned(),
        },
        Err(error) => SpooledEvent {
            event_id,
            trigger: UNREADABLE.to_owned(),
            backend: UNREADABLE.to_owned(),
            is_elsewhere: false,
            fired_at: None,
            targets: 0,
            reason: error.to_string(),
        },
    }
}

fn is_for(node: &NodeBackends, address: &str) -> bool {
    node.resolve(address).is_ok_and(|url| node.include(&url))
}

pub(super) fn quarantined(outbox: &Outbox) -> Result<Vec<QuarantinedFile>, Failure> {
    let files = outbox.list_quarantined()?.into_iter();
    let document = files
        .map(|file| QuarantinedFile { file: file.path.to_string_lossy().into_owned(), reason: file.reason });
    Ok(document.collect())
}

pub(super) fn print_outbox(spooled: &[SpooledEvent], quarantined: &[QuarantinedFile]) {
    if !spooled.is_empty() {
        output::print_heading("Spooled: the backend has not committed these yet");
        let mut table = output::table(&["EVENT", "FIRED", "TRIGGER", "TARGETS", "BACKEND", "REASON"]);
        for event in spooled {
            let fired_at =
                event.fired_at.as_ref().map(|Time(at)| output::short_time(*at)).unwrap_or_default();
            table.add_row([
                &event.event_id,
                &fired_at,
                &event.trigger,
                &event.targets.to_string(),
                &backend(event),
                &event.reason,
            ]);
        }
        output::print_table(&table);
        if spooled.iter().any(|event| event.is_elsewhere) {
            output::print(
                "To send events to this node's own backend: trigger outbox readdress EVENT… (or --all of those that are \
                 for a backend which is not this node's)",
            );
        }
    }
    if !quarantined.is_empty() {
        output::print_heading(
            "Quarantined: these can never be published as they are; read, correct or remove them",
        );
        let mut table = output::table(&["FILE", "REASON"]);
        quarantined.iter().for_each(|file| table.add_row([&file.file, &file.reason]));
        output::print_table(&table);
    }
}

fn backend(event: &SpooledEvent) -> String {
    match event.backend.as_str() {
        UNREADABLE => UNREADABLE.to_owned(),
        UNADDRESSED => "(the one this node gets configured)".to_owned(),
        kind if !kind.contains(':') => format!("(the {kind} this node gets configured)"),
        url if event.is_elsewhere => format!("{url} (not this node's)"),
        url => url.to_owned(),
    }
}
