//! An event is durable before its fire is answered (C1). Matches each unanswered event with the fire that it may come
//! from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::index::Index;
use super::violation::Violation;
use crate::artifacts::Artifacts;
use crate::journal::{Answer, Cause, Fire, Moment};

const DURABLE: &str = "durable before it answers";
/// The largest difference between the clock that event ids are made from and the trial's clock, since the former may
/// have been set meanwhile.
const CLOCKS_APART: Duration = Duration::from_secs(1);

/// Checks that no fire failed that was not killed: every node has an outbox.
pub(super) fn check(artifacts: &Artifacts, index: &Index<'_>, violations: &mut Vec<Violation>) {
    for fire in &artifacts.fires {
        if let Some(why) = objection(fire, index) {
            let found = format!("a fire on {} {why}", fire.origin);
            violations.push(Violation { rule: DURABLE, found });
        }
    }
}

fn objection(fire: &Fire, index: &Index<'_>) -> Option<String> {
    // The fire may have been killed together with its run.
    let ended_with_it = fire.parent.as_deref().map(|run| index.hits.contains(run));
    match &fire.answer {
        Answer::Failure(said) if ended_with_it != Some(true) => Some(format!("failed: {said}")),
        Answer::Killed if ended_with_it == Some(false) => {
            Some(format!("never answered, though nothing hit its run {:?}", fire.parent))
        }
        Answer::Success { event, state } if fire.away && state != "spooled" => {
            Some(format!("answered '{state}' for {event} while the backend was away"))
        }
        _ => None,
    }
}

/// An event that runs covered and that no fire has answered for.
struct Orphan<'a> {
    cause: &'a Cause,
    ran_on: BTreeSet<&'a str>,
    first_run: Moment,
}

/// Returns the fires behind events without an answer: each fire that was killed may have fired one. A fire and an
/// event are matched by trigger, targets and time; an event without a match has no origin.
pub(super) fn unanswered<'a>(
    artifacts: &'a Artifacts,
    answered: &BTreeMap<&str, &Fire>,
) -> BTreeMap<&'a str, &'a Fire> {
    let mut killed: Vec<&Fire> =
        artifacts.fires.iter().filter(|fire| fire.answer == Answer::Killed && !fire.noop).collect();
    killed.sort_by_key(|fire| fire.after);
    let mut found = BTreeMap::new();
    // The ids begin with the time, so this is the order of the fires.
    for (event, orphan) in orphans(artifacts, answered) {
        if let Some(at) = killed.iter().position(|fire| may_have_fired(artifacts, fire, &orphan)) {
            found.insert(event, killed.remove(at));
        }
    }
    found
}

fn orphans<'a>(artifacts: &'a Artifacts, answered: &BTreeMap<&str, &Fire>) -> BTreeMap<&'a str, Orphan<'a>> {
    let mut orphans: BTreeMap<&str, Orphan<'_>> = BTreeMap::new();
    for run in &artifacts.runs {
        let start = &run.start;
        for cause in start.causes.iter().filter(|cause| !answered.contains_key(cause.event.as_str())) {
            let new = || Orphan { cause, ran_on: BTreeSet::new(), first_run: start.at };
            let orphan = orphans.entry(cause.event.as_str()).or_insert_with(new);
            orphan.ran_on.insert(&start.certname);
            orphan.first_run = orphan.first_run.min(start.at);
        }
    }
    orphans
}

fn may_have_fired(artifacts: &Artifacts, fire: &Fire, orphan: &Orphan<'_>) -> bool {
    let apart = u64::try_from(CLOCKS_APART.as_nanos()).unwrap_or_default();
    let is_then = |at: Moment| (fire.before.saturating_sub(apart)..=fire.after + apart).contains(&at);
    let targets = artifacts.targets_of(fire);
    fire.trigger == orphan.cause.trigger
        && fire.before <= orphan.first_run
        && orphan.ran_on.iter().all(|node| targets.contains(*node))
        && made_at(&orphan.cause.event, artifacts.epoch).is_none_or(is_then)
}

/// Returns the time at which an event's id was made, if it is a UUIDv7: the id begins with the milliseconds since
/// 1970.
fn made_at(event: &str, epoch: u64) -> Option<Moment> {
    let digits: String = event.chars().filter(|letter| *letter != '-').take(12).collect();
    let unix_ms = u64::from_str_radix(&digits, 16).ok().filter(|_| event.len() == 36)?;
    Some((unix_ms * 1_000_000).saturating_sub(epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_holds_its_time() {
        let event = "01a2108b-6e8e-761c-8774-eb5f03f9f85b";
        let epoch = (0x01a2_108b_6e8e_u64 - 5) * 1_000_000;
        assert_eq!(made_at(event, epoch), Some(5_000_000));
        assert_eq!(made_at("e1", epoch), None);
    }
}
