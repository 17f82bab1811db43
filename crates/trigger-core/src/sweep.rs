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

/// Whether a sweeper may expire a delivery that has no outcome. `target` is the record of its node, if there is one: one
/// that says that it still works on the event has time for that, but not without end.
pub fn may_expire(event: &Event, target: Option<&NodeRecord>, now: Timestamp) -> bool {
    let is_at_work = target.is_some_and(|node| lists(&node.activity, event.id));
    let margin = if is_at_work { EVENT_RETENTION } else { SWEEP_GRACE_PERIOD };
    now > event.expires_at().plus(margin)
}

/// Whether an event all of whose deliveries have ended may be removed.
pub fn may_remove(event: &Event, now: Timestamp) -> bool {
    now > event.expires_at().plus(EVENT_RETENTION)
}

/// A sweep's note that all deliveries of an event have ended, so that later sweeps need not read the event again before it
/// may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The event may be removed after this moment.
    pub removable_after: Timestamp,
}

impl Settled {
    /// The note for an event all of whose deliveries have ended.
    pub fn of(event: &Event) -> Self {
        Self { removable_after: event.expires_at().plus(EVENT_RETENTION) }
    }

    /// Whether the event has to be read again: it may be removed, or the note is not to be believed, because no event
    /// lives so long.
    pub fn is_over(self, now: Timestamp) -> bool {
        let latest = now.plus(MAX_LIFETIME + EVENT_RETENTION + CLOCK_TOLERANCE * 2);
        now > self.removable_after || self.removable_after > latest
    }
}

/// Whether any delivery of the event with this id may be expired. False saves reading the event.
///
/// An id is a hint, for it has its time from the origin's clock, which may be wrong (C12): an event is passed over only
/// while its id is younger than the grace period, and not at all where its id is from the future or from an unknown time.
/// So it is passed over for little more than that period, whatever its id says.
pub fn may_be_due(event: EventId, now: Timestamp) -> bool {
    !is_younger(event, SWEEP_GRACE_PERIOD, now)
}

/// Whether the event with this id, all of whose deliveries have ended, may be removed. False saves reading the note that
/// they have; as [`may_be_due`], it is false for a bounded time only.
pub fn may_be_removable(event: EventId, now: Timestamp) -> bool {
    !is_younger(event, EVENT_RETENTION, now)
}

/// Whether what is stored beside the parts of an event is of no use without them: no copy of the event can still be on its
/// way to the backend. Never true for an id of an unknown time.
pub fn is_leftover(event: EventId, now: Timestamp) -> bool {
    event.made_at().is_some_and(|made_at| now > made_at.plus(MAX_LIFETIME + EVENT_RETENTION))
}

fn is_younger(event: EventId, age: Duration, now: Timestamp) -> bool {
    let is_young = |made_at: Timestamp| made_at <= now.plus(CLOCK_TOLERANCE) && now <= made_at.plus(age);
    event.made_at().is_some_and(is_young)
}

/// Whether a node reports that it still works on an event.
fn lists(activity: &Activity, event: EventId) -> bool {
    activity.events().any(|known| known == event)
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

    fn made_at(at: Timestamp) -> EventId {
        EventId::from_uuid(uuid::Builder::from_unix_timestamp_millis(at.as_unix_ms(), &[7; 10]).into_uuid())
    }

    /// Proves C12.
    #[test]
    fn no_id_postpones_a_look_for_long_whatever_its_origins_clock_said() {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        let now = Timestamp::from_unix_ms(1_763_812_800_000);
        let minutes = |n: u64| Duration::from_secs(n * 60);
        assert!(!may_be_due(made_at(now), now));
        assert!(!may_be_due(made_at(now), now.plus(SWEEP_GRACE_PERIOD)));
        assert!(may_be_due(made_at(now), now.plus(SWEEP_GRACE_PERIOD + minutes(1))));
        assert!(!may_be_due(made_at(now.plus(CLOCK_TOLERANCE)), now), "a clock that is a little ahead");
        assert!(may_be_due(made_at(now.plus(YEAR)), now), "one that is years ahead");
        assert!(may_be_due(made_at(now), now.plus(YEAR)), "one that is years behind");
        assert!(may_be_due(samples::event_id(1), now), "no clock at all");

        assert!(!may_be_removable(made_at(now), now.plus(EVENT_RETENTION)));
        assert!(may_be_removable(made_at(now), now.plus(EVENT_RETENTION + minutes(1))));
        assert!(may_be_removable(made_at(now.plus(YEAR)), now));
        assert!(
            is_leftover(made_at(now), now.plus(YEAR))
                && !is_leftover(made_at(now), now.plus(EVENT_RETENTION))
        );
        assert!(!is_leftover(samples::event_id(1), now));
    }

    #[test]
    fn an_event_that_may_be_due_is_read_and_a_note_of_its_end_saves_that_until_it_may_go() {
        let event = samples::event(1, "t");
        let first_due = event.fired_at.plus(SWEEP_GRACE_PERIOD + CLOCK_TOLERANCE);
        assert!(may_be_due(made_at(event.fired_at), first_due), "no event expires before its id allows it");
        let settled = Settled::of(&event);
        let last = settled.removable_after;
        assert!(!may_remove(&event, last) && !settled.is_over(last) && !settled.is_over(event.fired_at));
        let then = last.plus(Duration::from_millis(1));
        assert!(may_remove(&event, then) && settled.is_over(then));
        let forged = Settled { removable_after: last.plus(MAX_LIFETIME * 100) };
        assert!(forged.is_over(event.fired_at));
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
        let without_end = late.plus(Duration::from_millis(1));
        assert!(
            may_expire(&event, Some(&target), without_end),
            "which keeps no event in the store without end"
        );
    }
}
