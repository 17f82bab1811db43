//! The answers to the requests of this node's commands, and which of them a member of a group of `[socket] groups` may
//! make.

use trigger_core::event::CLOCK_TOLERANCE;
use trigger_core::identity::Certname;
use trigger_core::publication::Publication;
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;

use super::callers::Rights;
use super::{Service, audit};
use crate::agent_socket::{Reply, Request};
use crate::fire_error::FireErrorKind;
use crate::host::Host;

/// Who asks.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) rights: Rights,
}

/// The reply to a caller who may do nothing here.
pub(super) fn refused(uid: u32, groups: &str) -> Reply {
    let reason = format!(
        "the agent of this node serves root and the members of {groups} only ([socket] groups), and the user {uid} is none of them"
    );
    audit::refused_caller("connect", None, uid, &reason);
    failed(reason)
}

/// The reply to a request that was not read to its end.
pub(super) fn too_large(max_bytes: u64) -> Reply {
    failed(format!(
        "the event has too many targets for the agent's socket, which takes {max_bytes} bytes: name a group, or fire several events"
    ))
}

pub(super) async fn answer<H: Host>(line: &str, service: &Service<H>, caller: &Caller) -> Reply {
    match serde_json::from_str(line) {
        Ok(Request::Fire { publication, ignores_pause }) => match Publication::from_wire(&publication) {
            Ok(fired) => fire(service, &fired, &publication, ignores_pause, caller).await,
            Err(error) => Reply::NotUnderstood { detail: error.to_string() },
        },
        Ok(Request::Queue) => match service.queue().await {
            Some(view) => Reply::Queue(Box::new(view)),
            None => failed("the agent is stopping".to_owned()),
        },
        Ok(Request::Identity) => Reply::Identity { certname: service.node.settings.certname.clone() },
        Ok(Request::Rename { certname }) => rename(service, certname, caller).await,
        Err(error) => Reply::NotUnderstood { detail: error.to_string() },
    }
}

async fn fire<H: Host>(
    service: &Service<H>,
    publication: &Publication,
    text: &str,
    ignores_pause: bool,
    caller: &Caller,
) -> Reply {
    let now = service.node.host.wall();
    let refusal = match &caller.rights {
        Rights::Member(_) => objection(service, publication, now).or_else(|| {
            let noted = service.recent_fires.note_new(publication.event.id, text, now);
            noted.err().map(str::to_owned)
        }),
        _ => {
            service.recent_fires.note(publication.event.id, text, now);
            None
        }
    };
    if let Some(reason) = refusal {
        audit::refused_caller("fire", Some(&publication.event), caller.uid, &reason);
        return failed(reason);
    }
    let report = service.fire(publication, ignores_pause).await;
    audit::fired(&publication.event, caller.uid, &report);
    report.into()
}

async fn rename<H: Host>(service: &Service<H>, certname: Certname, caller: &Caller) -> Reply {
    if caller.rights != Rights::All {
        let reason = "only root may give this node's state directory to another certname".to_owned();
        audit::refused_caller("rename", None, caller.uid, &reason);
        return failed(reason);
    }
    match service.rename(certname).await {
        Ok(()) => Reply::Renamed,
        Err(message) => failed(message),
    }
}

/// Why a member of a group may not fire this. The agent fires in the name of this node, so that what other users ask for
/// must be what `trigger fire` makes of a command line: an event of this node, outside any run, for a configured backend.
fn objection<H: Host>(service: &Service<H>, publication: &Publication, now: Timestamp) -> Option<String> {
    let settings = &service.node.settings;
    let event = &publication.event;
    if event.origin != settings.certname {
        return Some(format!(
            "this node is {}, and only root may fire as {} here",
            settings.certname, event.origin
        ));
    }
    let is_root_event = event.fired_in.is_none()
        && event.lineage.chains.iter().all(|chain| chain.root == event.id && chain.hops.is_empty());
    if !is_root_event {
        return Some("only a run of this node may fire an event that continues a chain".to_owned());
    }
    if publication.prefix != settings.prefix {
        return Some(format!(
            "only root may fire under another key prefix than this node's {}",
            settings.prefix
        ));
    }
    if !publication.suppressed.is_empty() || !publication.suppressed_groups.is_empty() {
        return Some("only a run of this node may fire an event with suppressed targets".to_owned());
    }
    // Another event's id would put this one in its place, in the outbox and in the backend.
    let is_of_now = |at: Timestamp| now.since(at).max(at.since(now)) <= CLOCK_TOLERANCE;
    if !event.id.made_at().is_some_and(is_of_now) || !is_of_now(event.fired_at) {
        return Some("the event was not made now".to_owned());
    }
    if !service.recent_fires.knows(event.id) {
        match service.outbox.holds(event.id) {
            Ok(false) => {}
            Ok(true) => return Some("the outbox has an event of this id already".to_owned()),
            Err(error) => return Some(error.to_string()),
        }
    }
    let backends = settings.node_backends();
    let is_configured = backends.resolve(&publication.backend).is_ok_and(|url| backends.include(&url));
    (!is_configured)
        .then(|| "only root may fire at a backend that this node's configuration does not name".to_owned())
}

fn failed(message: String) -> Reply {
    Reply::Failed { kind: FireErrorKind::Failed, message }
}
