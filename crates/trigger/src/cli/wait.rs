//! Following an event to its end.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use trigger_core::delivery::DeliveryState;
use trigger_core::identity::{Certname, EventId};
use trigger_core::status::DeliveryStatus;
use trigger_fleet::Fleet;
use trigger_fleet::status::EventStatus;
use trigger_store::store::{StoreError, Watch};

use super::{OutputFormat, output, status};
use trigger_node::failure::{FAILED, Failure};

/// What nodes say of themselves is read this often; outcomes are watched.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Successors of a superseded delivery that are followed before giving up on it.
const SUCCESSORS: usize = 256;

/// How the waiting ended.
pub(super) struct WaitOutcome {
    status: EventStatus,
    timed_out: Option<Duration>,
}

impl WaitOutcome {
    pub(super) fn exit_code(&self) -> u8 {
        let all_well = self.status.targets.values().all(|target| target.state.is_success());
        if self.timed_out.is_none() && all_well { 0 } else { FAILED }
    }

    pub(super) fn to_json(&self) -> Value {
        let mut document = status::event_json(&self.status);
        document["timed_out"] = json!(self.timed_out.is_some());
        document
    }
}

/// Waits until every delivery of an event has ended, telling on the way.
pub(super) async fn until_over(
    fleet: &Fleet,
    event: EventId,
    timeout: Duration,
    format: OutputFormat,
) -> Result<WaitOutcome, Failure> {
    let deadline = Instant::now() + timeout;
    let mut progress = Progress::new(format);
    let mut watch = None;
    let mut latest = None;
    loop {
        match look(fleet, event).await {
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
            // Still in the outbox, or the backend is away: both may pass.
            Ok(None) => progress.say("the event is not in the backend yet"),
            Err(error) => progress.say(&error.to_string()),
        }
        if Instant::now() >= deadline {
            progress.finish(Some(timeout));
            let status = latest.ok_or_else(|| {
                Failure::failed(format!(
                    "event {event} did not reach the backend within {}",
                    humantime::format_duration(timeout)
                ))
            })?;
            return Ok(WaitOutcome { status, timed_out: Some(timeout) });
        }
        let pause = POLL_INTERVAL.min(deadline.saturating_duration_since(Instant::now()));
        let _ = tokio::time::timeout(pause, next_outcome(fleet, event, &mut watch)).await;
    }
    progress.finish(None);
    let status = latest.ok_or_else(|| Failure::failed(format!("event {event} is unknown")))?;
    Ok(WaitOutcome { status, timed_out: None })
}

/// Returns when an outcome came in; never where the backend cannot be watched.
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

/// Where the event stands, superseded deliveries as their successors stand.
async fn look(fleet: &Fleet, event: EventId) -> Result<Option<EventStatus>, StoreError> {
    let Some(mut status) = fleet.event_status(event).await? else { return Ok(None) };
    let superseded: Vec<(Certname, EventId)> = status
        .targets
        .iter()
        .filter_map(|(certname, target)| Some((certname.clone(), target.successor?)))
        .collect();
    let mut successors: BTreeMap<EventId, Option<EventStatus>> = BTreeMap::new();
    for (certname, mut successor) in superseded {
        let mut found = unknown_successor(successor);
        for _ in 0..SUCCESSORS {
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

/// A superseded delivery is as good as its successor; one whose successor cannot be found has not ended well.
fn unknown_successor(successor: EventId) -> DeliveryStatus {
    DeliveryStatus {
        state: DeliveryState::Pending,
        run: None,
        reason: Some(format!("what became of the later event {successor} that took its place is not known")),
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

/// A bar on a terminal, plain lines elsewhere, nothing with JSON.
struct Progress {
    format: OutputFormat,
    bar: Option<ProgressBar>,
    known: BTreeMap<Certname, DeliveryState>,
    said: String,
}

impl Progress {
    fn new(format: OutputFormat) -> Self {
        let on_terminal = format == OutputFormat::Text && std::io::stderr().is_terminal();
        let bar = on_terminal.then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
            let bar = ProgressBar::new(0);
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { format, bar, known: BTreeMap::new(), said: String::new() }
    }

    fn show(&mut self, status: &EventStatus) {
        let ended = status.targets.values().filter(|target| target.state.is_end()).count();
        for (certname, target) in &status.targets {
            if self.known.insert(certname.clone(), target.state) == Some(target.state) {
                continue;
            }
            let reason = target.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
            self.line(&format!("{certname}: {}{reason}", target.state));
        }
        if let Some(bar) = &self.bar {
            bar.set_length(status.targets.len() as u64);
            bar.set_position(ended as u64);
            bar.set_message(status::summary(status));
        }
    }

    fn say(&mut self, sentence: &str) {
        if self.said != sentence {
            self.said = sentence.to_owned();
            self.line(sentence);
        }
    }

    fn line(&self, text: &str) {
        match (&self.bar, self.format) {
            (Some(bar), _) => bar.println(text),
            (None, OutputFormat::Text | OutputFormat::Dot) => output::note(text),
            (None, OutputFormat::Json) => {}
        }
    }

    fn finish(&self, timed_out: Option<Duration>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some(timeout) = timed_out {
            self.line(&format!("gave up after {}; the event goes on", humantime::format_duration(timeout)));
        }
    }
}
