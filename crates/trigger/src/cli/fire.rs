//! `trigger fire`: makes an event and hands it on, so that it is durable before this command ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use trigger_core::event::{DEFAULT_LIFETIME, Event, MAX_TARGETS, RunOptions, Targets};
use trigger_core::identity::{Certname, EventId, GroupName, KeyPrefix, RunId, Tag, TriggerName};
use trigger_core::layout::Layout;
use trigger_core::lineage::{self, Chain, DEFAULT_TTL, Lineage, MAX_TTL};
use trigger_core::run_command::PRIVATE_TAG;
use trigger_core::wire::{Publication, RunRecord, Stored};

use super::{Globals, OutputFormat, output, resolve_certname, wait};
use crate::agent::socket::{self, Reply, Request};
use crate::clock;
use crate::config::{ConfigFile, run_command};
use crate::exit::Failure;
use crate::firing::{FireReport, Fired, Publisher, Spool};
use crate::state::{Breaker, Outbox, Runs, StateDir};

/// The largest file of certnames that is read: more than the most targets an event may have.
const HOSTS_FILE_LIMIT: u64 = 32 * 1024 * 1024;
/// Beyond the time an agent may take to publish: it is alive, but does not answer.
const AGENT_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct FireArgs {
    /// The trigger's name
    name: TriggerName,
    /// A node to run Puppet on; repeat for more
    #[arg(long = "host", value_name = "CERTNAME")]
    hosts: Vec<Certname>,
    /// A file with a certname on each line ('-' is standard input)
    #[arg(long, value_name = "FILE")]
    hosts_from: Option<PathBuf>,
    /// A group of nodes to run Puppet on; repeat for more
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<GroupName>,
    /// Only resources with this tag; repeat for more
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,
    /// Puppet shall report what it would change, and change nothing
    #[arg(long)]
    noop: bool,
    /// How many hops a chain of triggers may have
    #[arg(long, value_name = "HOPS", default_value_t = DEFAULT_TTL, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TTL)))]
    ttl: u32,
    /// For how long a node that is away may still catch up, at most 7d [default: 1d]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
    /// Where in the backend the agents are registered [default: /puppet_trigger/events]
    #[arg(long, env = "TRIGGER_PREFIX", value_name = "KEYPREFIX", hide_env = true)]
    prefix: Option<KeyPrefix>,
    /// Wait for every node's outcome; fail unless all ended well
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration, requires = "wait")]
    timeout: Duration,
}

pub(crate) async fn run(globals: &Globals, args: &FireArgs) -> Result<u8, Failure> {
    let mut warnings = Vec::new();
    match fire(globals, args, &mut warnings).await {
        Ok(code) => Ok(code),
        Err(failure) => {
            output::failure(globals.output, &failure, &warnings);
            Ok(failure.code)
        }
    }
}

async fn fire(globals: &Globals, args: &FireArgs, warnings: &mut Vec<String>) -> Result<u8, Failure> {
    let config = globals.read_config()?;
    warnings.extend(config.warnings.iter().cloned());
    let state = open_state_dir(globals, &config, warnings);
    let command = run_command(config.run_cmd.as_deref())?;
    let certname = resolve_certname(globals, &config, state.as_ref(), &command).await?;
    let parent = parent_run(state.as_ref());
    let event = make_event(args, certname, parent.as_ref())?;
    let own_prefix = config.prefix()?;
    let mut publication = Publication {
        backend: globals.backend(&config)?,
        prefix: args.prefix.clone().unwrap_or_else(|| own_prefix.clone()),
        event,
        suppressed: BTreeMap::new(),
    };
    if let Some(parent) = &parent {
        if args.wait {
            refuse_waiting_for_own_chain(&publication.event, parent)?;
        }
        warnings.extend(guard_against_loops(&mut publication, args.ttl, parent, state.as_ref())?);
    }
    let publisher = Publisher::new(open_spool(state.as_ref(), warnings), own_prefix);
    let (report, by_agent) = hand_on(state.as_ref(), &publisher, &publication).await?;
    warnings.extend(report.warnings);
    if let Fired::Spooled(reason) = &report.fired {
        warnings.push(spooled_warning(reason, by_agent));
    }
    if let (Some(parent), Some(state)) = (&parent, &state) {
        note_fire(state, parent, &publication);
    }
    if args.wait {
        return finish_waiting(globals, args, &publisher, &publication, &report.fired, warnings).await;
    }
    tell(globals.output, &publication, &report.fired, warnings);
    if !by_agent && matches!(report.fired, Fired::Committed(_)) {
        // No agent empties the outbox, so whoever reaches the backend does.
        publisher.drain().await?;
    }
    Ok(0)
}

/// The state folder, unless this user may not have one.
fn open_state_dir(globals: &Globals, config: &ConfigFile, warnings: &mut Vec<String>) -> Option<StateDir> {
    match StateDir::open(&globals.state_dir(config)) {
        Ok(state) => Some(state),
        Err(error) => {
            warnings.push(format!("nothing can be spooled here: {error}"));
            None
        }
    }
}

fn open_spool(state: Option<&StateDir>, warnings: &mut Vec<String>) -> Option<Spool> {
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
    let mut hosts: BTreeSet<Certname> = args.hosts.iter().cloned().collect();
    if let Some(path) = &args.hosts_from {
        hosts.extend(read_hosts(path)?);
    }
    let id = EventId::from_uuid(uuid::Uuid::now_v7());
    let private = |tag: &&Tag| tag.as_str() == PRIVATE_TAG;
    if args.tags.iter().any(|tag| private(&tag)) {
        return Err(Failure::usage(format!(
            "the tag {PRIVATE_TAG} is Trigger's own: every tagged run has it"
        )));
    }
    let event = Event {
        id,
        trigger: args.name.clone(),
        origin,
        targets: Targets { hosts, groups: args.groups.iter().cloned().collect() },
        options: RunOptions { tags: args.tags.iter().cloned().collect(), noop: args.noop },
        lineage: match parent {
            Some(parent) => Lineage { chains: chains(parent) },
            None => Lineage::root(id),
        },
        fired_at: clock::wall(),
        expires_in: args.expires_in.unwrap_or(DEFAULT_LIFETIME),
    };
    event.validate().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(event)
}

fn read_hosts(path: &PathBuf) -> Result<Vec<Certname>, Failure> {
    let place =
        if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(HOSTS_FILE_LIMIT + 1).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(HOSTS_FILE_LIMIT + 1).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::usage(format!("cannot read certnames from {place}: {error}")))?;
    if text.len() as u64 > HOSTS_FILE_LIMIT {
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

/// The run that this command is part of. The environment only names it; what counts is that its record is
/// locked by a live supervisor (contract 7). A daemon that a run left behind is no part of it.
fn parent_run(state: Option<&StateDir>) -> Option<RunRecord> {
    let run: RunId = std::env::var("TRIGGER_RUN_ID").ok()?.parse().ok()?;
    Runs::open(state?).and_then(|runs| runs.live_record(run)).ok().flatten()
}

fn chains(parent: &RunRecord) -> Vec<Chain> {
    let causes = parent.causes.iter().map(|cause| (&cause.event.trigger, &cause.event.lineage));
    lineage::chains_through(&parent.certname, causes)
}

/// Two nodes that wait for each other's runs would wait for ever.
fn refuse_waiting_for_own_chain(event: &Event, parent: &RunRecord) -> Result<(), Failure> {
    let chains = chains(parent);
    let mut before = chains.iter().flat_map(|chain| &chain.hops).map(|hop| &hop.certname);
    match before.find(|certname| event.targets.hosts.contains(*certname)) {
        Some(certname) => Err(Failure::failed(format!(
            "{certname} is part of the chain that led to this run, so waiting for it could deadlock: fire without --wait"
        ))),
        None => Ok(()),
    }
}

/// Leaves out what the loop guard suppresses; a sentence for each.
fn guard_against_loops(
    publication: &mut Publication,
    ttl: u32,
    parent: &RunRecord,
    state: Option<&StateDir>,
) -> Result<Vec<String>, Failure> {
    let all = chains(parent);
    let event = &mut publication.event;
    let fired = match state {
        Some(state) => Runs::open(state)?.fires(&event.trigger)?,
        None => Default::default(),
    };
    let fires = |root: EventId| fired.get(&root).copied().unwrap_or_default();
    let mut permitted: BTreeSet<Chain> = BTreeSet::new();
    let mut warnings = Vec::new();
    for host in &event.targets.hosts {
        match lineage::judge(&event.trigger, Some(host), &all, ttl, fires) {
            Ok(chains) => permitted.extend(chains),
            Err(suppression) => {
                warnings.push(format!("not fired at {host}: {suppression}"));
                publication.suppressed.insert(host.clone(), suppression.to_string());
            }
        }
    }
    if !event.targets.groups.is_empty() {
        match lineage::judge(&event.trigger, None, &all, ttl, fires) {
            Ok(chains) => permitted.extend(chains),
            Err(suppression) => {
                let groups = std::mem::take(&mut event.targets.groups);
                let names: Vec<String> = groups.iter().map(ToString::to_string).collect();
                warnings.push(format!("not fired at group {}: {suppression}", names.join(", ")));
            }
        }
    }
    let mut chains: Vec<Chain> = if permitted.is_empty() { all } else { permitted.into_iter().collect() };
    chains.sort_by_key(|chain| chain.hops.len());
    chains.truncate(lineage::MAX_CHAINS);
    event.lineage = Lineage { chains };
    Ok(warnings)
}

fn note_fire(state: &StateDir, parent: &RunRecord, publication: &Publication) {
    let roots: Vec<EventId> = publication.event.lineage.chains.iter().map(|chain| chain.root).collect();
    let noted =
        Runs::open(state).and_then(|runs| runs.note_fire(parent.run_id, &publication.event.trigger, &roots));
    if let Err(error) = noted {
        tracing::warn!("this fire is not counted by the loop guard: {error}");
    }
}

/// To the agent where one is alive, else straight on. Both do the same, and doing it twice does no harm.
async fn hand_on(
    state: Option<&StateDir>,
    publisher: &Publisher,
    publication: &Publication,
) -> Result<(FireReport, bool), Failure> {
    if let Some(state) = state {
        let request = Request::Fire { publication: publication.to_wire() };
        let patience = Publisher::patience(publication) + AGENT_PATIENCE;
        match socket::ask(state, &request, patience).await {
            Some(Reply::Committed { revision, warnings }) => {
                let fired = Fired::Committed(trigger_core::identity::Revision(revision));
                return Ok((FireReport { fired, warnings }, true));
            }
            Some(Reply::Spooled { reason, warnings }) => {
                return Ok((FireReport { fired: Fired::Spooled(reason), warnings }, true));
            }
            Some(Reply::Failed { code, message }) => return Err(Failure { code, message }),
            Some(Reply::Queue(_)) | None => {}
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
    let targets = &publication.event.targets;
    if targets.groups.is_empty() && targets.hosts.len() == publication.suppressed.len() {
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
                "state": state,
                "revision": revision(fired),
                "warnings": warnings,
            }));
        }
        OutputFormat::Text => {
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
    let hosts = targets.hosts.len() - publication.suppressed.len();
    let mut words = Vec::new();
    if hosts > 0 || targets.groups.is_empty() {
        words.push(output::count(hosts, "node"));
    }
    if !targets.groups.is_empty() {
        words.push(output::count(targets.groups.len(), "group"));
    }
    words.join(" and ")
}

async fn finish_waiting(
    globals: &Globals,
    args: &FireArgs,
    publisher: &Publisher,
    publication: &Publication,
    fired: &Fired,
    warnings: &[String],
) -> Result<u8, Failure> {
    if globals.output == OutputFormat::Text {
        tell(globals.output, publication, fired, warnings);
    }
    let backend = publisher.backend(&publication.backend)?;
    let Some(store) = backend.store() else {
        return Err(Failure::usage(format!(
            "backend '{}' tells nothing of what it was given: --wait cannot work",
            publication.backend
        )));
    };
    let layout = Layout::new(publication.prefix.clone());
    let ending =
        wait::until_over(store.as_ref(), &layout, publication.event.id, args.timeout, globals.output).await?;
    if globals.output == OutputFormat::Json {
        let mut document = ending.to_json();
        document["state"] = json!(state_word(publication, fired));
        document["revision"] = json!(revision(fired));
        document["warnings"] = json!(warnings);
        output::print_json(&document);
    }
    Ok(ending.exit_code())
}
