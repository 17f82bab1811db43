//! The event that the arguments of `trigger fire` describe.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use trigger_core::event::{
    DEFAULT_LIFETIME, Event, FiredBy, FiringResource, MAX_TARGETS, RunOptions, Targets,
};
use trigger_core::identity::{Certname, EventId, InvalidName};
use trigger_core::run::command::PRIVATE_TAG;
use trigger_core::run::record::RunRecord;
use trigger_node::clock;
use trigger_node::fire_chain::FireRequest;

use super::args::FireArgs;
use crate::failure::Failure;

/// The largest file of certnames that is read: longer than one with the most targets that an event may have.
const MAX_HOSTS_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// The targets that the arguments name, and the hosts that were `found` besides.
pub(super) fn targets(args: &FireArgs, found: BTreeSet<Certname>) -> Result<Targets, Failure> {
    let typed = args.hosts.iter().map(|host| Certname::fold_case(host));
    let typed: BTreeSet<Certname> =
        typed.collect::<Result<_, _>>().map_err(|error| Failure::usage(error.to_string()))?;
    let mut hosts = found;
    hosts.extend(typed);
    if let Some(path) = &args.hosts_from {
        hosts.extend(read_hosts(path)?);
    }
    Ok(Targets { hosts, groups: valid_all(&args.groups)? })
}

/// The event, fired now on `origin`; inside a run it continues the chains that led to the run.
pub(super) fn make(
    args: &FireArgs,
    targets: Targets,
    origin: Certname,
    parent: Option<&RunRecord>,
) -> Result<Event, Failure> {
    if args.tags.iter().any(|tag| tag == PRIVATE_TAG) {
        return Err(Failure::usage(format!(
            "the tag {PRIVATE_TAG} is Trigger's own: every tagged run has it"
        )));
    }
    let request = FireRequest {
        trigger: valid(args.name.as_deref().unwrap_or_default())?,
        origin,
        targets,
        options: RunOptions {
            tags: valid_all(&args.tags)?,
            noop: args.noop,
            environment: args.environment.as_deref().map(valid).transpose()?,
        },
        fired_by: firing_resource(args),
        // Without it nothing waits, which is better than an event that is lost.
        catalog: args.catalog.as_deref().and_then(|uuid| uuid.parse().ok()),
        loops: args.loops.into(),
        expires_in: args.expires_in.unwrap_or(DEFAULT_LIFETIME),
    };
    fired_now(request, parent)
}

/// The event of a request. Its id and its time are those of this moment.
pub(super) fn fired_now(request: FireRequest, parent: Option<&RunRecord>) -> Result<Event, Failure> {
    let id = EventId::of_origin(&request.origin, uuid::Uuid::now_v7());
    let event = request.into_event(id, parent, clock::wall());
    event.validate().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(event)
}

fn firing_resource(args: &FireArgs) -> Option<FiredBy> {
    let declared = args.resource_file.as_deref().map(|file| (file, args.resource_line));
    args.resource.as_deref().map(|path| FiredBy::Resource(FiringResource::new(path, declared)))
}

/// Parses a name from the command line. clap does not do it, because clap repeats a refused value raw and in full.
pub(in crate::cli) fn valid<T: FromStr<Err = InvalidName>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error: InvalidName| Failure::usage(error.to_string()))
}

fn valid_all<T: FromStr<Err = InvalidName> + Ord>(texts: &[String]) -> Result<BTreeSet<T>, Failure> {
    texts.iter().map(|text| valid(text)).collect()
}

/// Reads certnames, one on a line, from a file or (`-`) from standard input.
fn read_hosts(path: &Path) -> Result<Vec<Certname>, Failure> {
    let is_stdin = path.as_os_str() == "-";
    let source = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let mut text = String::new();
    let read = if is_stdin {
        std::io::stdin().lock().take(MAX_HOSTS_FILE_BYTES + 1).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_HOSTS_FILE_BYTES + 1).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::usage(format!("cannot read certnames from {source}: {error}")))?;
    if text.len() as u64 > MAX_HOSTS_FILE_BYTES {
        return Err(Failure::usage(format!(
            "{source} is too long: at most {MAX_TARGETS} certnames, one on a line"
        )));
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            Certname::fold_case(line.trim())
                .map_err(|error| Failure::usage(format!("{source}, line {}: {error}", index + 1)))
        })
        .collect()
}
