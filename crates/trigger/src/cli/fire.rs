//! `trigger fire`: creates an event and publishes it, so that it is durable before this command ends.

mod args;
mod event;
mod progress;
mod result;
mod wait;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use trigger_core::identity::{KeyPrefix, Revision};
use trigger_core::keyspace::Keyspace;
use trigger_core::publication::Publication;
use trigger_core::wire::Stored;
use trigger_fleet::Fleet;
use trigger_node::agent::socket::{self, Reply, Request};
use trigger_node::fire_chain::{self, Guarded};
use trigger_node::firing::{FireReport, Fired, Publisher, Spool};
use trigger_node::state::{Breaker, Outbox, StateDir};

pub(crate) use args::FireArgs;

use super::globals::{Globals, OutputFormat};
use crate::config::{ConfigFile, run_command, setting};
use crate::documents::{self, FollowedEvent, SuppressedGroup};
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

/// How long an agent may take to answer beyond the time to publish. An agent that takes longer is hung.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn run(
    globals: &Globals,
    args: &FireArgs,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let state = open_state_dir(globals, &config, warnings);
    let command = run_command(config.run_cmd.as_deref())?;
    let chain_warnings = trigger_node::Warnings::default();
    let parent = fire_chain::parent_run(state.as_ref(), &chain_warnings);
    warnings.extend(chain_warnings.take());
    let origin = match &parent {
        // Puppet may use another certname there, and 'trigger why' looks for the run under the agent's.
        Some(parent) => parent.certname.clone(),
        None => globals.resolve_certname(&config, state.as_ref(), &command).await?,
    };
    let event = event::make(args, origin, parent.as_ref())?;
    let own_prefix = own_prefix(&config)?;
    let mut publication = Publication {
        backend: globals.backend(&config)?,
        prefix: args.prefix.as_deref().map_or_else(|| Ok(own_prefix.clone()), event::valid)?,
        event,
        suppressed: BTreeMap::new(),
        suppressed_groups: BTreeMap::new(),
    };
    let mut guarded = Guarded::default();
    if let (Some(parent), Some(state)) = (&parent, &state) {
        if args.wait {
            fire_chain::refuse_waiting_for_own_chain(&publication.event, parent)?;
        }
        guarded = fire_chain::guard_against_loops(&mut publication, args.ttl, parent, state, &chain_warnings);
        warnings.extend(chain_warnings.take());
    }
    let publisher = Publisher::new(open_spool(state.as_ref(), warnings), own_prefix);
    if args.wait {
        ensure_backend_is_readable(&publisher, &publication.backend)?;
    }
    let submitted = submit(state.as_ref(), &publisher, &publication).await;
    if let (Err(_), Some(state)) = (&submitted, &state) {
        fire_chain::take_back(state, &guarded, &publication.event, &chain_warnings);
        warnings.extend(chain_warnings.take());
    }
    let Submitted { report, by_agent } = submitted?;
    warnings.extend(report.warnings);
    if let Fired::Spooled(reason) = &report.fired {
        warnings.push(spooled_warning(reason, by_agent));
    }
    if let (Some(parent), Some(state)) = (&parent, &state) {
        fire_chain::note_fired(state, parent, &publication, &guarded, &chain_warnings);
        warnings.extend(chain_warnings.take());
    }
    if !by_agent && matches!(report.fired, Fired::Committed(_)) {
        // Without an agent nothing else empties the outbox, and the backend is reachable now.
        warnings.extend(drain_outbox(&publisher).await);
    }
    if args.wait {
        return follow(globals, args, &publisher, &publication, &report.fired, warnings).await;
    }
    result::print(globals.output, &publication, &report.fired, &warnings.take());
    Ok(ExitCode::SUCCESS)
}

/// Rejects `--wait` for write-only backends before firing, because they cannot report outcomes.
fn ensure_backend_is_readable(publisher: &Publisher, backend: &str) -> Result<(), Failure> {
    // A backend that cannot be opened is no reason to refuse: the event goes to the outbox.
    if publisher.backend(backend).is_ok_and(|opened| opened.store().is_none()) {
        return Err(Failure::usage(format!(
            "backend '{backend}' is write-only: --wait cannot work, and nothing was fired"
        )));
    }
    Ok(())
}

/// Publishes the events in the outbox. Its warnings do not concern the event that was just fired.
async fn drain_outbox(publisher: &Publisher) -> Vec<String> {
    match publisher.drain(true).await {
        Ok(drained) => {
            let quarantined = drained.quarantined.into_iter();
            quarantined
                .map(|file| {
                    format!("a spooled event is quarantined in {}: {}", file.path.display(), file.reason)
                })
                .collect()
        }
        Err(error) => vec![format!("the outbox cannot be emptied: {}", Failure::from(error).message)],
    }
}

/// The prefix that this node's agent is registered under: inside a run the agent's own, else as configured.
fn own_prefix(config: &ConfigFile) -> Result<KeyPrefix, Failure> {
    match std::env::var("TRIGGER_PREFIX") {
        Ok(prefix) => setting("TRIGGER_PREFIX")(&prefix),
        Err(_) => config.prefix(),
    }
}

/// The state directory, unless this user may not use one.
fn open_state_dir(globals: &Globals, config: &ConfigFile, warnings: &Warnings) -> Option<StateDir> {
    match StateDir::open(&globals.state_dir(config)) {
        Ok(state) => Some(state),
        Err(error) => {
            warnings.push(format!("nothing can be spooled here: {error}"));
            None
        }
    }
}

fn open_spool(state: Option<&StateDir>, warnings: &Warnings) -> Option<Spool> {
    let state = state?;
    match Outbox::open(state) {
        Ok(outbox) => Some(Spool { outbox, breaker: Breaker::new(state) }),
        Err(error) => {
            warnings.push(format!("nothing can be spooled here: {error}"));
            None
        }
    }
}

/// An event that is durable.
struct Submitted {
    report: FireReport,
    /// Whether this node's agent took the event, and not this process.
    by_agent: bool,
}

/// Hands the event to this node's agent if one is alive, else publishes it from here. Both do the same, and if both
/// do it, nothing happens twice.
async fn submit(
    state: Option<&StateDir>,
    publisher: &Publisher,
    publication: &Publication,
) -> Result<Submitted, Failure> {
    if let Some(state) = state {
        let request = Request::Fire { publication: publication.to_wire() };
        let timeout = Publisher::patience(publication) + AGENT_TIMEOUT;
        let by_agent = |fired, warnings| Submitted { report: FireReport { fired, warnings }, by_agent: true };
        match socket::ask(state, &request, timeout).await {
            Some(Reply::Committed { revision, warnings }) => {
                return Ok(by_agent(Fired::Committed(Revision(revision)), warnings));
            }
            Some(Reply::Spooled { reason, warnings }) => {
                return Ok(by_agent(Fired::Spooled(reason), warnings));
            }
            Some(Reply::Failed { code, message }) => {
                return Err(trigger_node::failure::Failure { code, message }.into());
            }
            // There is no agent, or it is older than this program: this process does the same itself.
            Some(Reply::Queue(_) | Reply::NotUnderstood { .. }) | None => {}
        }
    }
    Ok(Submitted { report: publisher.fire(publication).await?, by_agent: false })
}

fn spooled_warning(reason: &str, by_agent: bool) -> String {
    if by_agent {
        format!("{reason}; the event is safe in this node's outbox and its agent delivers it later")
    } else {
        format!(
            "{reason}; the event is safe in this node's outbox, but NO AGENT IS RUNNING HERE to deliver it: \
             it waits for the next fire that reaches the backend, or for 'trigger agent'"
        )
    }
}

/// Waits for the event's outcomes and prints them.
async fn follow(
    globals: &Globals,
    args: &FireArgs,
    publisher: &Publisher,
    publication: &Publication,
    fired: &Fired,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    if globals.output == OutputFormat::Text {
        result::print(globals.output, publication, fired, &warnings.take());
    }
    let backend = publisher.backend(&publication.backend)?;
    let Some(store) = backend.store() else {
        return Err(Failure::usage(format!(
            "backend '{}' is write-only: --wait cannot work",
            publication.backend
        )));
    };
    let fleet = Fleet::new(Arc::clone(store), Keyspace::new(publication.prefix.clone()));
    let followed = wait::until_over(&fleet, publication.event.id, args.timeout, globals.output).await?;
    if globals.output == OutputFormat::Json {
        output::document(&FollowedEvent {
            event: documents::Event::of(&followed.status),
            state: result::state(publication, fired),
            revision: result::revision(fired),
            suppressed_groups: SuppressedGroup::list(&publication.suppressed_groups),
            timed_out: followed.timed_out,
            warnings: warnings.take(),
        });
    }
    Ok(followed.exit_code())
}
