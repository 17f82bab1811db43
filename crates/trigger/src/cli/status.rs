//! `trigger status`: where an event's deliveries stand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use comfy_table::Table;
use serde_json::{Value, json};
use trigger_core::delivery::DeliveryState;
use trigger_core::identity::{EventId, GroupName, KeyPrefix};
use trigger_core::keyspace::Keyspace;
use trigger_core::status::{DeliveryRun, DeliveryStatus};
use trigger_core::time::Timestamp;
use trigger_fleet::Fleet;
use trigger_fleet::status::EventStatus;

use super::spooled_event::{self, SpooledEvent};
use super::{Globals, OutputFormat, Warnings, output};
use crate::config::ConfigFile;
use trigger_node::clock;
use trigger_node::failure::Failure;
use trigger_node::firing::Publisher;
use trigger_node::state::StateDir;

/// An agent registers anew every minute; one that has not for so long is cut off, stopped or gone.
const SILENT_AFTER: Duration = Duration::from_secs(5 * 60);

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The event; without one, the latest events
    event: Option<EventId>,
    /// How many of the latest events
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=100))]
    limit: u16,
    /// Where in the backend the agents are registered [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<KeyPrefix>,
}

pub(crate) async fn run(globals: &Globals, args: &StatusArgs, warnings: &Warnings) -> Result<u8, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let url = globals.backend(&config)?;
    let prefix = args.prefix.clone().map_or_else(|| config.prefix(), Ok)?;
    let backend = Publisher::new(None, prefix.clone()).backend(&url)?;
    let Some(store) = backend.store() else {
        return Err(Failure::usage(format!("backend '{url}' tells nothing of what it was given")));
    };
    let fleet = Fleet::new(Arc::clone(store), Keyspace::new(prefix));
    let unreachable = |error: trigger_store::store::StoreError| Failure::unreachable(error.to_string());
    match args.event {
        Some(id) => match fleet.event_status(id).await {
            Ok(Some(status)) => show_event(globals.output, &status, None, &warnings.take()),
            // What is spooled here is known without a backend.
            Ok(None) => show_spooled(globals, &config, id, warnings)?.ok_or_else(|| {
                Failure::failed(format!(
                    "no event {id} is known under {}: it may have been swept, or fired under another prefix",
                    fleet.prefix()
                ))
            })?,
            Err(error) => show_spooled(globals, &config, id, warnings)?.ok_or_else(|| unreachable(error))?,
        },
        None => {
            let events = fleet.latest_events(usize::from(args.limit)).await;
            show_latest(globals.output, &events.map_err(unreachable)?, &warnings.take());
        }
    }
    Ok(0)
}

fn show_event(
    format: OutputFormat,
    status: &EventStatus,
    spooled_event: Option<&SpooledEvent>,
    warnings: &[String],
) {
    if format == OutputFormat::Json {
        let mut document = event_json(status);
        if let Some(SpooledEvent { publication, state, reason }) = spooled_event {
            document["state"] = json!(state.as_str());
            document["reason"] = json!(reason);
            document["suppressed_groups"] = output::suppressed_groups(&publication.suppressed_groups);
        }
        document["warnings"] = json!([warnings, &unreadable(status)].concat());
        return output::print_json(&document);
    }
    output::warnings(warnings);
    output::print(&heading(status, spooled_event).join("\n"));
    output::warnings(&unreadable(status));
    if status.targets.is_empty() {
        if spooled_event.is_none() && status.unreadable_parts.is_empty() {
            output::print(
                "\nNo node was a member of the groups it was fired at, and none has answered since.",
            );
        }
        return;
    }
    output::print("");
    output::print_table(&target_table(status, spooled_event));
}

/// What there is to say of the event as a whole.
fn heading(status: &EventStatus, spooled_event: Option<&SpooledEvent>) -> Vec<String> {
    let event = &status.event;
    let mut lines = vec![format!("Event    {}", event.id), format!("Trigger  {}", event.trigger)];
    lines.push(format!("Fired    {} on {}", output::short_time(event.fired_at), event.origin));
    if event.options.noop || event.options.is_tagged() {
        let noop = event.options.noop.then(|| "noop".to_owned());
        let tags = event.options.tags.iter().map(|tag| format!("tag {tag}"));
        lines.push(format!("Options  {}", noop.into_iter().chain(tags).collect::<Vec<_>>().join(", ")));
    }
    if let Some(hops) = event.lineage.chains.first().map(|chain| chain.hops.len()).filter(|hops| *hops > 0) {
        lines.push(format!("Chain    {} long: trigger why {}", output::count(hops, "hop"), event.id));
    }
    if let Some(SpooledEvent { state, reason, .. }) = spooled_event {
        lines.push(format!("DeliveryState    {state}, {reason}"));
    }
    let groups = groups(&event.targets.groups, spooled_event).into_iter().enumerate();
    lines.extend(groups.map(|(index, line)| format!("{:9}{line}", if index == 0 { "Groups" } else { "" })));
    // Of an event for groups alone the backend will know the targets.
    if spooled_event.is_none() || !status.targets.is_empty() {
        lines.push(format!("Targets  {}", summary(status)));
    }
    lines
}

/// The groups that an event was fired at, in lines.
fn groups(groups: &BTreeSet<GroupName>, spooled_event: Option<&SpooledEvent>) -> Vec<String> {
    let names: Vec<&str> = groups.iter().map(GroupName::as_str).collect();
    let state = spooled_event.map_or_else(String::new, |spooled_event| format!(": {}", spooled_event.state));
    let fired_at = (!names.is_empty()).then(|| format!("{}{state}", names.join(", ")));
    let suppressed =
        spooled_event.iter().flat_map(|spooled_event| &spooled_event.publication.suppressed_groups);
    let suppressed =
        suppressed.map(|(group, reason)| format!("{group}: {}, {reason}", DeliveryState::Suppressed));
    fired_at.into_iter().chain(suppressed).collect()
}

fn target_table(status: &EventStatus, spooled_event: Option<&SpooledEvent>) -> Table {
    // Said of the whole event already.
    let is_new = |reason: &String| spooled_event.is_none_or(|spooled_event| spooled_event.reason != *reason);
    let mut table = output::table(&["CERTNAME", "STATE", "OUTCOME", "STARTED", "TOOK", "REASON"]);
    for (certname, target) in &status.targets {
        let started = target.run.as_ref().map(DeliveryRun::started_at);
        let result = target.run.as_ref().and_then(DeliveryRun::ended).map(|ended| &ended.result);
        let took = result.map(|result| result.finished_at.since(result.started_at));
        table.add_row([
            certname.to_string().into(),
            output::state_cell(target.state),
            outcome(target).unwrap_or_default().into(),
            started.map(output::short_time).unwrap_or_default().into(),
            took.map(|took| format!("{:.1}s", took.as_secs_f64())).unwrap_or_default().into(),
            reason(target).filter(is_new).unwrap_or_default().into(),
        ]);
    }
    table
}

/// What of an event cannot be shown.
fn unreadable(status: &EventStatus) -> Vec<String> {
    let sentence = |part| format!("{part} of this event cannot be read: its targets are not listed");
    status.unreadable_parts.iter().map(sentence).collect()
}

/// That a node has said nothing for long, which explains most of what does not move.
pub(super) fn silence(last_seen: Timestamp) -> Option<String> {
    let silent_for = Duration::from_secs(clock::wall().since(last_seen).as_secs());
    let duration = humantime::format_duration(silent_for);
    (silent_for >= SILENT_AFTER).then(|| format!("its agent has been silent for {duration}"))
}

/// The state's reason, and that its node is silent.
pub(super) fn reason(target: &DeliveryStatus) -> Option<String> {
    let silent = target.last_seen.and_then(silence);
    let words: Vec<String> = target.reason.clone().into_iter().chain(silent).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

fn outcome(target: &DeliveryStatus) -> Option<String> {
    let ended = target.run.as_ref()?.ended()?;
    Some(format!("{}{}", ended.result.outcome, if ended.noop { " (noop)" } else { "" }))
}

/// `2 done, 1 pending`, in the order of the states' progress.
pub(super) fn summary(status: &EventStatus) -> String {
    let mut counts: BTreeMap<DeliveryState, usize> = BTreeMap::new();
    for target in status.targets.values() {
        *counts.entry(target.state).or_default() += 1;
    }
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

fn show_latest(format: OutputFormat, events: &[EventStatus], warnings: &[String]) {
    if format == OutputFormat::Json {
        let events: Vec<Value> = events.iter().map(event_json).collect();
        return output::print_json(&json!({ "events": events, "warnings": warnings }));
    }
    output::warnings(warnings);
    if events.is_empty() {
        return output::print("No events.");
    }
    let mut table = output::table(&["EVENT", "FIRED", "TARGETS", "TRIGGER", "ORIGIN"]);
    for status in events {
        let event = &status.event;
        table.add_row([
            event.id.to_string(),
            output::short_time(event.fired_at),
            summary(status),
            event.trigger.to_string(),
            event.origin.to_string(),
        ]);
    }
    output::print_table(&table);
}

/// Shows an event that only this node's outbox knows; nothing when it does not know it either.
fn show_spooled(
    globals: &Globals,
    config: &ConfigFile,
    id: EventId,
    warnings: &Warnings,
) -> Result<Option<()>, Failure> {
    let Ok(state) = StateDir::open(&globals.state_dir(config)) else { return Ok(None) };
    let found = spooled_event::find(&state, id, warnings)?;
    Ok(found.map(|found| show_event(globals.output, &found.status(), Some(&found), &warnings.take())))
}

/// The document of one event, with the fields that the design names.
pub(super) fn event_json(status: &EventStatus) -> Value {
    let event = &status.event;
    let targets: Vec<Value> = status
        .targets
        .iter()
        .map(|(certname, target)| {
            let run = target.run.as_ref();
            let ended = run.and_then(DeliveryRun::ended);
            json!({
                "certname": certname.as_str(),
                "state": target.state.as_str(),
                "outcome": ended.map(|ended| ended.result.outcome.as_str()),
                "run_id": run.map(|run| run.run_id().to_string()),
                "started_at": run.map(|run| output::time(run.started_at())),
                "finished_at": ended.map(|ended| output::time(ended.result.finished_at)),
                "noop": ended.map(|ended| ended.noop),
                "reason": reason(target),
            })
        })
        .collect();
    json!({
        "event_id": event.id.to_string(),
        "trigger": event.trigger.as_str(),
        "origin": event.origin.as_str(),
        "fired_at": output::time(event.fired_at),
        "expires_in_seconds": event.expires_in.as_secs(),
        "tags": event.options.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(),
        "noop": event.options.noop,
        "groups": event.targets.groups.iter().map(|group| group.as_str()).collect::<Vec<_>>(),
        "targets": targets,
        "warnings": unreadable(status),
    })
}
