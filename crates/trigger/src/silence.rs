//! That a node has not registered for long, which explains most deliveries that do not progress.

use std::time::Duration;

use trigger_core::duration;
use trigger_core::status::DeliveryStatus;
use trigger_core::time::Timestamp;
use trigger_node::clock;

/// An agent registers every minute; one that has not for this long is cut off, stopped or gone.
const SILENT_AFTER: Duration = Duration::from_secs(5 * 60);

/// How long a node has been silent that last registered at `last_seen`; nothing if that is not long ago.
pub(crate) fn sentence(last_seen: Timestamp) -> Option<String> {
    let silent_for = Duration::from_secs(clock::wall().since(last_seen).as_secs());
    let silence = duration::format(silent_for);
    (silent_for >= SILENT_AFTER).then(|| format!("its agent has been silent for {silence}"))
}

/// The reason of a delivery's state, and that its node is silent.
pub(crate) fn reason(target: &DeliveryStatus) -> Option<String> {
    let silent = target.last_seen.and_then(sentence);
    let words: Vec<String> = target.reason.clone().into_iter().chain(silent).collect();
    (!words.is_empty()).then(|| words.join("; "))
}
