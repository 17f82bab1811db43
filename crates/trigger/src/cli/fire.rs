//! `trigger fire`: creates an event and publishes it, so that it is durable before this command ends.

mod args;
mod event;
mod progress;
mod query;
mod result;
mod retry;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trigger_core::delivery::DeliveryState;
use trigger_core::identity::{Certname, EventId, KeyPrefix, RunId};
use trigger_core::keyspace::Keyspace;
use trigger_core::publication::Publication;
use trigger_fleet::Fleet;
use trigger_fleet::codec::Codec;
use trigger_node::agent_socket::{self, Reply, Request};
use trigger_node::fire_chain::{self, Guarded};
use trigger_node::firing::{Fired, Publisher, Spool};
use trigger_node::node_backends::UNADDRESSED;
use trigger_node::os::Os;
use trigger_node::state::{Breaker, Outbox, StateDir};
use trigger_node::submit::{Caller, Submission};
use trigger_store::credentials::Credentials;
use trigger_store::kinds::{Access, AddressCount};
use trigger_store::url::BackendUrl;

pub(crate) use args::FireArgs;
pub(super) use event::valid;

use super::globals::{Globals, OutputFormat};
use super::spooled_event;
use crate::config::{BackendSource, ChosenBackend, ConfigFile, run_command, setting};
use crate::documents::{self, FollowedEvent, SuppressedGroup};
use crate::failure::Failure;
use crate::output;
use crate::warnings::Warnings;

/// How long to wait for an answer of the agent, which answers at once if it is alive.
const AGENT_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) async fn run(
    globals: &Globals,
    args: &FireArgs,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let state = open_state_dir(globals, &config, warnings)?;
    let command = run_command(config.run_cmd.as_deref())?;
    let mut more_warnings = Vec::new();
    let parent = fire_chain::parent_run(enclosing_run(), state.as_ref(), &mut more_warnings);
    warnings.extend(more_warnings.drain(..));
    let served_by = agent_for_other_users(state.as_ref()).await?;
    let origin = match (&parent, &served_by) {
        // Puppet may use another certname there, and 'trigger why' looks for the run under the agent's.
        (Some(parent), _) => parent.certname.clone(),
        (None, Some(certname)) => certname.clone(),
        (None, None) => globals.resolve_certname(&config, state.as_ref(), &command).await?,
    };
    let event = match args.retry {
        Some(earlier) => {
            retry::make(globals, &config, (args, earlier), origin, parent.as_ref(), warnings).await?
        }
        None => {
            let found = match &args.query {
                Some(query) => query::hosts(globals, &config, &command, query).await?,
                None => BTreeSet::new(),
            };
            let is_empty = args.query.is_some() && found.is_empty();
            let targets = event::targets(args, found)?;
            if is_empty {
                warnings.push("PuppetDB knows no active node for the query".to_owned());
                if targets.is_empty() {
                    result::print_nothing(
                        globals.output,
                        valid(args.name.as_deref().unwrap_or_default())?,
                        &warnings.take(),
                    );
                    return Ok(ExitCode::SUCCESS);
                }
            }
            event::make(args, targets, origin, parent.as_ref())?
        }
    };
    let own_prefix = own_prefix(&config)?;
    let chosen = globals.chosen_backend(&config)?;
    let node_backends = config.node_backends(&chosen, globals.backend.as_deref());
    let mut publication = Publication {
        backend: address(&chosen, state.as_ref()).await,
        prefix: args.prefix.as_deref().map_or_else(|| Ok(own_prefix.clone()), valid)?,
        event,
        suppressed: BTreeMap::new(),
        suppressed_groups: BTreeMap::new(),
    };
    let mut guarded = Guarded::default();
    if let (Some(parent), Some(state)) = (&parent, &state) {
        if args.wait {
            fire_chain::refuse_waiting_for_own_chain(&publication.event, parent)?;
        }
        guarded =
            fire_chain::guard_against_loops(&mut publication, args.ttl, parent, state, &mut more_warnings);
        warnings.extend(more_warnings.drain(..));
    }
    if args.wait {
        ensure_backend_is_readable(&chosen.url)?;
    }
    let spool = if served_by.is_some() { None } else { open_spool(state.as_ref(), warnings) };
    let Means { credentials, codec, unsigned } =
        means(globals, args, &config, &chosen.url, served_by.is_some(), warnings).await?;
    let mut publisher = Publisher::new(Os::start(), spool, own_prefix, credentials, node_backends)
        .signing_with(codec)
        .without_agent();
    if args.wait {
        publisher = publisher.giving_up_after(args.timeout);
    }
    let caller = match (&parent, args.wait) {
        (Some(_), _) => Caller::Puppet,
        (None, true) => Caller::WaitingOperator,
        (None, false) if args.resource.is_some() => Caller::Puppet,
        (None, false) => Caller::Operator,
    };
    let submission = Submission {
        state: state.as_ref(),
        publisher: &publisher,
        parent: parent.as_ref(),
        caller,
        unsigned,
    };
    let fired = submission.submit(&publication, &guarded, &mut more_warnings).await;
    warnings.extend(more_warnings);
    let fired = fired?;
    if args.wait {
        let patience = (started, args.timeout);
        return follow(globals, patience, state.as_ref(), &publisher, &publication, &fired, warnings).await;
    }
    result::print(globals.output, &publication, &fired, &warnings.take());
    Ok(ExitCode::SUCCESS)
}

/// With what this process publishes and reads.
#[derive(Default)]
struct Means {
    credentials: Credentials,
    codec: Codec,
    /// What the user should know if this process publishes, because it cannot sign.
    unsigned: Option<String>,
}

async fn means(
    globals: &Globals,
    args: &FireArgs,
    config: &ConfigFile,
    backend: &BackendUrl,
    is_served: bool,
    warnings: &Warnings,
) -> Result<Means, Failure> {
    if is_served && !args.wait {
        // The agent signs and publishes. This user may not even be able to read the node's key.
        let unsigned = globals.unsigned(config, "the agent did not take it")?;
        return Ok(Means { unsigned, ..Means::default() });
    }
    let credentials = globals.credentials(config, std::slice::from_ref(backend)).await?;
    if is_served {
        let (codec, unverified) = globals.reading_codec(config, &credentials, backend)?;
        warnings.extend(unverified);
        let unsigned = globals.unsigned(config, "the agent did not take it")?;
        return Ok(Means { credentials, codec, unsigned });
    }
    let (codec, unsigned) = globals.firing_codec(config, &credentials, backend).await?;
    Ok(Means { credentials, codec, unsigned })
}

/// The certname of the agent that fires for this user, to whom the state directory is closed. `None` where it is open, or
/// no agent serves other users.
///
/// # Errors
/// If the agent does not serve this user.
async fn agent_for_other_users(state: Option<&StateDir>) -> Result<Option<Certname>, Failure> {
    let Some(state) = state.filter(|state| state.certname().is_err()) else { return Ok(None) };
    match agent_socket::ask(state.path(), &Request::Identity, AGENT_TIMEOUT).await {
        Ok(Reply::Identity { certname }) => Ok(Some(certname)),
        Ok(Reply::Failed { message, .. }) => Err(Failure::failed(message)),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// The address of an event for the chosen backend. Where nothing is configured, it is that of this node's agent, which may
/// have its configuration from elsewhere; without an agent the event is for the backend that the node gets configured.
async fn address(chosen: &ChosenBackend, state: Option<&StateDir>) -> String {
    if chosen.source != BackendSource::Default || chosen.url.kind().addresses == AddressCount::None {
        return chosen.url.to_string();
    }
    if let Some(kind) = chosen.named_kind {
        return kind.name.to_owned();
    }
    let agent = match state {
        Some(state) => agent_socket::ask(state.path(), &Request::Queue, AGENT_TIMEOUT).await.ok(),
        None => None,
    };
    match agent {
        Some(Reply::Queue(view)) => view.backend,
        _ => UNADDRESSED.to_owned(),
    }
}

/// Rejects `--wait` for write-only backends before firing, because they cannot report outcomes.
fn ensure_backend_is_readable(backend: &BackendUrl) -> Result<(), Failure> {
    if backend.kind().access == Access::WriteOnly {
        return Err(Failure::usage(format!(
            "backend '{backend}' is write-only: --wait cannot work, and nothing was fired"
        )));
    }
    Ok(())
}

/// The run that this process is part of, as its environment says.
fn enclosing_run() -> Option<RunId> {
    std::env::var("TRIGGER_RUN_ID").ok()?.parse().ok()
}

/// The prefix that this node's agent is registered under: inside a run the agent's own, else as configured.
fn own_prefix(config: &ConfigFile) -> Result<KeyPrefix, Failure> {
    match std::env::var("TRIGGER_PREFIX") {
        Ok(prefix) => setting("TRIGGER_PREFIX")(&prefix),
        Err(_) => config.prefix(),
    }
}

/// The state directory, unless this user may not use one.
fn open_state_dir(
    globals: &Globals,
    config: &ConfigFile,
    warnings: &Warnings,
) -> Result<Option<StateDir>, Failure> {
    match StateDir::open(&globals.state_dir(config)?) {
        Ok(state) => Ok(Some(state)),
        Err(error) => {
            warnings.push(format!("nothing can be spooled here: {error}"));
            Ok(None)
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

/// Waits for the event's outcomes and prints them.
async fn follow(
    globals: &Globals,
    patience: (Instant, Duration),
    state: Option<&StateDir>,
    publisher: &Publisher,
    publication: &Publication,
    fired: &Fired,
    warnings: &Warnings,
) -> Result<ExitCode, Failure> {
    if globals.output == OutputFormat::Text {
        result::print(globals.output, publication, fired, &warnings.take());
    }
    let backend = publisher.backend_of(publication)?;
    let Some(store) = backend.store() else {
        return Err(Failure::usage(format!(
            "backend '{}' is write-only: --wait cannot work",
            publication.backend
        )));
    };
    let fleet = Fleet::new(Arc::clone(store), Keyspace::new(publication.prefix.clone()))
        .with_codec(publisher.codec().clone());
    let event = publication.event.id;
    let offer = async || offer(state, publisher, event, warnings).await;
    let followed = wait::until_over(&fleet, event, patience, globals.output, offer).await?;
    if globals.output == OutputFormat::Json {
        output::document(&FollowedEvent {
            event: documents::Event::of(&followed.status),
            state: result::state_in_backend(publication),
            revision: result::revision(fired),
            suppressed_groups: SuppressedGroup::list(&publication.suppressed_groups),
            timed_out: followed.timed_out,
            warnings: warnings.take(),
        });
        result::note_if_unwritten(publication, fired);
    }
    Ok(followed.exit_code())
}

/// Publishes the events of the outbox, of which `event` may be one, whatever the pause after a failure says. Where an
/// agent publishes them too, each event is taken by one of the two.
///
/// # Errors
/// If the event can never be published.
async fn offer(
    state: Option<&StateDir>,
    publisher: &Publisher,
    event: EventId,
    warnings: &Warnings,
) -> Result<(), Failure> {
    let Some(state) = state else { return Ok(()) };
    publisher.drain(false).await?;
    match spooled_event::find(state, event, warnings)? {
        Some(found) if found.state != DeliveryState::Spooled => {
            Err(Failure::failed(format!("event {event} is {}", found.reason)))
        }
        _ => Ok(()),
    }
}
