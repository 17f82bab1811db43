//! Builds the agent's reply to `trigger queue`.

use std::collections::BTreeMap;

use trigger_core::identity::EventId;
use trigger_core::queue::{PuppetBlocker, Queue};
use trigger_core::run::record::Cause;
use trigger_fleet::claim::ClaimState;

use super::AgentSettings;
use crate::host::Host;
use crate::queue_view::{HeldView, HoldView, QueueView, RunningView, UnreadableView, WaitingView};

/// Returns the view of a queue as it is now.
pub(super) fn of<H: Host>(
    settings: &AgentSettings<H>,
    queue: &Queue,
    disconnected: Option<String>,
    claim: &ClaimState,
    unreadable: &BTreeMap<String, String>,
    hold: Option<HoldView>,
) -> QueueView {
    let activity = queue.activity();
    let retry = |event: EventId| activity.retrying.iter().find(|retrying| retrying.causes.contains(&event));
    // A blocker is the reason of all that waits.
    let waiting_reason = |event: EventId| {
        let waiting = activity.waiting.as_ref();
        let waiting = waiting.filter(|it| queue.blocker().is_some() || it.causes.contains(&event));
        waiting.map(|waiting| &waiting.reason)
    };
    // The activity lists only a bounded number of held deliveries.
    let held: BTreeMap<EventId, &str> = queue.held().collect();
    let known: BTreeMap<EventId, &Cause> =
        waiting_causes(queue).map(|cause| (cause.event.id, cause)).collect();
    QueueView {
        certname: settings.certname.to_string(),
        backend: settings.backend.to_string(),
        disconnected,
        holds_claim: matches!(claim, ClaimState::Held { .. }),
        blocked: queue.blocked_reason().map(str::to_owned),
        blocked_by: queue.blocker().map(|blocker| blocker.kind().to_owned()),
        hold,
        running: activity.running.as_ref().map(|running| RunningView {
            run_id: running.run_id.to_string(),
            started_at_unix_ms: running.started_at.as_unix_ms(),
            causes: queue.running_causes().iter().map(|cause| cause.event.id.to_string()).collect(),
        }),
        waiting: waiting_causes(queue)
            // Held deliveries are listed below.
            .filter(|cause| !held.contains_key(&cause.event.id))
            .map(|cause| WaitingView {
                event_id: cause.event.id.to_string(),
                trigger: cause.event.trigger.to_string(),
                origin: cause.event.origin.to_string(),
                tags: cause.event.options.tags.iter().map(ToString::to_string).collect(),
                noop: cause.event.options.noop,
                environment: cause.event.options.environment.as_ref().map(ToString::to_string),
                retry_at_unix_ms: retry(cause.event.id).map(|retrying| retrying.at.as_unix_ms()),
                reason: retry(cause.event.id)
                    .map(|retrying| &retrying.reason)
                    .or(waiting_reason(cause.event.id))
                    .or(activity.delayed.as_ref().map(|delayed| &delayed.reason))
                    .cloned(),
            })
            .collect(),
        held: held
            .iter()
            .map(|(event, reason)| {
                let cause = known.get(event);
                HeldView {
                    event_id: event.to_string(),
                    trigger: cause.map(|cause| cause.event.trigger.to_string()),
                    origin: cause.map(|cause| cause.event.origin.to_string()),
                    reason: (*reason).to_owned(),
                }
            })
            .collect(),
        unreadable: unreadable
            .iter()
            .map(|(key, reason)| UnreadableView { key: key.clone(), reason: reason.clone() })
            .collect(),
    }
}

/// What waits for a run: also what has run once without all that other nodes export.
fn waiting_causes(queue: &Queue) -> impl Iterator<Item = &Cause> {
    queue.waiting_causes().chain(queue.repeated_causes())
}

/// Why deliveries are not read yet. An agent that may not claim its certname has not asked the backend, or asks it no
/// more.
pub(super) fn not_tried(claim: &ClaimState, may_claim: bool, puppet: Option<&PuppetBlocker>) -> String {
    match claim {
        ClaimState::Unregistered { .. } | ClaimState::Contended(_) if !may_claim => match puppet {
            Some(
                PuppetBlocker::OtherCertname(reason)
                | PuppetBlocker::Unknown(reason)
                | PuppetBlocker::Broken(reason),
            ) => reason.clone(),
            Some(PuppetBlocker::Disabled(_)) | None => {
                "deliveries are read once Puppet has confirmed the certname of this node".to_owned()
            }
        },
        ClaimState::Unregistered { trouble: Some(trouble) } => trouble.clone(),
        ClaimState::Unregistered { trouble: None } => "the backend has not answered yet".to_owned(),
        ClaimState::Held { .. } => "deliveries are not read yet".to_owned(),
        ClaimState::Contended(_) | ClaimState::Stale { .. } => {
            "deliveries are read once this agent holds its claim".to_owned()
        }
    }
}
