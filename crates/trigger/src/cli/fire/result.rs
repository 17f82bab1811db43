//! The output of `trigger fire` about the event that it fired.

use trigger_core::event::FiredBy;
use trigger_core::identity::{Certname, TriggerName};
use trigger_core::loop_guard;
use trigger_core::publication::Publication;
use trigger_node::firing;

use crate::cli::globals::OutputFormat;
use crate::documents::{FireState, FireTarget, Fired, SuppressedGroup, Text};
use crate::output;

pub(super) fn print(
    format: OutputFormat,
    publication: &Publication,
    fired: &firing::Fired,
    warnings: &[String],
) {
    match format {
        OutputFormat::Json => output::document(&document(publication, fired, warnings)),
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(warnings);
            output::print(&sentence(publication, fired));
        }
    }
    note_if_unwritten(publication, fired);
}

/// Says that there was no node to fire at.
pub(super) fn print_nothing(format: OutputFormat, trigger: TriggerName, warnings: &[String]) {
    match format {
        OutputFormat::Json => output::document(&Fired {
            event_id: None,
            trigger: Text(trigger),
            state: FireState::NoTargets,
            revision: None,
            retry_of: None,
            targets: Vec::new(),
            groups: Vec::new(),
            suppressed_groups: Vec::new(),
            warnings: warnings.to_vec(),
        }),
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(warnings);
            output::print("Nothing was fired");
        }
    }
}

/// Names the event on standard error if the result could not be written: it is on its way, and must not be fired a
/// second time because its id is not known.
pub(super) fn note_if_unwritten(publication: &Publication, fired: &firing::Fired) {
    if output::write_error().is_some() {
        output::note(&sentence(publication, fired));
    }
}

fn sentence(publication: &Publication, fired: &firing::Fired) -> String {
    let verb = match state(publication, fired) {
        FireState::Suppressed => "Suppressed",
        FireState::Committed => "Fired",
        FireState::Spooled => "Spooled",
        FireState::NoTargets => "Nothing was fired as",
    };
    let event = publication.event.id;
    let targets = describe_targets(publication);
    let retried = publication.event.fired_by.as_ref().and_then(FiredBy::retried);
    let retried = retried.map_or_else(String::new, |earlier| format!(", a retry of {earlier}"));
    format!("{verb} {event} at {targets}{retried}. Follow it: trigger status {event}")
}

fn document(publication: &Publication, fired: &firing::Fired, warnings: &[String]) -> Fired {
    let event = &publication.event;
    let state = state(publication, fired);
    let target = |host: &Certname| FireTarget {
        certname: Text(host.clone()),
        state: if publication.suppressed.contains_key(host) { FireState::Suppressed } else { state },
    };
    Fired {
        event_id: Some(Text(event.id)),
        trigger: Text(event.trigger.clone()),
        state,
        revision: revision(fired),
        retry_of: event.fired_by.as_ref().and_then(FiredBy::retried).map(Text),
        targets: event.targets.hosts.iter().map(target).collect(),
        groups: event.targets.groups.iter().cloned().map(Text).collect(),
        suppressed_groups: SuppressedGroup::list(&publication.suppressed_groups),
        warnings: warnings.to_vec(),
    }
}

pub(super) fn state(publication: &Publication, fired: &firing::Fired) -> FireState {
    if loop_guard::is_suppressed(publication) {
        return FireState::Suppressed;
    }
    match fired {
        firing::Fired::Committed(_) => FireState::Committed,
        firing::Fired::Spooled(_) => FireState::Spooled,
    }
}

/// The same of an event that was read in the backend since it was fired.
pub(super) fn state_in_backend(publication: &Publication) -> FireState {
    if loop_guard::is_suppressed(publication) { FireState::Suppressed } else { FireState::Committed }
}

pub(super) fn revision(fired: &firing::Fired) -> Option<u64> {
    match fired {
        firing::Fired::Committed(revision) => Some(revision.0),
        firing::Fired::Spooled(_) => None,
    }
}

/// The number of nodes and groups that the event reaches; of a suppressed event, the number that it was meant for.
fn describe_targets(publication: &Publication) -> String {
    let targets = &publication.event.targets;
    let (hosts, groups) = if loop_guard::is_suppressed(publication) {
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
