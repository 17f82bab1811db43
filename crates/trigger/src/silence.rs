//! That a node has not registered for long, which explains most deliveries that do not progress.

use std::time::Duration;

use trigger_core::delivery::DeliveryState;
use trigger_core::duration;
use trigger_core::event::CLOCK_TOLERANCE;
use trigger_core::node::SILENT_AFTER;
use trigger_core::status::DeliveryStatus;
use trigger_core::time::Timestamp;
use trigger_fleet::claim::LEASE;
use trigger_node::clock;

/// How long a node has been silent that last registered at `last_seen`; nothing if that is not long ago.
pub(crate) fn sentence(last_seen: Timestamp) -> Option<String> {
    Silence::since(last_seen).map(|silence| silence.sentence)
}

struct Silence {
    length: Duration,
    sentence: String,
}

impl Silence {
    fn since(last_seen: Timestamp) -> Option<Self> {
        let length = Duration::from_secs(clock::wall().since(last_seen).as_secs());
        let (shown, since) = (duration::format_short(length), last_seen.date_and_time());
        let sentence = format!("its agent has been silent for {shown}, since {since} by its own clock");
        (length >= SILENT_AFTER).then_some(Self { length, sentence })
    }
}

/// The reason of a delivery's state, and that its node is silent.
pub(crate) fn reason(target: &DeliveryStatus) -> Option<String> {
    let mut silence = target.last_seen.and_then(Silence::since);
    if let Some(Silence { length, sentence }) = &mut silence
        && target.state == DeliveryState::Pending
        && target.reason.is_none()
    {
        let lease = duration::format_short(LEASE);
        let clock = if *length < SILENT_AFTER + CLOCK_TOLERANCE { ", or its clock is behind" } else { "" };
        sentence.push_str(&format!(
            ": it was killed, is cut off, or has just started and takes its certname over within {lease} of its \
             start{clock}"
        ));
    }
    let words: Vec<String> =
        target.reason.clone().into_iter().chain(silence.map(|silence| silence.sentence)).collect();
    (!words.is_empty()).then(|| words.join("; "))
}
