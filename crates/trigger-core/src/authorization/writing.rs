//! What a client may write and delete.

use super::action::Value;
use super::actor::{Actor, Role};
use super::denial::Denial;
use super::facts::Facts;
use super::progress::{Progress, Stop};
use crate::cancellation::Cancellation;
use crate::delivery::{Delivery, DeliveryOutcome};
use crate::event::{
    CLOCK_TOLERANCE, MAX_GROUPS, MAX_LIFETIME, MAX_TAGS, MAX_TARGETS, Part, TARGETS_PER_PART, Target,
};
use crate::identity::{Certname, EventId};
use crate::keyspace::Key;
use crate::lineage::MAX_CHAINS;
use crate::time::Timestamp;

/// The most portions of members that one event may have.
const MAX_MEMBER_PORTIONS: u32 = 1024;

const OWN_EVENTS: &str = "a node fires as itself only";
const NO_PART: &str = "the value is no part of an event whose id is one of its origin's";
const OWN_DELIVERIES: &str =
    "a node delivers only the events that it has fired, to the targets that they name";
const CANCELLATIONS: &str = "a node cancels, in its own name, the deliveries of the events that it has fired; an operator, those of \
     any event, to the targets that it names";
const OWN_OUTCOMES: &str =
    "a node stores its own outcomes, and which targets of its own events are suppressed";
const OWN_RECORDS: &str = "a node writes its own registration, run history and certificates";
const OWN_CERTIFICATES: &str = "a node stores the certificates alone that this hub's CA has signed for it and that are good, \
     each under its own fingerprint";
const REGISTRATION: &str = "a registration is also a claim, and is written by compare-and-swap alone";
const ENDED: &str = "a node deletes its own deliveries only";
const HOLDS: &str = "a node holds and releases itself, in its own name; an operator, any node";
const OWN_LOG_REQUESTS: &str = "a node asks for the output of runs in its own name only";
const ASKS_AS_OPERATOR: &str = "only an operator of the hub asks as one for the output of runs";
const OWN_LOG_ANSWERS: &str = "a node answers for its own runs only";
const SWEEPING: &str = "the hub sweeps by itself";

/// Whether `actor` may write `value` at `key`, whatever is stored there.
pub(super) fn put(
    actor: &Actor,
    key: &Key,
    value: &Value,
    facts: &Facts,
    now: Timestamp,
) -> Result<Progress, Stop> {
    let forbidden = |rule: &str| Err(Denial::forbidden(actor, writing(key), rule).into());
    if let Value::Unreadable(detail) = value {
        return Err(Denial::not_yet(actor, writing(key), detail).into());
    }
    match (key, value) {
        (Key::Part { event, index }, Value::Part(part)) => {
            part_is_sound(actor, key, *event, *index, part, now)?;
            if part.event.origin != actor.certname {
                let rule = format!("{OWN_EVENTS}, and the origin of this event is {}", part.event.origin);
                return forbidden(&rule);
            }
            match facts.fired(*event)? {
                Some(fired) if !fired.is_by(&actor.certname) => {
                    return forbidden("an event with this id is stored, which another node has fired");
                }
                _ => {}
            }
            match facts.stored_part(*event, *index)? {
                Some(stored) if stored != &**part => forbidden("a stored event never changes"),
                _ => Ok(Progress::Allowed),
            }
        }
        (Key::Members { event, index }, Value::Members(_)) if *index < MAX_MEMBER_PORTIONS => {
            fired(actor, key, *event, facts, OWN_EVENTS)?;
            Ok(Progress::Allowed)
        }
        (Key::Delivery { certname, event }, Value::Delivery(delivery)) => {
            let target = Target::Node(certname.clone());
            delivers(actor, key, *event, *delivery, &target, facts)
        }
        (Key::GroupDelivery { group, event }, Value::Delivery(delivery)) => {
            let target = Target::Group(group.clone());
            delivers(actor, key, *event, *delivery, &target, facts)
        }
        (Key::Cancellation { certname, event }, Value::Cancellation(cancellation)) => {
            let target = Target::Node(certname.clone());
            cancels(actor, key, *event, cancellation, &target, facts)
        }
        (Key::GroupCancellation { group, event, .. }, Value::Cancellation(cancellation)) => {
            let target = Target::Group(group.clone());
            cancels(actor, key, *event, cancellation, &target, facts)
        }
        (Key::Outcome { event, certname }, _) if *certname == actor.certname => {
            own_outcome(actor, key, *event, facts)
        }
        (Key::Outcome { event, certname }, Value::Outcome(outcome)) => {
            suppresses(actor, key, *event, certname, outcome, facts)
        }
        (Key::RunHistory { certname }, _) if *certname == actor.certname => Ok(Progress::Allowed),
        (Key::Certificate { certname, fingerprint }, Value::Certificate(found))
            if *certname == actor.certname
                && found.certname == *certname
                && found.fingerprint == *fingerprint =>
        {
            Ok(Progress::Allowed)
        }
        (Key::Certificate { certname, .. }, _) if *certname == actor.certname => forbidden(OWN_CERTIFICATES),
        (Key::RunHistory { .. } | Key::Certificate { .. }, _) => forbidden(OWN_RECORDS),
        (Key::Node { certname }, _) => {
            forbidden(if *certname == actor.certname { REGISTRATION } else { OWN_RECORDS })
        }
        (Key::Hold { certname }, Value::Hold(order)) => {
            let may_hold = *certname == actor.certname || actor.role == Role::Operator;
            if order.by == actor.certname && may_hold { Ok(Progress::Allowed) } else { forbidden(HOLDS) }
        }
        (Key::LogRequest { reader, .. }, _) if *reader != actor.certname => forbidden(OWN_LOG_REQUESTS),
        (Key::LogRequest { .. }, Value::LogRequest { as_operator: true }) if actor.role != Role::Operator => {
            forbidden(ASKS_AS_OPERATOR)
        }
        (Key::LogRequest { .. }, Value::LogRequest { .. }) => Ok(Progress::Allowed),
        (Key::LogAnswer { certname, .. }, _) if *certname == actor.certname => Ok(Progress::Allowed),
        (Key::LogAnswer { .. }, _) => forbidden(OWN_LOG_ANSWERS),
        (Key::Sweep | Key::Settled { .. }, _) => forbidden(SWEEPING),
        (Key::Part { .. }, _) => forbidden(NO_PART),
        (
            Key::Members { .. }
            | Key::Delivery { .. }
            | Key::GroupDelivery { .. }
            | Key::Cancellation { .. }
            | Key::GroupCancellation { .. }
            | Key::Hold { .. }
            | Key::LogRequest { .. }
            | Key::Outcome { .. },
            _,
        ) => forbidden("the value is not one that belongs there"),
    }
}

/// Whether `actor` may write at `key` if what is stored there is as it expects.
pub(super) fn compare_and_swap(actor: &Actor, key: &Key, facts: &Facts) -> Result<Progress, Stop> {
    let forbidden = |rule: &str| Err(Denial::forbidden(actor, writing(key), rule).into());
    match key {
        Key::Outcome { event, certname } if *certname == actor.certname => {
            own_outcome(actor, key, *event, facts)
        }
        Key::Outcome { .. } => forbidden(OWN_OUTCOMES),
        Key::Node { certname } | Key::RunHistory { certname } if *certname == actor.certname => {
            Ok(Progress::Allowed)
        }
        Key::Node { .. } | Key::RunHistory { .. } | Key::Certificate { .. } => forbidden(OWN_RECORDS),
        Key::Hold { .. } | Key::LogRequest { .. } | Key::LogAnswer { .. } => {
            forbidden("it is written without a comparison")
        }
        Key::Sweep | Key::Settled { .. } => forbidden(SWEEPING),
        Key::Part { .. } | Key::Members { .. } => forbidden(OWN_EVENTS),
        Key::Delivery { .. } | Key::GroupDelivery { .. } => forbidden(OWN_DELIVERIES),
        Key::Cancellation { .. } | Key::GroupCancellation { .. } => forbidden(CANCELLATIONS),
    }
}

/// Whether `actor` may delete `key`.
pub(super) fn delete(actor: &Actor, key: &Key) -> Result<Progress, Stop> {
    match key {
        Key::Delivery { certname, .. } | Key::Cancellation { certname, .. }
            if *certname == actor.certname =>
        {
            Ok(Progress::Allowed)
        }
        Key::LogRequest { certname, reader } | Key::LogAnswer { reader, certname }
            if *certname == actor.certname || *reader == actor.certname =>
        {
            Ok(Progress::Allowed)
        }
        // What a node has left behind that is gone. Nobody else can.
        Key::Delivery { .. }
        | Key::Cancellation { .. }
        | Key::Node { .. }
        | Key::RunHistory { .. }
        | Key::Hold { .. }
        | Key::Certificate { .. }
            if actor.role == Role::Operator =>
        {
            Ok(Progress::Allowed)
        }
        _ => Err(Denial::forbidden(actor, format!("delete {key}"), ENDED).into()),
    }
}

fn writing(key: &Key) -> String {
    format!("write {key}")
}

/// Checks the bounds of a part, and that it is stored where it belongs.
fn part_is_sound(
    actor: &Actor,
    key: &Key,
    event: EventId,
    index: u32,
    part: &Part,
    now: Timestamp,
) -> Result<(), Denial> {
    let forbidden = |rule: &str| Err(Denial::forbidden(actor, writing(key), rule));
    let targets = &part.event.targets;
    if part.event.id != event || part.index != index {
        return forbidden("the part says that it belongs elsewhere");
    }
    let too_many_parts = part.count as usize > MAX_TARGETS.div_ceil(TARGETS_PER_PART);
    if index >= part.count || too_many_parts {
        return forbidden("the part says that its event has another number of parts");
    }
    if targets.hosts.len() > TARGETS_PER_PART
        || targets.groups.len() > MAX_GROUPS
        || part.event.options.tags.len() > MAX_TAGS
        || part.event.lineage.chains.len() > MAX_CHAINS
    {
        return forbidden("the part has more targets, tags or chains than a part may have");
    }
    // Whether an event is for groups is told by its first part, and decides which nodes may read it.
    if index > 0 && !targets.groups.is_empty() {
        return forbidden("only the first part of an event names groups");
    }
    // An event is stored for as long as it may be delivered, so that its time has to be near the hub's own.
    if part.event.fired_at > now.plus(MAX_LIFETIME + CLOCK_TOLERANCE) {
        let reason = "it says that it was fired more than 7 days in the future: set the clock of the node, or that \
                      of the hub";
        return Err(Denial::not_yet(actor, writing(key), reason));
    }
    Ok(())
}

/// Checks that `actor` has fired an event of which at least one part is stored, or is to be stored by this request.
fn fired(actor: &Actor, key: &Key, event: EventId, facts: &Facts, rule: &str) -> Result<(), Stop> {
    match facts.fired(event)? {
        Some(fired) if fired.is_by(&actor.certname) => Ok(()),
        Some(_) => Err(Denial::forbidden(actor, writing(key), rule).into()),
        None => Err(Denial::not_yet(actor, writing(key), "nothing is stored of the event").into()),
    }
}

fn delivers(
    actor: &Actor,
    key: &Key,
    event: EventId,
    delivery: Delivery,
    target: &Target,
    facts: &Facts,
) -> Result<Progress, Stop> {
    let Some(part) = facts.part(event, delivery.part)? else {
        let reason = format!("part {} of the event is not stored", delivery.part);
        return Err(Denial::not_yet(actor, writing(key), reason).into());
    };
    if part.event.origin != actor.certname || !names(part, target) {
        return Err(Denial::forbidden(actor, writing(key), OWN_DELIVERIES).into());
    }
    Ok(Progress::Allowed)
}

/// A delivery is cancelled in the name of the client, by the origin of its event or an operator. Whether it ends is for its
/// target to decide. Only the targets that the event names can have one, because a sweep looks for no others.
fn cancels(
    actor: &Actor,
    key: &Key,
    event: EventId,
    cancellation: &Cancellation,
    target: &Target,
    facts: &Facts,
) -> Result<Progress, Stop> {
    let Some(part) = facts.part(event, cancellation.part)? else {
        let reason = format!("part {} of the event is not stored", cancellation.part);
        return Err(Denial::not_yet(actor, writing(key), reason).into());
    };
    let may_cancel = part.event.origin == actor.certname || actor.role == Role::Operator;
    if cancellation.by != actor.certname || !may_cancel || !names(part, target) {
        return Err(Denial::forbidden(actor, writing(key), CANCELLATIONS).into());
    }
    Ok(Progress::Allowed)
}

fn names(part: &Part, target: &Target) -> bool {
    match target {
        Target::Node(certname) => part.event.targets.hosts.contains(certname),
        Target::Group(group) => part.event.targets.groups.contains(group),
    }
}

/// A node ends what concerns it. Of an event that the store does not have, or has lost, no outcome is of use: nothing would
/// show it, and no sweep find it. The denial is final, so that it holds up no other outcome.
fn own_outcome(actor: &Actor, key: &Key, event: EventId, facts: &Facts) -> Result<Progress, Stop> {
    let Some(fired) = facts.fired(event)? else {
        return Err(Denial::forbidden(actor, writing(key), "nothing is stored of the event").into());
    };
    if fired.is_by(&actor.certname) || fired.is_for_groups || facts.is_involved(event)? {
        return Ok(Progress::Allowed);
    }
    let rule = "a node stores the outcomes of the events that were delivered to it";
    Err(Denial::forbidden(actor, writing(key), rule).into())
}

/// An origin says which targets its event does not reach. It says nothing of a target that has said how it ended.
fn suppresses(
    actor: &Actor,
    key: &Key,
    event: EventId,
    target: &Certname,
    outcome: &DeliveryOutcome,
    facts: &Facts,
) -> Result<Progress, Stop> {
    if actor.role == Role::Operator && matches!(outcome, DeliveryOutcome::Expired(_)) {
        // Of a node that is gone. What the node has said itself stays.
        return Ok(if facts.has_outcome(event, target)? { Progress::KeepsStored } else { Progress::Allowed });
    }
    if !matches!(outcome, DeliveryOutcome::Suppressed(_)) {
        return Err(Denial::forbidden(actor, writing(key), OWN_OUTCOMES).into());
    }
    fired(actor, key, event, facts, OWN_OUTCOMES)?;
    Ok(if facts.has_outcome(event, target)? { Progress::KeepsStored } else { Progress::Allowed })
}
