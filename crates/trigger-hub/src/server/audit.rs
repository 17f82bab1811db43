//! The hub's lines in the audit: who fired what at which targets, and which requests were denied. Their fields are a
//! promise: `docs/operating/audit.md` lists them. None has the fields of the request that it is about, since only those that were
//! posted have any.

use trigger_core::event::Part;
use trigger_core::holds::HoldOrder;
use trigger_core::identity::Certname;

use super::caller::Caller;

/// A part of an event was stored.
pub(super) fn accepted(caller: &Caller, part: &Part) {
    fire(caller, part, "accepted", None, 0);
}

/// A part of an event was not stored; so many denials were not logged before it.
pub(super) fn refused(caller: &Caller, part: &Part, reason: &str, unlogged: u64) {
    fire(caller, part, "refused", Some(reason), unlogged);
}

fn fire(caller: &Caller, part: &Part, decision: &str, reason: Option<&str>, unlogged: u64) {
    let hosts = part.event.targets.hosts.iter().map(ToString::to_string);
    let groups = part.event.targets.groups.iter().map(|group| format!("@{group}"));
    let targets = hosts.chain(groups).collect::<Vec<_>>().join(",");
    tracing::info!(
        target: "audit",
        parent: None,
        action = "fire",
        decision,
        reason,
        event = %part.event.id,
        trigger = %part.event.trigger,
        origin = %part.event.origin,
        part = part.index,
        targets,
        certname = %caller.actor,
        fingerprint = caller.fingerprint(),
        peer = caller.address,
        unlogged = (unlogged > 0).then_some(unlogged),
    );
}

/// An order to hold or release a node was stored. Whether it counts, the node says.
pub(super) fn ordered(caller: &Caller, node: &Certname, order: &HoldOrder) {
    let (action, lasts_seconds, reason) = order.demand.audited();
    tracing::info!(
        target: "audit",
        parent: None,
        action,
        decision = "accepted",
        %node,
        number = order.number,
        lasts_seconds,
        reason,
        certname = %caller.actor,
        fingerprint = caller.fingerprint(),
        peer = caller.address,
    );
}

/// Another request was denied; so many denials were not logged before it.
pub(super) fn denied(caller: &Caller, kind: &str, reason: &str, unlogged: u64) {
    tracing::info!(
        target: "audit",
        parent: None,
        action = kind,
        decision = "refused",
        reason,
        certname = %caller.actor,
        fingerprint = caller.fingerprint(),
        peer = caller.address,
        unlogged = (unlogged > 0).then_some(unlogged),
    );
}
