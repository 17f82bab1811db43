//! Remembers who fired the latest events that were asked for. An event keeps its origin for as long as it is stored, so
//! that nothing here has to be forgotten for another reason than memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use trigger_core::authorization::Fired;
use trigger_core::identity::EventId;

/// How many events are remembered. Each takes about 200 bytes.
const MAX_REMEMBERED: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(super) struct Origins {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    fired: HashMap<EventId, Fired>,
    oldest_first: VecDeque<EventId>,
}

impl Origins {
    pub(super) fn get(&self, event: EventId) -> Option<Fired> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).fired.get(&event).cloned()
    }

    /// Remembers an event that is stored.
    pub(super) fn remember(&self, event: EventId, fired: &Fired) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.fired.insert(event, fired.clone()).is_none() {
            known.oldest_first.push_back(event);
        }
        while known.oldest_first.len() > MAX_REMEMBERED {
            if let Some(oldest) = known.oldest_first.pop_front() {
                known.fired.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_events_are_remembered() {
        let origins = Origins::default();
        let event = |n: u128| format!("{n:032x}").parse::<EventId>();
        let event = |n: usize| {
            let n = n as u128;
            let text = format!("{:08x}-0000-0000-0000-{:012x}", n >> 48, n & 0xffff_ffff_ffff);
            text.parse().or_else(|_| event(n)).unwrap()
        };
        let fired = Fired { origin: None, is_for_groups: true };
        (0..=MAX_REMEMBERED).for_each(|n| origins.remember(event(n), &fired));
        origins.remember(event(1), &fired);
        assert_eq!(origins.get(event(0)), None);
        assert_eq!(origins.get(event(1)), Some(fired.clone()));
        assert_eq!(origins.get(event(MAX_REMEMBERED)), Some(fired));
        let known = origins.known.lock().unwrap();
        assert_eq!((known.fired.len(), known.oldest_first.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    }
}
