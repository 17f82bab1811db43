//! No wake-up is lost (C2), and every delivery ends visibly (C6).

use std::collections::BTreeSet;

use super::describe::{describe, seconds};
use super::index::Index;
use super::violation::Violation;
use super::{covers, guard, repetitions};
use crate::artifacts::{Artifacts, Target, Window};
use crate::journal::{Answer, Fire, Moment};

const LOST: &str = "no lost wake-up";
const ENDS: &str = "every delivery ends visibly";
/// The time, in nanoseconds, that an agent may take from a run's record to the start of its supervisor.
const SUPERVISION_TIMEOUT: Moment = 5_000_000_000;

/// The rule that is broken, and the reason.
type Objection = (&'static str, String);

pub(super) fn check(artifacts: &Artifacts, index: &Index<'_>, violations: &mut Vec<Violation>) {
    let judges = Judge { artifacts, index };
    for fire in &artifacts.fires {
        let Answer::Success { event, state } = &fire.answer else { continue };
        for certname in artifacts.targets_of(fire) {
            if let Err((rule, why)) = judges.delivery(fire, event, &certname) {
                let found = format!(
                    "event {event} ({state}), fired on {} between {} and {}, at {certname}: {why}{}",
                    fire.origin,
                    seconds(fire.before),
                    seconds(fire.after),
                    covers::lines(index, event, &certname)
                );
                violations.push(Violation { rule, found });
            }
        }
    }
}

/// Returns whether a restored hub had lost a part of this delivery, which may therefore have stayed as it was in the
/// backup.
pub(super) fn is_forgotten(artifacts: &Artifacts, event: &str, certname: &str) -> bool {
    let lost = |key: &String| artifacts.forgotten.contains(key);
    let groups = artifacts.groups.iter().filter(|(_, members)| members.contains(certname));
    let mut by_group = groups.map(|(group, _)| format!("group-deliveries/{group}/{event}"));
    let part = format!("events/{event}/");
    artifacts.forgotten.range(part.clone()..).next().is_some_and(|key| key.starts_with(&part))
        || lost(&format!("deliveries/{certname}/{event}"))
        || lost(&format!("outcomes/{event}/{certname}"))
        || by_group.any(|key| lost(&key))
}

pub(super) fn forgotten(artifacts: &Artifacts) -> Vec<(String, String)> {
    let mut forgotten = Vec::new();
    for fire in &artifacts.fires {
        let Answer::Success { event, .. } = &fire.answer else { continue };
        for certname in artifacts.targets_of(fire) {
            let target = artifacts.target(event, &certname);
            if is_forgotten(artifacts, event, &certname) && target.is_none_or(|target| !target.has_ended()) {
                let state = target.map_or("unknown", |target| target.state.as_str());
                forgotten.push((format!("{event} at {certname}"), state.to_owned()));
            }
        }
    }
    forgotten
}

struct Judge<'a> {
    artifacts: &'a Artifacts,
    index: &'a Index<'a>,
}

impl Judge<'_> {
    fn delivery(&self, fire: &Fire, event: &str, certname: &str) -> Result<(), Objection> {
        match self.artifacts.target(event, certname) {
            Some(target) if target.has_ended() => self.end(fire, event, target),
            _ if is_forgotten(self.artifacts, event, certname) => Ok(()),
            Some(target) => Err((LOST, format!("it is '{}' at the end: {target:?}", target.state))),
            None if is_suppressed_group(fire) && guard::suppresses_all(self.artifacts, self.index, fire) => {
                Ok(())
            }
            None => Err((LOST, "trigger status does not list it".to_owned())),
        }
    }

    /// Checks that the status of one delivery is true.
    fn end(&self, fire: &Fire, event: &str, target: &Target) -> Result<(), Objection> {
        let unfit = |why: &str| Err((ENDS, format!("an end it should not have, {why}: {target:?}")));
        match target.state.as_str() {
            "done" | "failed" => self.run(fire, event, target).map_err(|why| (LOST, why)),
            "refused" if fire.noop => Ok(()),
            "suppressed" if guard::suppresses(self.artifacts, self.index, fire, &target.certname) => Ok(()),
            "suppressed" => unfit("the chains that led to it permit it"),
            "superseded" => self.successor(fire, event, target),
            _ => unfit("nothing asked for it"),
        }
    }

    /// Checks that an event that was superseded by a later one is honoured by that event, or by that event's own
    /// successor.
    fn successor(&self, fire: &Fire, event: &str, target: &Target) -> Result<(), Objection> {
        let unfit = |why: String| Err((ENDS, format!("{why}: {target:?}")));
        let mut passed = BTreeSet::from([event]);
        let mut end = target;
        loop {
            let named = end.reason.as_deref().and_then(|reason| reason.rsplit(' ').next());
            let successor = named.unwrap_or_default();
            let Some(later) = self.index.fires.get(successor) else {
                return unfit(format!("no fire made its successor '{successor}'"));
            };
            let stands_for = later.trigger == fire.trigger
                && later.origin == fire.origin
                && later.noop == fire.noop
                && later.after >= fire.before;
            if !stands_for {
                return unfit(format!("its successor {successor} cannot stand for it"));
            }
            if !passed.insert(successor) {
                return unfit("its successors go round in a circle".to_owned());
            }
            let Some(found) = self.artifacts.target(successor, &target.certname) else {
                return unfit(format!("its successor {successor} is not known there"));
            };
            end = found;
            if end.state != "superseded" {
                return self.honoured_by(fire, (later, successor), end);
            }
        }
    }

    fn honoured_by(
        &self,
        fire: &Fire,
        (later, successor): (&Fire, &str),
        end: &Target,
    ) -> Result<(), Objection> {
        self.end(later, successor, end).map_err(|(rule, why)| (rule, format!("of {successor}: {why}")))?;
        let run = end.run_id.as_deref().and_then(|run| self.index.runs.get(run));
        match run.filter(|run| run.start.at < fire.before) {
            Some(run) => Err((LOST, format!("its successor's run is older: {}", describe(run)))),
            None => Ok(()),
        }
    }

    /// Checks the run that ended a delivery: it must have started after the event was fired, have listed it, and have
    /// ended as the status says.
    fn run(&self, fire: &Fire, event: &str, target: &Target) -> Result<(), String> {
        if fire.noop {
            return Err(format!("a noop event ran: {target:?}"));
        }
        let run_id = target.run_id.as_deref().unwrap_or_default();
        let Some(run) = self.index.runs.get(run_id) else {
            return self.silent_run(event, target, run_id);
        };
        if run.start.certname != target.certname {
            return Err(format!("its run was another node's: {}", describe(run)));
        }
        if !run.start.causes.iter().any(|cause| cause.event == event) {
            return Err(format!("its run did not cover it: {}", describe(run)));
        }
        if run.start.at < fire.before {
            return Err(format!("its run started before it was fired: {}", describe(run)));
        }
        let code = run.end.as_ref().map(|end| end.code);
        let is_so = match (target.state.as_str(), target.outcome.as_deref(), code) {
            ("done", _, code) => code == Some(0),
            (_, Some("interrupted"), _) => self.may_be_interrupted(event, target, run_id),
            (_, _, code) => matches!(code, Some(1..)),
        };
        if is_so { Ok(()) } else { Err(format!("{target:?} is not how its run ended: {}", describe(run))) }
    }

    /// Checks a run that no log knows: it was killed before it could write anything, or its agent was killed between
    /// the record and the supervisor.
    fn silent_run(&self, event: &str, target: &Target, run_id: &str) -> Result<(), String> {
        let is_its = self.index.covers(event, &target.certname).iter().any(|cover| cover.run == run_id);
        let is_explained = is_its
            && target.outcome.as_deref() == Some("interrupted")
            && self.may_be_interrupted(event, target, run_id);
        if is_explained { Ok(()) } else { Err(format!("no log knows its run: {target:?}")) }
    }

    /// Returns whether a delivery may end as `interrupted`: an interrupted run is repeated once, and only an
    /// interruption of the repetition ends the delivery.
    fn may_be_interrupted(&self, event: &str, target: &Target, run_id: &str) -> bool {
        was_ended(self.artifacts, self.index, run_id)
            && repetitions::was_interrupted_twice(self.index, event, &target.certname)
    }
}

/// Returns whether the trial ended a run, by killing the run, its supervisor, or its agent before there was a
/// supervisor.
pub(super) fn was_ended(artifacts: &Artifacts, index: &Index<'_>, run_id: &str) -> bool {
    let killed_agent =
        |window: &&Window| window.kind == "kill -9 of an agent" || window.kind == "crash of a node";
    let before_it_was_supervised = || {
        let record = artifacts.records.get(run_id).filter(|_| !index.runs.contains_key(run_id));
        record.is_some_and(|record| {
            let mut kills = artifacts.windows.iter().filter(killed_agent);
            kills.any(|kill| {
                // The record's clock counts milliseconds.
                kill.node.as_ref() == Some(&record.certname)
                    && kill.to + 1_000_000 >= record.started
                    && kill.from <= record.started + SUPERVISION_TIMEOUT
            })
        })
    };
    index.hits.contains(run_id) || before_it_was_supervised()
}

fn is_suppressed_group(fire: &Fire) -> bool {
    fire.hosts.is_empty() && matches!(&fire.answer, Answer::Success { state, .. } if state == "suppressed")
}
