//! What a client may read and watch.

use std::fmt;

use super::action::Scope;
use super::actor::{Actor, Role};
use super::denial::Denial;
use super::facts::Facts;
use super::progress::{Progress, Stop};
use crate::identity::{Certname, EventId};
use crate::keyspace::{Key, Range};

const OWN_DELIVERIES: &str = "a node reads its own deliveries, and those to groups";
const OWN_CANCELLATIONS: &str =
    "a node reads the cancellations of its own deliveries, and those of the events that it has fired";
const OWN_OUTCOMES: &str = "a node reads its own outcomes, and those of the events that it has fired";
const OWN_HISTORY: &str = "a node reads its own run history; 'trigger why' shows it what led to its runs";
const OWN_EVENTS: &str =
    "a node reads the events that it has fired, that were delivered to it, or that are for groups";
const OWN_LOGS: &str =
    "a node reads the requests that it has made or is asked with for the output of a run, and their answers";
const OWN_HOLD: &str = "a node reads the orders to hold it, and no other's";
const OPERATORS: &str = "only an operator of the hub reads what concerns other nodes";
const OWN_DELIVERIES_WATCHED: &str =
    "a node watches deliveries and outcomes, and reads the events that they are of";
const OWN_REGISTRATION: &str = "a node watches its own registration alone";

/// Whether `actor` may read `scope` once.
pub(super) fn read(actor: &Actor, scope: &Scope, facts: &Facts) -> Result<Progress, Stop> {
    if actor.role == Role::Operator {
        return Ok(Progress::Allowed);
    }
    match scope {
        Scope::Key(Key::Part { event, .. } | Key::Members { event, .. } | Key::Settled { event })
        | Scope::Range(Range::Event(event)) => {
            return concerns(actor, &reading(scope), *event, facts);
        }
        Scope::Key(Key::Cancellation { certname, event }) if *certname != actor.certname => {
            fired(actor, &reading(scope), *event, facts, OWN_CANCELLATIONS)?;
        }
        Scope::Key(Key::Cancellation { .. }) => {}
        Scope::Key(Key::Delivery { certname, .. }) | Scope::Range(Range::Deliveries(certname)) => {
            own(actor, certname, &reading(scope), OWN_DELIVERIES)?;
        }
        Scope::Key(Key::Outcome { certname, .. }) if *certname == actor.certname => {}
        Scope::Key(Key::Outcome { event, .. }) | Scope::Range(Range::Outcomes(event)) => {
            fired(actor, &reading(scope), *event, facts, OWN_OUTCOMES)?;
        }
        Scope::Key(Key::RunHistory { certname }) => own(actor, certname, &reading(scope), OWN_HISTORY)?,
        Scope::Key(Key::Hold { certname }) => own(actor, certname, &reading(scope), OWN_HOLD)?,
        // Firing at groups needs the members, `status` what a target does, and every verification its certificate.
        Scope::Key(
            Key::GroupDelivery { .. }
            | Key::GroupCancellation { .. }
            | Key::Node { .. }
            | Key::Certificate { .. },
        )
        | Scope::Range(Range::GroupDeliveries(_) | Range::GroupCancellations(..) | Range::Nodes) => {}
        Scope::Key(Key::LogRequest { certname, reader } | Key::LogAnswer { reader, certname }) => {
            if *certname != actor.certname {
                own(actor, reader, &reading(scope), OWN_LOGS)?;
            }
        }
        Scope::Range(Range::LogRequestsTo(certname)) => own(actor, certname, &reading(scope), OWN_LOGS)?,
        Scope::Key(Key::Sweep)
        | Scope::Range(Range::Events | Range::LogRequests | Range::LogAnswers)
        | Scope::All => {
            return Err(Denial::forbidden(actor, reading(scope), OPERATORS).into());
        }
    }
    Ok(Progress::Allowed)
}

/// Whether `actor` may read `scope` and receive its changes. What it may see cannot change later, because an event keeps
/// its origin and a certname its node. Nothing is watched of which it is not known whose it will be.
pub(super) fn watch(actor: &Actor, scope: &Scope, facts: &Facts) -> Result<Progress, Stop> {
    let watching = || format!("watch {}", subject(scope));
    match (actor.role, scope) {
        // Each of these changes whenever any node of the fleet renews or fires.
        (Role::Node, Scope::Range(Range::Nodes)) => {
            Err(Denial::forbidden(actor, watching(), OWN_REGISTRATION).into())
        }
        (Role::Node, Scope::Key(Key::Node { certname })) => {
            own(actor, certname, &watching(), OWN_REGISTRATION)?;
            Ok(Progress::Allowed)
        }
        // No node needs that, and an event may be large.
        (
            Role::Node,
            Scope::Key(Key::Part { .. } | Key::Members { .. } | Key::Settled { .. })
            | Scope::Range(Range::Event(_)),
        ) => Err(Denial::forbidden(actor, watching(), OWN_DELIVERIES_WATCHED).into()),
        _ => read(actor, scope, facts),
    }
}

fn reading(scope: &Scope) -> String {
    format!("read {}", subject(scope))
}

/// What a scope is called in a sentence.
fn subject(scope: &Scope) -> String {
    match scope {
        Scope::Key(key) => key.to_string(),
        Scope::Range(range) => range.to_string(),
        Scope::All => "everything".to_owned(),
    }
}

fn own(actor: &Actor, certname: &Certname, act: &dyn fmt::Display, rule: &str) -> Result<(), Denial> {
    if *certname == actor.certname { Ok(()) } else { Err(Denial::forbidden(actor, act, rule)) }
}

/// Whether an event concerns `actor`. Of one of which nothing is stored there is nothing to see, also not what may be
/// stored by the time of the reading.
fn concerns(actor: &Actor, act: &dyn fmt::Display, event: EventId, facts: &Facts) -> Result<Progress, Stop> {
    let Some(fired) = facts.fired(event)? else { return Ok(Progress::ShowsNothing) };
    // Every node may join a group, so that what is fired at groups is no secret of theirs.
    if fired.is_by(&actor.certname) || fired.is_for_groups || facts.is_involved(event)? {
        return Ok(Progress::Allowed);
    }
    Err(Denial::forbidden(actor, act, OWN_EVENTS).into())
}

/// Whether `actor` has fired an event.
fn fired(
    actor: &Actor,
    act: &dyn fmt::Display,
    event: EventId,
    facts: &Facts,
    rule: &str,
) -> Result<(), Stop> {
    match facts.fired(event)? {
        Some(fired) if fired.is_by(&actor.certname) => Ok(()),
        Some(_) => Err(Denial::forbidden(actor, act, rule).into()),
        // A caller that waits for the end of an event may ask before the event is stored.
        None => Err(Denial::not_yet(actor, act, "nothing is stored of the event").into()),
    }
}
