//! `trigger cancel`: ends the deliveries of an event that no run has covered yet.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use trigger_core::delivery::DeliveryState;
use trigger_core::duration;
use trigger_core::identity::{Certname, EventId, KeyPrefix};
use trigger_fleet::Fleet;
use trigger_fleet::cancelling::{Asked, Scope};
use trigger_fleet::status::EventStatus;
use trigger_node::clock;
use trigger_node::state::{Edited, Outbox, StateDir};
use trigger_store::store::StoreError;

use super::globals::{Globals, OutputFormat, start_audit};
use super::spooled_event::{self, SpooledEvent};
use super::status::target_table;
use crate::config::{ConfigFile, run_command};
use crate::documents::{self, CancelledEvent, Text, unreadable_parts};
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

/// How often the outcomes are read while the targets end the deliveries.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The event
    event: EventId,
    /// A node at which it is to end; repeat for more [default: all of its targets]
    #[arg(long = "target", value_name = "CERTNAME")]
    targets: Vec<String>,
    /// Why, for its status and the logs of its targets
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long to wait until the targets have ended it
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse, allow_negative_numbers = true)]
    timeout: Duration,
    /// The key prefix that the agents are registered under [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<KeyPrefix>,
}

/// What has become of the deliveries that were to end.
struct Cancelled {
    /// The event with these deliveries alone.
    status: EventStatus,
    /// Whether it was in this node's outbox, from which it is removed.
    was_spooled: bool,
    /// The targets at which it had ended before.
    ended_before: BTreeSet<Certname>,
}

pub(crate) async fn run(
    globals: &Globals,
    args: &CancelArgs,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    let wanted = args.targets.iter().map(|target| Certname::fold_case(target));
    let wanted: BTreeSet<Certname> =
        wanted.collect::<Result<_, _>>().map_err(|error| Failure::usage(error.to_string()))?;
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let state = StateDir::open_existing(&globals.state_dir(&config)?).ok().flatten();
    let command = run_command(config.run_cmd.as_deref())?;
    let by = globals.resolve_certname(&config, state.as_ref(), &command).await?;
    start_audit(&config)?;
    let spooled = match &state {
        Some(state) => withdraw(state, args, &by, warnings)?,
        None => None,
    };
    let in_backend = match globals.fleet(&config, args.prefix.as_ref(), warnings).await {
        Ok(fleet) => in_backend(&fleet.acting_as(by.clone()), args, (&by, &wanted), warnings).await,
        Err(failure) => Err(failure),
    };
    let result = match (in_backend, spooled) {
        (Ok(Some(result)), spooled) => Cancelled { was_spooled: spooled.is_some(), ..result },
        (Ok(None), Some(spooled)) => withdrawn(&spooled),
        (Ok(None), None) => return Err(unknown(globals, &config, args)?),
        (Err(failure), Some(spooled)) => {
            warnings.push(format!(
                "the event is removed from this node's outbox, and whether the backend has a part of it is not known: {failure}; \
                 cancel it again once the backend answers"
            ));
            withdrawn(&spooled)
        }
        (Err(failure), None) => return Err(failure),
    };
    print(globals.output, &result, &warnings.take());
    Ok(ExitCode::SUCCESS)
}

/// Takes the event out of this node's outbox, if it waits there.
fn withdraw(
    state: &StateDir,
    args: &CancelArgs,
    by: &Certname,
    warnings: &Warnings,
) -> Result<Option<SpooledEvent>, Failure> {
    let found = spooled_event::find(state, args.event, warnings)?;
    let Some(found) = found.filter(|found| found.state == DeliveryState::Spooled) else { return Ok(None) };
    if !args.targets.is_empty() {
        return Err(Failure::failed(format!(
            "event {} is still in this node's outbox: cancel it as a whole, without --target, or wait until the backend has it",
            args.event
        )));
    }
    match Outbox::open(state)?.drop_event(args.event, clock::wall())? {
        Edited::Done => {
            audit(args, by, "withdrawn");
            Ok(Some(found))
        }
        Edited::Absent => Ok(None),
        Edited::Busy | Edited::Refused(_) => {
            Err(Failure::failed(format!("event {} is being published at this moment: try again", args.event)))
        }
    }
}

/// Asks the targets to end the event, and waits a moment for that. `None` for an event that the backend does not know.
async fn in_backend(
    fleet: &Fleet,
    args: &CancelArgs,
    (by, wanted): (&Certname, &BTreeSet<Certname>),
    warnings: &Warnings,
) -> Result<Option<Cancelled>, Failure> {
    let Some(mut status) = fleet.event_status(args.event).await? else { return Ok(None) };
    if let Some(limited) = &status.limited_to {
        return Err(Failure::failed(format!(
            "event {} was fired by {}, and the hub lets {limited} cancel its own events only: cancel it there, or as an \
             operator of the hub",
            args.event, status.event.origin
        )));
    }
    if !status.unreadable_parts.is_empty() {
        return Err(Failure::failed(format!(
            "{} of event {} cannot be read, so that its targets are not known: try again",
            status.unreadable_parts.join(" and "),
            args.event
        )));
    }
    let is_target =
        |node: &&Certname| !status.event.targets.groups.is_empty() || status.targets.contains_key(*node);
    if let Some(other) = wanted.iter().find(|node| !is_target(node)) {
        return Err(Failure::failed(format!("{other} is no target of event {}", args.event)));
    }
    if *by != status.event.origin {
        warnings.push(format!(
            "the event was fired by {}: it ends at those of its targets alone whose [operators] name {by}",
            status.event.origin
        ));
    }
    let ended = |status: &EventStatus| -> BTreeSet<Certname> {
        let ended = status.targets.iter().filter(|(_, target)| target.state.is_end());
        ended.map(|(certname, _)| certname.clone()).collect()
    };
    let is_wanted = |node: &Certname| wanted.is_empty() || wanted.contains(node);
    let mut ended_before = ended(&status);
    let open: BTreeSet<Certname> = wanted.difference(&ended_before).cloned().collect();
    let scope = if wanted.is_empty() { Scope::AllBut(&ended_before) } else { Scope::Nodes(&open) };
    let waits = match scope {
        // A node may still join a group, or have joined it when the event was fired.
        Scope::AllBut(_) => !status.is_over() || !status.event.targets.groups.is_empty(),
        Scope::Nodes(open) => !open.is_empty(),
    };
    if waits {
        let asked = Asked { at: clock::wall(), reason: args.reason.as_deref() };
        fleet.cancel(&status.event, scope, asked).await?;
        audit(args, by, "asked");
        status = follow(fleet, status, args.timeout, &is_wanted).await?;
    }
    fleet.note_cancellations(&mut status).await?;
    status.targets.retain(|node, _| is_wanted(node));
    ended_before.retain(is_wanted);
    Ok(Some(Cancelled { status, was_spooled: false, ended_before }))
}

/// Reads the event until the deliveries have ended that are to end, or the time is over. A run in progress is not waited
/// for.
async fn follow(
    fleet: &Fleet,
    mut status: EventStatus,
    timeout: Duration,
    is_wanted: &impl Fn(&Certname) -> bool,
) -> Result<EventStatus, StoreError> {
    let started = Instant::now();
    loop {
        if let Some(read) = fleet.event_status(status.event.id).await? {
            status = read;
        }
        let waits = status.targets.iter().any(|(node, target)| {
            is_wanted(node) && !target.state.is_end() && target.state != DeliveryState::Running
        });
        if !waits || started.elapsed() >= timeout {
            return Ok(status);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn withdrawn(spooled: &SpooledEvent) -> Cancelled {
    let mut status = spooled.status();
    for target in status.targets.values_mut().filter(|target| target.state == DeliveryState::Spooled) {
        target.state = DeliveryState::Cancelled;
        target.reason = Some("removed from this node's outbox before the backend had it".to_owned());
    }
    Cancelled { status, was_spooled: true, ended_before: BTreeSet::new() }
}

fn unknown(globals: &Globals, config: &ConfigFile, args: &CancelArgs) -> Result<Failure, Failure> {
    let prefix = args.prefix.clone().map_or_else(|| config.prefix(), Ok)?;
    Ok(Failure::failed(format!(
        "no event {} is known at {} under {prefix}: it may have been swept, or is in the outbox of another node",
        args.event,
        globals.backend(config)?
    )))
}

/// Notes in the audit who wanted an event to end: `withdrawn` from the outbox, or `asked` of its targets.
fn audit(args: &CancelArgs, by: &Certname, how: &str) {
    let uid = rustix::process::getuid().as_raw();
    let targets = (!args.targets.is_empty()).then(|| args.targets.join(","));
    tracing::info!(
        target: "audit",
        action = "cancel",
        decision = how,
        event = %args.event,
        %by,
        targets,
        reason = args.reason,
        uid,
    );
}

fn print(format: OutputFormat, result: &Cancelled, warnings: &[String]) {
    match format {
        OutputFormat::Json => output::document(&CancelledEvent {
            event: documents::Event::of(&result.status),
            was_spooled: result.was_spooled,
            ended_before: result.ended_before.iter().cloned().map(Text).collect(),
            warnings: [warnings, &unreadable_parts(&result.status)].concat(),
        }),
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(warnings);
            output::print(&sentence(result));
            if !result.status.targets.is_empty() {
                output::print("");
                output::print_table(&target_table(&result.status, None));
            }
        }
    }
}

fn sentence(Cancelled { status, was_spooled, ended_before }: &Cancelled) -> String {
    let event = status.event.id;
    if *was_spooled && status.targets.values().all(|target| target.state == DeliveryState::Cancelled) {
        return format!("Event {event} is removed from this node's outbox: no node runs for it.");
    }
    let now = status.targets.iter().filter(|(node, _)| !ended_before.contains(*node));
    let (ended, open): (Vec<_>, Vec<_>) = now.partition(|(_, target)| target.state.is_end());
    let cancelled = ended.iter().filter(|(_, target)| target.state == DeliveryState::Cancelled).count();
    let deliveries =
        |count, what: &str| (count > 0).then(|| format!("{} {what}", output::count(count, "delivery")));
    let said: Vec<String> = [
        deliveries(cancelled, "cancelled"),
        deliveries(ended.len() - cancelled, "ended otherwise meanwhile"),
        deliveries(ended_before.len(), "ended before"),
        deliveries(open.len(), "not ended yet (a run in progress ends by itself; a node that is off ends its own when it is back)"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if said.is_empty() {
        return format!("Event {event}: no node is known that it waits for.");
    }
    format!("Event {event}: {}.", said.join(", "))
}
