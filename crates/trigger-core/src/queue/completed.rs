//! What the queue remembers of the events that ended here.

use std::collections::HashMap;

use crate::dedup::{HonouredEvent, is_outlived};
use crate::delivery::DeliveryOutcome;
use crate::identity::EventId;
use crate::time::Timestamp;

/// How many more entries than after the last look may be there before outlived ones are looked for, besides a quarter of
/// them: then the looks take a time that grows with the number of entries, and the outlived ones take little memory.
const MIN_GROWTH: usize = 1024;

/// Events that ended here and must not run again.
#[derive(Debug, Clone, Default)]
pub(super) struct Completed {
    events: HashMap<EventId, Ended>,
    /// The number of entries from which on outlived ones are looked for. A look takes a time that grows with their number,
    /// so that there is not one for each entry.
    looks_at: usize,
}

/// What is remembered of one event. On a busy node there are a hundred thousand: an entry takes no more than it has to.
#[derive(Debug, Clone)]
struct Ended {
    at: Timestamp,
    way: Way,
}

/// How an event ended.
#[derive(Debug, Clone)]
enum Way {
    Run,
    Superseded(EventId),
    /// In any other way without a run.
    Other(Box<DeliveryOutcome>),
}

impl Completed {
    pub(super) fn new(events: impl IntoIterator<Item = HonouredEvent>) -> Self {
        let events: HashMap<EventId, Ended> = events.into_iter().map(Ended::entry).collect();
        Self { looks_at: next_look(events.len()), events }
    }

    pub(super) fn get(&self, event: EventId) -> Option<HonouredEvent> {
        let Ended { at, way } = self.events.get(&event)?;
        let without_run = match way {
            Way::Run => None,
            Way::Superseded(by) => Some(DeliveryOutcome::Superseded(*by)),
            Way::Other(outcome) => Some(DeliveryOutcome::clone(outcome)),
        };
        Some(HonouredEvent { event, ended_at: *at, without_run })
    }

    pub(super) fn contains(&self, event: EventId) -> bool {
        self.events.contains_key(&event)
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn remove(&mut self, event: EventId) {
        self.events.remove(&event);
    }

    pub(super) fn insert(&mut self, event: HonouredEvent, now: Timestamp) {
        let (event, ended) = Ended::entry(event);
        self.events.insert(event, ended);
        if self.events.len() >= self.looks_at {
            self.events.retain(|event, ended| !is_outlived(*event, ended.at, now));
            self.looks_at = next_look(self.events.len());
        }
    }
}

fn next_look(entries: usize) -> usize {
    entries + entries / 4 + MIN_GROWTH
}

impl Ended {
    fn entry(HonouredEvent { event, ended_at: at, without_run }: HonouredEvent) -> (EventId, Self) {
        let way = match without_run {
            None => Way::Run,
            Some(DeliveryOutcome::Superseded(by)) => Way::Superseded(by),
            Some(outcome) => Way::Other(Box::new(outcome)),
        };
        (event, Self { at, way })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::DEDUP_RETENTION;
    use crate::event::samples;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);

    #[test]
    fn what_is_remembered_is_what_was_noted() {
        let outcomes = [
            None,
            Some(DeliveryOutcome::Superseded(samples::event_id(7))),
            Some(DeliveryOutcome::Refused("no rule allows it".to_owned())),
            Some(DeliveryOutcome::Expired(None)),
        ];
        for without_run in outcomes {
            let noted = HonouredEvent { event: samples::event_id(1), ended_at: NOW, without_run };
            assert_eq!(Completed::new([noted.clone()]).get(noted.event).as_ref(), Some(&noted));
            let mut completed = Completed::default();
            completed.insert(noted.clone(), NOW);
            assert_eq!(completed.get(noted.event), Some(noted));
        }
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<(EventId, Ended)>() <= 48, "{}", size_of::<(EventId, Ended)>());
    }

    #[test]
    fn outlived_events_are_forgotten_before_they_are_many() {
        let noted = |n: usize, ended_at| {
            let event = samples::event_id(u128::try_from(n).unwrap());
            HonouredEvent { event, ended_at, without_run: None }
        };
        // So many in each time of retention, and the same again and again.
        const MANY: usize = 10_000;
        let mut completed = Completed::default();
        let mut most = 0;
        for n in 0..5 * MANY {
            let now = NOW.plus(DEDUP_RETENTION.mul_f64(n as f64 / MANY as f64));
            completed.insert(noted(n, now), now);
            most = most.max(completed.len());
        }
        assert!(most <= next_look(MANY) + 1, "{most}");
        assert!(completed.contains(samples::event_id((4 * MANY + 1).try_into().unwrap())));
    }
}
