//! Who may do what, as a table; and what no sequence of allowed requests can do.

mod limits;
mod rights;
mod sequences;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::cancellation::Cancellation;
use crate::certificate::{CertificateRef, Fingerprint};
use crate::delivery::{Delivery, DeliveryOutcome};
use crate::event::{Part, samples};
use crate::holds::{Demand, HoldOrder};
use crate::identity::{Certname, EventId, GroupName};
use crate::keyspace::Key;

const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);

/// A store as the rules see it: the values under the texts of their keys.
#[derive(Debug, Clone, Default, PartialEq)]
struct World(BTreeMap<String, Value>);

fn certname(name: &str) -> Certname {
    name.parse().unwrap()
}

fn event(n: u32) -> EventId {
    samples::event_id(n.into())
}

fn node(name: &str) -> Actor {
    Actor { certname: certname(name), role: Role::Node }
}

/// Part 0 of event `n` that `origin` fired at `targets`: certnames, and groups with an `@` before them.
fn part(n: u32, origin: &str, targets: &str) -> Part {
    let mut event = samples::event(n.into(), "t");
    event.origin = certname(origin);
    let (groups, hosts): (Vec<&str>, Vec<&str>) =
        targets.split_whitespace().partition(|target| target.starts_with('@'));
    event.targets.hosts = hosts.into_iter().map(certname).collect();
    event.targets.groups = groups.into_iter().map(|group| group[1..].parse().unwrap()).collect();
    Part { index: 0, count: 1, event }
}

fn a_part(n: u32, origin: &str, targets: &str) -> Value {
    Value::Part(Box::new(part(n, origin, targets)))
}

fn suppressed() -> Value {
    Value::Outcome(Box::new(DeliveryOutcome::Suppressed("a loop".to_owned())))
}

fn expired() -> Value {
    Value::Outcome(Box::new(DeliveryOutcome::Expired(None)))
}

/// The request of `by` to end a delivery, which part 0 lists.
fn cancellation(by: &str) -> Value {
    Value::Cancellation(Box::new(Cancellation::new(0, certname(by), NOW, None)))
}

/// The order of `by` to hold a node.
fn hold(by: &str) -> Value {
    let demand = Demand::hold(Duration::from_secs(3600), None);
    Value::Hold(Box::new(HoldOrder { number: 1, by: certname(by), at: NOW, demand }))
}

/// The place of a cancellation at a certname; at a group, with an `@` before it; at one of its members, after a `:`.
fn cancellation_key(target: &str, n: u32) -> Key {
    let event = event(n);
    match target.strip_prefix('@').map(|group| group.split_once(':').unwrap_or((group, ""))) {
        None => Key::Cancellation { certname: certname(target), event },
        Some((group, member)) => {
            let member = (!member.is_empty()).then(|| certname(member));
            Key::GroupCancellation { group: group.parse().unwrap(), event, member }
        }
    }
}

fn part_key(n: u32) -> Key {
    Key::Part { event: event(n), index: 0 }
}

fn delivery_key(target: &str, n: u32) -> Key {
    match target.strip_prefix('@') {
        Some(group) => Key::GroupDelivery { group: group.parse().unwrap(), event: event(n) },
        None => Key::Delivery { certname: certname(target), event: event(n) },
    }
}

fn outcome_key(n: u32, target: &str) -> Key {
    Key::Outcome { event: event(n), certname: certname(target) }
}

fn certificate_key(name: &str) -> Key {
    Key::from(certificate(name, 7))
}

/// A certificate of a node, by its fingerprint.
fn certificate(name: &str, digest: u8) -> CertificateRef {
    CertificateRef { certname: certname(name), fingerprint: Fingerprint::from_digest([digest; 32]) }
}

impl World {
    /// Stores an event with its deliveries.
    fn fire(&mut self, n: u32, origin: &str, targets: &str) {
        self.put(&part_key(n), Value::Part(Box::new(part(n, origin, targets))));
        for target in targets.split_whitespace() {
            self.put(&delivery_key(target, n), Value::Delivery(Delivery { part: 0 }));
        }
    }

    fn put(&mut self, key: &Key, value: Value) {
        self.0.insert(key.to_string(), value);
    }

    fn part(&self, key: &Key) -> Option<Part> {
        match self.0.get(&key.to_string()) {
            Some(Value::Part(part)) => Some((**part).clone()),
            _ => None,
        }
    }

    fn has(&self, key: &Key) -> bool {
        self.0.contains_key(&key.to_string())
    }

    /// Answers a question, as the hub does.
    fn look_up(&self, actor: &Actor, question: Question, facts: &mut Facts) {
        let certname = actor.certname.clone();
        match question {
            Question::Origin(event) => {
                let part = self.part(&Key::Part { event, index: 0 });
                facts.origin_is(event, part.as_ref().map(Fired::of));
            }
            Question::Part(event, index) => {
                facts.part_is(event, index, self.part(&Key::Part { event, index }));
            }
            Question::Involved(event) => {
                let delivery = Key::Delivery { certname: certname.clone(), event };
                facts.involved_is(event, self.has(&delivery) || self.has(&Key::Outcome { event, certname }));
            }
            Question::HasOutcome(event, certname) => {
                let is_stored = self.has(&Key::Outcome { event, certname: certname.clone() });
                facts.outcome_is(event, certname, is_stored);
            }
        }
    }

    /// The verdict on the last of `actions`, which are asked for in one request.
    fn verdict(&self, actor: &Actor, actions: &[Action]) -> Result<Progress, Denial> {
        let mut facts = Facts::default();
        for action in actions {
            if let Action::Put { key: Key::Part { event, index }, value: Value::Part(part) } = action {
                facts.offer(*event, *index, (**part).clone());
            }
        }
        let mut last = Ok(Progress::Allowed);
        for action in actions {
            last = loop {
                match authorize(actor, action, &facts, NOW) {
                    Ok(Progress::LookUp(question)) => self.look_up(actor, question, &mut facts),
                    decided => break decided,
                }
            };
            last.as_ref().map_err(Clone::clone)?;
        }
        last
    }

    /// The verdict as a word, or a denial's sentence.
    fn says(&self, actor: &Actor, actions: &[Action]) -> String {
        match self.verdict(actor, actions) {
            Ok(Progress::Allowed) => "yes".to_owned(),
            Ok(Progress::KeepsStored) => "kept".to_owned(),
            Ok(Progress::ShowsNothing) => "nothing".to_owned(),
            Ok(Progress::LookUp(question)) => panic!("{question:?} was answered"),
            Err(denial) => denial.sentence,
        }
    }
}
