//! When a sweeper may expire a delivery for its target, and when it may remove what is stored of an event (C12).

use std::time::Duration;

use crate::event::{CLOCK_TOLERANCE, Event, MAX_LIFETIME};
use crate::identity::EventId;
use crate::node::{Activity, NodeRecord};
use crate::time::Timestamp;

/// How long after an event's expiry a sweeper waits before it expires a delivery for a silent target.
pub const SWEEP_GRACE_PERIOD: Duration = Duration::from_secs(60 * 60);
/// How long an event and its outcomes stay readable after its expiry. This is the longest lifetime of an event, so that
/// no copy of it in an outbox can still be published when they are removed.
pub const EVENT_RETENTION: Duration = MAX_LIFETIME;

/// Caps the sweeper's `own` clock at the median `seen_at` of recently registered nodes plus [`CLOCK_TOLERANCE`], so that
/// a minority of fast clocks cannot expire a fleet's events. If fewer than two nodes registered recently, the median is
/// over all nodes that ever registered. A lone node trusts its own clock.
pub fn quorum_now(own: Timestamp, recent: Vec<Timestamp>, all: Vec<Timestamp>) -> Timestamp {
    let mut seen = if recent.len() < 2 { all } else { recent };
    seen.sort_unstable();
    match seen.len() {
        0 | 1 => own,
        count => own.min(seen[(count - 1) / 2].plus(CLOCK_TOLERANCE)),
    }
}

/// Whether a sweeper may expire a delivery that has no outcome. `target` is the record of its node, if there is one.
pub fn may_expire(event: &Event, target: Option<&NodeRecord>, now: Timestamp) -> bool {
    let overdue = now > event.expires_at().plus(SWEEP_GRACE_PERIOD);
    overdue && !target.is_some_and(|node| lists(&node.activity, event.id))
}

/// Whether an event all of whose deliveries have ended may be removed.
pub fn may_remove(event: &Event, now: Timestamp) -> bool {
    now > event.expires_at().plus(EVENT_RETENTION)
}

/// Whether a node reports that it still works on an event.
fn lists(activity: &Activity, event: EventId) -> bool {
    activity.running.as_ref().is_some_and(|running| running.causes.contains(&event))
        || activity.retrying.iter().any(|retrying| retrying.causes.contains(&event))
        || activity.delayed.as_ref().is_some_and(|delayed| delayed.causes.contains(&event))
        || activity.held.iter().any(|held| held.event == event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::samples;
    use crate::node::{Delayed, HeldDelivery};

    fn node(seen_at: u64) -> NodeRecord {
        NodeRecord {
            instance: "i".to_owned(),
            lock: None,
            released: false,
            location: "l".to_owned(),
            renewals: 1,
            version: "0".to_owned(),
            seen_at: Timestamp::from_unix_ms(seen_at),
            groups: Default::default(),
            activity: Activity::default(),
        }
    }

    #[test]
    fn wrong_clocks_are_not_trusted_while_as_many_are_right() {
        const YEAR: u64 = 31_536_000_000;
        let tolerance = u64::try_from(CLOCK_TOLERANCE.as_millis()).unwrap();
        let at = |years: &[u64]| years.iter().map(|years| Timestamp::from_unix_ms(years * YEAR)).collect();
        let trusted = |own: u64, recent: &[u64], all: &[u64]| {
            quorum_now(Timestamp::from_unix_ms(own * YEAR), at(recent), at(all)).as_unix_ms()
        };
        assert_eq!(trusted(100, &[100, 1, 1], &[]), YEAR + tolerance, "the sweeper's own clock is fast");
        assert_eq!(
            trusted(100, &[100, 100, 1, 1], &[]),
            YEAR + tolerance,
            "two clocks of one machine are fast"
        );
        assert_eq!(trusted(1, &[100, 1, 1], &[]), YEAR, "another node's clock is fast");
        assert_eq!(
            trusted(2, &[2, 2], &[1, 1, 1, 2, 2]),
            2 * YEAR,
            "nodes that are gone do not hold it back"
        );
        assert_eq!(trusted(100, &[100], &[1, 1, 100]), YEAR + tolerance, "the first node after an outage");
        assert_eq!(trusted(2, &[2], &[2]), 2 * YEAR, "a lone node");
    }

    #[test]
    fn a_sweeper_speaks_for_a_silent_target_an_hour_after_expiry() {
        let event = samples::event(1, "t");
        let due = event.expires_at().plus(SWEEP_GRACE_PERIOD);
        assert!(!may_expire(&event, None, due));
        assert!(may_expire(&event, None, due.plus(Duration::from_millis(1))));
    }

    #[test]
    fn a_sweeper_never_speaks_for_a_target_that_is_at_work() {
        let event = samples::event(1, "t");
        let late = event.expires_at().plus(MAX_LIFETIME);
        let mut target = node(0);
        assert!(may_expire(&event, Some(&target), late));
        target.activity.held = vec![HeldDelivery { event: event.id, reason: "disabled".to_owned() }];
        assert!(!may_expire(&event, Some(&target), late));
        let (at, reason) = (late, "enough runs".to_owned());
        target.activity =
            Activity { delayed: Some(Delayed { at, reason, causes: vec![event.id] }), ..Activity::default() };
        assert!(!may_expire(&event, Some(&target), late));
    }
}
