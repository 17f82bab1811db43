//! `trigger fire`: makes an event and hands it on, so that it is durable before this command ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;
use trigger_core::event::{DEFAULT_LIFETIME, Event, MAX_TARGETS, RunOptions, Targets};
use trigger_core::identity::{Certname, EventId, GroupName, InvalidName, KeyPrefix};
use trigger_core::keyspace::Keyspace;
use trigger_core::lineage::{Lineage, Loops};
use trigger_core::loop_guard::{DEFAULT_TTL, MAX_TTL};
use trigger_core::publication::Publication;
use trigger_core::run::command::PRIVATE_TAG;
use trigger_core::run::record::RunRecord;
use trigger_core::wire::Stored;

use super::{Globals, OutputFormat, Warnings, output, resolve_certname, wait};
use crate::config::{ConfigFile, run_command, setting};
use trigger_fleet::Fleet;
use trigger_node::agent::socket::{self, Reply, Request};
use trigger_node::clock;
use trigger_node::failure::Failure;
use trigger_node::fire_chain::{self, Guarded};
use trigger_node::firing::{FireReport, Fired, Publisher, Spool};
use trigger_node::state::{Breaker, Outbox, StateDir};

/// The largest file of certnames that is read: more than the most targets an event may have.
const MAX_HOSTS_FILE_BYTES: u64 = 32 * 1024 * 1024;
/// Beyond the time an agent may take to publish: it is alive, but does not answer.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct FireArgs {
    /// The trigger's name
    name: String,
    /// A node to run Puppet on; repeat for more
    #[arg(long = "host", value_name = "CERTNAME")]
    hosts: Vec<String>,
    /// A file with a certname on each line ('-' is standard input)
    #[arg(long, value_name = "FILE")]
    hosts_from: Option<PathBuf>,
    /// A group of nodes to run Puppet on; repeat for more
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Only resources with this tag; repeat for more
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Puppet shall report what it would change, and change nothing
    #[arg(long)]
    noop: bool,
    /// How many hops a chain of triggers may have
    #[arg(long, value_name = "HOPS", default_value_t = DEFAULT_TTL, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TTL)))]
    ttl: u32,
    /// Whether this trigger may make the same node run again in one chain
    #[arg(long, value_name = "WHETHER", default_value = "avoid")]
    loops: LoopsChoice,
    /// For how long a node that is away may still catch up, at most 7d [default: 1d]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
    /// Where in the backend the agents are registered [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<String>,
    /// Wait for every node's outcome; fail unless all ended well
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration, requires = "wait")]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LoopsChoice {
    /// No: the node is left out, with a warning
    Avoid,
    /// Yes: the chain ends by its --ttl, or after three fires of this trigger on a node
    Allow,
}

impl From<LoopsChoice> for Loops {
    fn from(choice: LoopsChoice) -> Self {
        match choice {
            LoopsChoice::Avoid => Self::Avoid,
            LoopsChoice::Allow => Self::Allow,
        }
    }
}

pub(crate) async fn run(globals: &Globals, args: &FireArgs, warnings: &Warnings) -> Result<u8, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let state = open_state_dir(globals, &config, warnings);
    let command = run_command(config.run_cmd.as_deref())?;
    let parent = fire_chain::parent_run(state.as_ref(), warnings);
    let origin = match &parent {
        // Puppet may call itself something else there, and 'trigger why' looks for the run under its node's name.
        Some(parent) => parent.certname.clone(),
        None => resolve_certname(globals, &config, state.as_ref(), &command).await?,
    };
    let event = make_event(args, origin, parent.as_ref())?;
    let own_prefix = own_prefix(&config)?;
    let mut publication = Publication {
        backend: globals.backend(&config)?,
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
        guarded = fire_chain::guard_against_loops(&mut publication, args.ttl, parent, state, warnings);
    }
    let publisher = Publisher::new(open_spool(state.as_ref(), warnings), own_prefix);
    if args.wait {
        ensure_backend_is_readable(&publisher, &publication.backend)?;
    }
    let handed_on = submit(state.as_ref(), &publisher, &publication).await;
    if let (Err(_), Some(state)) = (&handed_on, &state) {
        fire_chain::take_back(state, &guarded, &publication.event, warnings);
    }
    let (report, by_agent) = handed_on?;
    warnings.extend(report.warnings);
    if let Fired::Spooled(reason) = &report.fired {
        warnings.push(spooled_warning(reason, by_agent));
    }
    if let (Some(parent), Some(state)) = (&parent, &state) {
        fire_chain::note_fired(state, parent, &publication, &guarded, warnings);
    }
    if !by_agent && matches!(report.fired, Fired::Committed(_)) {
        // No agent empties the outbox, so whoever reaches the backend does.
        warnings.extend(drain(&publisher).await);
    }
    if args.wait {
        return finish_waiting(globals, args, &publisher, &publication, &report.fired, warnings).await;
    }
    tell(globals.output, &publication, &report.fired, &warnings.take());
    Ok(0)
}

/// Of some backends nobody learns what became of an event. To be said before it is fired.
fn ensure_backend_is_readable(publisher: &Publisher, backend: &str) -> Result<(), Failure> {
    // One that cannot even be opened is a matter for the outbox.
    if publisher.backend(backend).is_ok_and(|opened| opened.store().is_none()) {
        return Err(Failure::usage(format!(
            "backend '{backend}' tells nothing of what it was given: --wait cannot work, and nothing was fired"
        )));
    }
    Ok(())
}

/// Publishes what waited in the outbox. Whatever comes of it, the event fired now is committed.
async fn drain(publisher: &Publisher) -> Vec<String> {
    match publisher.drain(true).await {
        Ok(drained) => {
            let quarantined = drained.quarantined.into_iter();
            quarantined
                .map(|aside| {
                    format!("a spooled event is quarantined in {}: {}", aside.path.display(), aside.reason)
                })
                .collect()
        }
        Err(failure) => vec![format!("the outbox cannot be emptied: {}", failure.message)],
    }
}

/// The prefix that this node's agent is registered under: as the agent told the run that we are part of, or
/// as configured.
fn own_prefix(config: &ConfigFile) -> Result<KeyPrefix, Failure> {
    match std::env::var("TRIGGER_PREFIX") {
        Ok(prefix) => setting("TRIGGER_PREFIX")(&prefix),
        Err(_) => config.prefix(),
    }
}

/// The state directory, unless this user may not have one.
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

fn make_event(args: &FireArgs, origin: Certname, parent: Option<&RunRecord>) -> Result<Event, Failure> {
    let mut hosts: BTreeSet<Certname> = valid_all(&args.hosts)?;
    if let Some(path) = &args.hosts_from {
        hosts.extend(read_hosts(path)?);
    }
    let id = EventId::from_uuid(uuid::Uuid::now_v7());
    if args.tags.iter().any(|tag| tag == PRIVATE_TAG) {
        return Err(Failure::usage(format!(
            "the tag {PRIVATE_TAG} is Trigger's own: every tagged run has it"
        )));
    }
    let event = Event {
        id,
        trigger: valid(&args.name)?,
        origin,
        targets: Targets { hosts, groups: valid_all(&args.groups)? },
        options: RunOptions { tags: valid_all(&args.tags)?, noop: args.noop },
        lineage: match parent {
            Some(parent) => Lineage { chains: fire_chain::chains(parent) },
            None => Lineage::root(id),
        },
        fired_in: parent.map(|parent| parent.run_id),
        loops: args.loops.into(),
        fired_at: clock::wall(),
        expires_in: args.expires_in.unwrap_or(DEFAULT_LIFETIME),
    };
    event.validate().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(event)
}

/// A name from the command line. Not left to clap, which repeats a refused value raw and in full.
fn valid<T: FromStr<Err = InvalidName>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error: InvalidName| Failure::usage(error.to_string()))
}

fn valid_all<T: FromStr<Err = InvalidName> + Ord>(texts: &[String]) -> Result<BTreeSet<T>, Failure> {
    texts.iter().map(|text| valid(text)).collect()
}

fn read_hosts(path: &PathBuf) -> Result<Vec<Certname>, Failure> {
    let place =
        if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_HOSTS_FILE_BYTES + 1).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_HOSTS_FILE_BYTES + 1).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::usage(format!("cannot read certnames from {place}: {error}")))?;
    if text.len() as u64 > MAX_HOSTS_FILE_BYTES {
        return Err(Failure::usage(format!(
            "{place} is too long: at most {MAX_TARGETS} certnames, one on a line"
        )));
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            line.trim()
                .parse()
                .map_err(|error| Failure::usage(format!("{place}, line {}: {error}", index + 1)))
        })
        .collect()
}

/// To the agent where one is alive, else straight on. Both do the same, and doing it twice does no harm.
async fn submit(
    state: Option<&StateDir>,
    publisher: &Publisher,
    publication: &Publication,
) -> Result<(FireReport, bool), Failure> {
    if let Some(state) = state {
        let request = Request::Fire { publication: publication.to_wire() };
        let patience = Publisher::patience(publication) + AGENT_TIMEOUT;
        match socket::ask(state, &request, patience).await {
            Some(Reply::Committed { revision, warnings }) => {
                let fired = Fired::Committed(trigger_core::identity::Revision(revision));
                return Ok((FireReport { fired, warnings }, true));
            }
            Some(Reply::Spooled { reason, warnings }) => {
                return Ok((FireReport { fired: Fired::Spooled(reason), warnings }, true));
            }
            Some(Reply::Failed { code, message }) => return Err(Failure { code, message }),
            // An agent of an older version, or none: this program does the same itself.
            Some(Reply::Queue(_) | Reply::NotUnderstood { .. }) | None => {}
        }
    }
    Ok((publisher.fire(publication).await?, false))
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

fn state_word(publication: &Publication, fired: &Fired) -> &'static str {
    if trigger_core::loop_guard::is_suppressed(publication) {
        return "suppressed";
    }
    match fired {
        Fired::Committed(_) => "committed",
        Fired::Spooled(_) => "spooled",
    }
}

fn tell(format: OutputFormat, publication: &Publication, fired: &Fired, warnings: &[String]) {
    let event = &publication.event;
    let state = state_word(publication, fired);
    match format {
        OutputFormat::Json => {
            let target = |host: &Certname| {
                let reason = publication.suppressed.get(host);
                json!({ "certname": host.as_str(), "state": if reason.is_some() { "suppressed" } else { state } })
            };
            output::print_json(&json!({
                "event_id": event.id.to_string(),
                "trigger": event.trigger.as_str(),
                "targets": event.targets.hosts.iter().map(target).collect::<Vec<_>>(),
                "groups": event.targets.groups.iter().map(GroupName::as_str).collect::<Vec<_>>(),
                "suppressed_groups": output::suppressed_groups(&publication.suppressed_groups),
                "state": state,
                "revision": revision(fired),
                "warnings": warnings,
            }));
        }
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(warnings);
            let verb = match (state, fired) {
                ("suppressed", _) => "Suppressed",
                (_, Fired::Committed(_)) => "Fired",
                (_, Fired::Spooled(_)) => "Spooled",
            };
            let sentence = format!("{verb} {} at {}.", event.id, describe_targets(publication));
            output::print(&format!("{sentence} Follow it: trigger status {}", event.id));
        }
    }
}

fn revision(fired: &Fired) -> Option<u64> {
    match fired {
        Fired::Committed(revision) => Some(revision.0),
        Fired::Spooled(_) => None,
    }
}

fn describe_targets(publication: &Publication) -> String {
    let targets = &publication.event.targets;
    let (hosts, groups) = if trigger_core::loop_guard::is_suppressed(publication) {
        // All that it was for.
        (targets.hosts.len(), publication.suppressed_groups.len())
    } else {
        (targets.hosts.len() - publication.suppressed.len(), targets.groups.len())
    };
    let mut words = Vec::new();
    if hosts > 0 || groups == 0 {
        words.push(output::count(hosts, "node"));
    }
    if groups > 0 {
        words.push(output::count(groups, "group"));
    }
    words.join(" and ")
}

async fn finish_waiting(
    globals: &Globals,
    args: &FireArgs,
    publisher: &Publisher,
    publication: &Publication,
    fired: &Fired,
    warnings: &Warnings,
) -> Result<u8, Failure> {
    if globals.output == OutputFormat::Text {
        tell(globals.output, publication, fired, &warnings.take());
    }
    let backend = publisher.backend(&publication.backend)?;
    let Some(store) = backend.store() else {
        return Err(Failure::usage(format!(
            "backend '{}' tells nothing of what it was given: --wait cannot work",
            publication.backend
        )));
    };
    let fleet = Fleet::new(Arc::clone(store), Keyspace::new(publication.prefix.clone()));
    let ending = wait::until_over(&fleet, publication.event.id, args.timeout, globals.output).await?;
    if globals.output == OutputFormat::Json {
        let mut document = ending.to_json();
        document["state"] = json!(state_word(publication, fired));
        document["revision"] = json!(revision(fired));
        document["suppressed_groups"] = output::suppressed_groups(&publication.suppressed_groups);
        document["warnings"] = json!(warnings.take());
        output::print_json(&document);
    }
    Ok(ending.exit_code())
}
