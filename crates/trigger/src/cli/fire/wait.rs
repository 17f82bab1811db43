//! Follows an event until all its deliveries have ended.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use trigger_core::delivery::DeliveryState;
use trigger_core::duration;
use trigger_core::identity::{Certname, EventId};
use trigger_core::status::DeliveryStatus;
use trigger_fleet::Fleet;
use trigger_fleet::status::EventStatus;
use trigger_store::store::{StoreError, Watch};

use super::progress::Progress;
use crate::cli::globals::OutputFormat;
use crate::failure::{Exit, Failure};

/// How often the nodes' registrations are read; outcomes are watched.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a look at the event may take where publishing it took all the time.
const LAST_LOOK: Duration = Duration::from_millis(500);
/// The most successors of a superseded delivery that are followed.
const MAX_SUCCESSORS: usize = 256;

/// An event when the waiting ended.
pub(super) struct Followed {
    pub(super) status: EventStatus,
    /// Whether deliveries had not ended by then.
    pub(super) timed_out: bool,
}

impl Followed {
    pub(super) fn exit_code(&self) -> ExitCode {
        let all_succeeded = self.status.targets.values().all(|target| target.state.is_success());
        if all_succeeded && !self.timed_out { ExitCode::SUCCESS } else { Exit::Failed.into() }
    }
}

/// Waits until every delivery of an event has ended, and reports progress meanwhile. While the event is not in the
/// backend, `offer` tries to publish it. The time to wait began at `started`.
pub(super) async fn until_over(
    fleet: &Fleet,
    event: EventId,
    (started, timeout): (Instant, Duration),
    format: OutputFormat,
    offer: impl AsyncFn() -> Result<(), Failure>,
) -> Result<Followed, Failure> {
    let deadline = started + timeout;
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut progress = Progress::new(format);
    let mut watch = None;
    let mut latest = None;
    loop {
        let status = match tokio::time::timeout(left().max(LAST_LOOK), read_status(fleet, event)).await {
            Ok(status) => status,
            Err(_) => Ok(None),
        };
        match status {
            Ok(Some(status)) if status.targets.is_empty() && status.unreadable_parts.is_empty() => {
                progress.finish(None);
                return Err(Failure::failed(format!(
                    "event {event} has no target: no agent belongs to the groups it was fired at"
                )));
            }
            Ok(Some(status)) => {
                progress.show(&status);
                let is_over = status.is_over();
                latest = Some(status);
                if is_over {
                    break;
                }
            }
            // The event is still in the outbox, or the backend is unreachable: either may pass.
            Ok(None) => progress.note("the event is not in the backend yet"),
            Err(error) => progress.note(&error.to_string()),
        }
        if latest.is_none()
            && let Ok(Err(failure)) = tokio::time::timeout(left(), offer()).await
        {
            progress.finish(None);
            return Err(failure);
        }
        if Instant::now() >= deadline {
            progress.finish(Some(timeout));
            let status = latest.ok_or_else(|| {
                Failure::failed(format!(
                    "event {event} did not reach the backend within {}",
                    duration::format(timeout)
                ))
            })?;
            return Ok(Followed { status, timed_out: true });
        }
        let pause = POLL_INTERVAL.min(left());
        let _ = tokio::time::timeout(pause, next_outcome(fleet, event, &mut watch)).await;
    }
    progress.finish(None);
    let status = latest.ok_or_else(|| Failure::failed(format!("event {event} is unknown")))?;
    Ok(Followed { status, timed_out: false })
}

/// Returns when an outcome has been stored; never, if the backend cannot be watched.
async fn next_outcome(fleet: &Fleet, event: EventId, watch: &mut Option<Watch>) {
    if watch.is_none() {
        *watch = fleet.watch_outcomes(event).await.ok();
    }
    match watch {
        Some(stream) => {
            if !matches!(stream.next().await, Some(Ok(_))) {
                *watch = None;
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

/// Reads the event's deliveries; a superseded delivery has the state of its successor.
async fn read_status(fleet: &Fleet, event: EventId) -> Result<Option<EventStatus>, StoreError> {
    let Some(mut status) = fleet.event_status(event).await? else { return Ok(None) };
    let superseded: Vec<(Certname, EventId)> = status
        .targets
        .iter()
        .filter_map(|(certname, target)| Some((certname.clone(), target.successor?)))
        .collect();
    let mut successors: BTreeMap<EventId, Option<EventStatus>> = BTreeMap::new();
    for (certname, mut successor) in superseded {
        let mut found = unknown_successor(successor);
        for _ in 0..MAX_SUCCESSORS {
            let known = match successors.entry(successor) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unread) => unread.insert(fleet.event_status(successor).await?),
            };
            let Some(target) = known.as_ref().and_then(|status| status.targets.get(&certname)) else { break };
            match target.successor {
                Some(next) => successor = next,
                None => {
                    found = honoured_by(target, successor);
                    break;
                }
            }
        }
        status.targets.insert(certname, found);
    }
    Ok(Some(status))
}

/// The state of a superseded delivery whose successor cannot be found: it does not count as a success.
fn unknown_successor(successor: EventId) -> DeliveryStatus {
    DeliveryStatus {
        state: DeliveryState::Pending,
        run: None,
        reason: Some(format!("superseded by the later event {successor}, whose state is not known")),
        successor: Some(successor),
        last_seen: None,
    }
}

fn honoured_by(target: &DeliveryStatus, successor: EventId) -> DeliveryStatus {
    let reason = target.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    DeliveryStatus {
        reason: Some(format!("honoured by the later event {successor}{reason}")),
        ..target.clone()
    }
}
