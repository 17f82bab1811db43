//! The deliveries of one run that wait for a catalog, and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::Event;
use crate::identity::{Certname, EventId};
use crate::time::{Now, Timestamp};

/// The deliveries of one run whose catalogs are not stored yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Unsettled {
    /// With the nodes that fired.
    events: BTreeMap<EventId, Certname>,
    /// Until when the run waits, from the arrival of the first of them.
    pub(super) limit: Option<Limit>,
}

/// The end of a wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// On the clock that only goes forward.
    pub(super) until: Duration,
    /// The same moment on the wall clock, for display.
    pub(super) at: Timestamp,
}

impl Unsettled {
    pub(super) fn add(&mut self, now: Now, settle: Duration, event: &Event) {
        self.events.insert(event.id, event.origin.clone());
        self.limit.get_or_insert(Limit { until: now.elapsed + settle, at: now.wall.plus(settle) });
    }

    pub(super) fn contains(&self, event: EventId) -> bool {
        self.events.contains_key(&event)
    }

    pub(super) fn retain(&mut self, stays: impl Fn(EventId) -> bool) {
        self.events.retain(|event, _| stays(*event));
        if self.events.is_empty() {
            self.limit = None;
        }
    }

    /// When the run starts even without the catalogs; absent if it needs none.
    pub(super) fn until(&self) -> Option<Duration> {
        self.limit.map(|limit| limit.until)
    }

    pub(super) fn exporters(&self) -> impl Iterator<Item = &Certname> {
        self.events.values()
    }
}
