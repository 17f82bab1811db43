//! `trigger status`: the states of an event's deliveries, and the latest events.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use trigger_core::delivery::DeliveryState;
use trigger_core::event::RunOptions;
use trigger_core::identity::{Certname, EventId, GroupName, KeyPrefix};
use trigger_core::status::{DeliveryRun, DeliveryStatus};
use trigger_fleet::status::EventStatus;
use trigger_node::agent_socket::{self, Reply, Request};
use trigger_node::state::StateDir;

use super::globals::{Globals, OutputFormat};
use super::spooled_event::{self, SpooledEvent};
use super::target_counts;
use crate::config::ConfigFile;
use crate::documents::{self, LatestEvents};
use crate::failure::Failure;
use crate::output;
use crate::silence;
use crate::warnings::Warnings;

/// How long to wait for this node's agent. One that is alive answers at once.
const AGENT_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The event; without one, the latest events
    event: Option<EventId>,
    /// How many of the latest events, at most 100
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=100))]
    limit: u16,
    /// The key prefix that the agents are registered under [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<KeyPrefix>,
}

pub(crate) async fn run(
    globals: &Globals,
    args: &StatusArgs,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let fleet = globals.fleet(&config, args.prefix.as_ref(), warnings).await?;
    match args.event {
        Some(id) => match fleet.event_status(id).await {
            Ok(Some(mut status)) => {
                explain_own_delivery(globals, &config, &mut status).await;
                fleet.note_cancellations(&mut status).await?;
                warnings.extend(limited_sight(&status));
                show_event(globals.output, &status, None, &warnings.take());
            }
            // Events in this node's outbox can be shown without the backend.
            Ok(None) => show_spooled(globals, &config, id, warnings)?.ok_or_else(|| {
                Failure::failed(format!(
                    "no event {id} is known under {}: it may have been swept, or fired under another prefix",
                    fleet.prefix()
                ))
            })?,
            Err(error) => {
                show_spooled(globals, &config, id, warnings)?.ok_or_else(|| Failure::from(error))?
            }
        },
        None => {
            let events = fleet.latest_events(usize::from(args.limit)).await?;
            if let Some(limited) = events.iter().find_map(|status| status.limited_to.as_ref()) {
                warnings.push(format!(
                    "of the events that other nodes have fired, the deliveries to {limited} are shown only: the hub shows \
                     all to operators"
                ));
            }
            show_latest(globals.output, &events, &warnings.take());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says that an event is shown with one target only, where the hub shows no others to this node.
pub(super) fn limited_sight(status: &EventStatus) -> Option<String> {
    let limited = status.limited_to.as_ref()?;
    let origin = &status.event.origin;
    Some(format!(
        "only the delivery to {limited} is shown: the hub shows the others to {origin}, which fired the event, and to \
         operators"
    ))
}

/// Says what the delivery to this node waits for where its agent runs and may start nothing. The agent can report it to
/// no other node: without its claim, it writes nothing to the backend.
async fn explain_own_delivery(globals: &Globals, config: &ConfigFile, status: &mut EventStatus) {
    let Ok(state) = globals.state_dir(config) else { return };
    let Ok(Some(state)) = StateDir::open_existing(&state) else { return };
    let Ok(Some(own)) = state.certname() else { return };
    let Some(target) = status.targets.get_mut(&own) else { return };
    if target.state == DeliveryState::Pending
        && let Ok(Reply::Queue(view)) = agent_socket::ask(state.path(), &Request::Queue, AGENT_TIMEOUT).await
        && let Some(blocked) = view.blocked
    {
        // The agent that answers lives, whatever its registration looks like.
        target.last_seen = None;
        target.reason = Some(blocked);
    }
}

fn show_event(
    format: OutputFormat,
    status: &EventStatus,
    spooled_event: Option<&SpooledEvent>,
    warnings: &[String],
) {
    if format == OutputFormat::Json {
        return output::document(&match spooled_event {
            None => documents::EventStatus::committed(status, warnings),
            Some(SpooledEvent { publication, state, reason }) => documents::EventStatus::spooled(
                status,
                *state,
                reason,
                &publication.suppressed_groups,
                warnings,
            ),
        });
    }
    output::warnings(warnings);
    output::print_lines(heading(status, spooled_event));
    output::warnings(&documents::unreadable_parts(status));
    if status.targets.is_empty() {
        if spooled_event.is_none() && status.unreadable_parts.is_empty() {
            output::print_heading(
                "No node was a member of the groups it was fired at, and none has answered since.",
            );
        }
        return;
    }
    output::print("");
    output::print_table(&target_table(status, spooled_event));
}

/// The lines about the event as a whole.
fn heading(status: &EventStatus, spooled_event: Option<&SpooledEvent>) -> Vec<String> {
    let event = &status.event;
    let mut lines = vec![format!("Event    {}", event.id), format!("Trigger  {}", event.trigger)];
    lines.push(format!("Fired    {} on {}", output::short_time(event.fired_at), event.origin));
    lines.extend(event.fired_by.as_ref().map(|fired_by| format!("By       {fired_by}")));
    if event.options != RunOptions::default() {
        let noop = event.options.noop.then(|| "noop".to_owned());
        let environment = event.options.environment.iter().map(|name| format!("environment {name}"));
        let tags = event.options.tags.iter().map(|tag| format!("tag {tag}"));
        let options: Vec<String> = noop.into_iter().chain(environment).chain(tags).collect();
        lines.push(format!("Options  {}", options.join(", ")));
    }
    if let Some(hops) = event.lineage.chains.first().map(|chain| chain.hops.len()).filter(|hops| *hops > 0) {
        lines.push(format!("Chain    {} long: trigger why {}", output::count(hops, "hop"), event.id));
    }
    if let Some(SpooledEvent { state, reason, .. }) = spooled_event {
        lines.push(format!("State    {state}, {reason}"));
    }
    let groups = groups(&event.targets.groups, spooled_event).into_iter().enumerate();
    lines.extend(groups.map(|(index, line)| format!("{:9}{line}", if index == 0 { "Groups" } else { "" })));
    // The nodes that an event for groups reaches are known only to the backend.
    if spooled_event.is_none() || !status.targets.is_empty() {
        lines.push(format!("Targets  {}", target_counts::sentence(status)));
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

pub(super) fn target_table(status: &EventStatus, spooled_event: Option<&SpooledEvent>) -> output::Table {
    // The heading has shown the reason of the whole event already.
    let is_new = |reason: &String| spooled_event.is_none_or(|spooled_event| spooled_event.reason != *reason);
    let mut table = output::table(&["CERTNAME", "STATE", "OUTCOME", "STARTED", "TOOK", "REASON"]);
    for (certname, target) in &status.targets {
        let started = target.run.as_ref().map(DeliveryRun::started_at);
        let result = target.run.as_ref().and_then(DeliveryRun::ended).map(|ended| &ended.result);
        let took = result.map(|result| result.finished_at.since(result.started_at));
        table.add_row::<output::TableCell>([
            certname.to_string().into(),
            target.state.into(),
            outcome(target).unwrap_or_default().into(),
            started.map(output::short_time).unwrap_or_default().into(),
            took.map(|took| format!("{:.1}s", took.as_secs_f64())).unwrap_or_default().into(),
            reason(status, certname, target).filter(is_new).unwrap_or_default().into(),
        ]);
    }
    table
}

/// That the end of the delivery has been asked for, and the reason of its state.
fn reason(status: &EventStatus, certname: &Certname, target: &DeliveryStatus) -> Option<String> {
    let requested = status.cancellations.get(certname).map(|by| format!("cancellation requested by {by}"));
    let words: Vec<String> = requested.into_iter().chain(silence::reason(target)).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

fn outcome(target: &DeliveryStatus) -> Option<String> {
    Some(target.run.as_ref()?.ended()?.sentence())
}

fn show_latest(format: OutputFormat, events: &[EventStatus], warnings: &[String]) {
    if format == OutputFormat::Json {
        return output::document(&LatestEvents::of(events, warnings));
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
            target_counts::sentence(status),
            event.trigger.to_string(),
            event.origin.to_string(),
        ]);
    }
    output::print_table(&table);
}

/// Shows an event that only this node's outbox has. Returns nothing if the outbox does not have it either.
fn show_spooled(
    globals: &Globals,
    config: &ConfigFile,
    id: EventId,
    warnings: &Warnings,
) -> Result<Option<()>, Failure> {
    let Ok(Some(state)) = StateDir::open_existing(&globals.state_dir(config)?) else { return Ok(None) };
    let found = spooled_event::find(&state, id, warnings)?;
    Ok(found.map(|found| show_event(globals.output, &found.status(), Some(&found), &warnings.take())))
}
