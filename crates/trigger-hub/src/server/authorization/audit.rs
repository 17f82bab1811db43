//! The hub's lines in the audit log: who fired what at whom, and what was denied.

use trigger_core::event::Part;

use crate::server::caller::Caller;

/// A part of an event was stored.
pub(super) fn accepted(caller: &Caller, part: &Part) {
    fire(caller, part, "accepted", None);
}

/// An event was not stored.
pub(super) fn refused(caller: &Caller, part: &Part, reason: &str) {
    fire(caller, part, "refused", Some(reason));
}

fn fire(caller: &Caller, part: &Part, decision: &str, reason: Option<&str>) {
    let hosts = part.event.targets.hosts.iter().map(ToString::to_string);
    let groups = part.event.targets.groups.iter().map(|group| format!("@{group}"));
    let targets = hosts.chain(groups).collect::<Vec<_>>().join(",");
    tracing::info!(
        target: "audit",
        action = "fire",
        decision,
        reason,
        event = %part.event.id,
        trigger = %part.event.trigger,
        origin = %part.event.origin,
        part = part.index,
        targets,
        certname = %caller.actor,
        peer = caller.address,
    );
}

/// Another request was denied.
pub(super) fn denied(caller: &Caller, kind: &str, reason: &str) {
    tracing::info!(
        target: "audit",
        action = kind,
        decision = "refused",
        reason,
        certname = %caller.actor,
        peer = caller.address,
    );
}
