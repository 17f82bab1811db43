//! Which events this agent was asked to fire lately, so that no member of a group puts another event in the place of one.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use trigger_core::event::CLOCK_TOLERANCE;
use trigger_core::identity::EventId;
use trigger_core::time::Timestamp;

/// How long an event is remembered. Members of groups fire none that is older than [`CLOCK_TOLERANCE`].
const REMEMBERED: Duration = CLOCK_TOLERANCE.saturating_mul(2);

/// Events by their ids. What was fired before this agent started is not among them, so that none of that age is taken.
#[derive(Debug)]
pub(super) struct RecentFires {
    since: Timestamp,
    hasher: RandomState,
    /// A digest of each publication: a command that got no answer asks again for the same.
    digests: Mutex<BTreeMap<EventId, u64>>,
}

impl RecentFires {
    pub(super) fn new(since: Timestamp) -> Self {
        Self { since, hasher: RandomState::new(), digests: Mutex::default() }
    }

    /// Notes an event that root fires, whatever was fired before.
    pub(super) fn note(&self, event: EventId, publication: &str, now: Timestamp) {
        let _ = self.exchange(event, publication, now);
    }

    /// Whether an event of this id is noted.
    pub(super) fn knows(&self, event: EventId) -> bool {
        self.lock().contains_key(&event)
    }

    /// Notes an event that a member of a group fires.
    ///
    /// # Errors
    /// Why it may be another one than the one of this id. That one stays noted.
    pub(super) fn note_new(
        &self,
        event: EventId,
        publication: &str,
        now: Timestamp,
    ) -> Result<(), &'static str> {
        if event.made_at().is_none_or(|made_at| made_at < self.since) {
            return Err("the event was made before this agent started: fire it again");
        }
        match self.exchange(event, publication, now) {
            Some((known, new)) if known != new => {
                self.lock().insert(event, known);
                Err("another event of this id has been fired already")
            }
            _ => Ok(()),
        }
    }

    /// Notes an event. Returns the digest of the one that was noted for the same id, if there was one, and the new digest.
    fn exchange(&self, event: EventId, publication: &str, now: Timestamp) -> Option<(u64, u64)> {
        let digest = self.hasher.hash_one(publication);
        let mut digests = self.lock();
        let is_old = |event: &EventId| event.made_at().is_none_or(|made_at| now.since(made_at) > REMEMBERED);
        // Ids begin with the time at which they were made.
        while digests.first_key_value().is_some_and(|(first, _)| is_old(first)) {
            digests.pop_first();
        }
        Some((digests.insert(event, digest)?, digest))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EventId, u64>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);

    fn made_at(at: Timestamp) -> EventId {
        let uuid = uuid::Builder::from_unix_timestamp_millis(at.as_unix_ms(), &[7; 10]).into_uuid();
        EventId::from_uuid(uuid)
    }

    /// Proves C13.
    #[test]
    fn no_event_takes_the_place_of_one_that_was_fired() {
        let fires = RecentFires::new(START);
        let now = START.plus(Duration::from_secs(60));
        let (of_root, of_member) = (made_at(now), made_at(now.plus(Duration::from_millis(1))));
        fires.note(of_root, "root's", now);
        assert!(fires.note_new(of_root, "another", now).unwrap_err().contains("already"));
        assert!(fires.note_new(of_root, "another", now).unwrap_err().contains("already"), "and again");
        assert_eq!(fires.note_new(of_member, "a member's", now), Ok(()));
        assert_eq!(fires.note_new(of_member, "a member's", now), Ok(()), "a command asks again");
        assert!(fires.note_new(of_member, "another", now).is_err());
        // Who knows what was fired before.
        let earlier = made_at(Timestamp::from_unix_ms(START.as_unix_ms() - 1));
        assert!(fires.note_new(earlier, "any", now).unwrap_err().contains("before this agent"));
    }

    #[test]
    fn what_is_too_old_to_be_fired_again_is_forgotten() {
        let fires = RecentFires::new(START);
        for seconds in 0..10_000 {
            let now = START.plus(Duration::from_secs(seconds));
            assert_eq!(fires.note_new(made_at(now), "x", now), Ok(()));
        }
        assert!(fires.lock().len() <= usize::try_from(REMEMBERED.as_secs() + 2).unwrap());
    }
}
