//! What has to be known of the store before some actions can be decided.

use std::collections::BTreeMap;

use crate::event::Part;
use crate::identity::{Certname, EventId};

/// A question about what is stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Which node fired the event, by any of its stored parts?
    Origin(EventId),
    /// What is this part of the event?
    Part(EventId, u32),
    /// Has the asking node a delivery of the event, or an outcome?
    Involved(EventId),
    /// Has this node an outcome of the event?
    HasOutcome(EventId, Certname),
}

/// Who fired an event and whether it is for groups. No part of an event ever changes, so that this stays true for as long
/// as the event is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// The node that fired it; `None` if a newer version of this program wrote the event, so that it cannot be told.
    pub origin: Option<Certname>,
    /// Whether it names groups.
    pub is_for_groups: bool,
}

impl Fired {
    /// The same of a part of the event. The first part has the groups.
    pub fn of(part: &Part) -> Self {
        let is_for_groups = !part.event.targets.groups.is_empty();
        Self { origin: Some(part.event.origin.clone()), is_for_groups }
    }

    /// An event that is stored and cannot be read.
    pub fn unreadable() -> Self {
        Self { origin: None, is_for_groups: false }
    }

    pub(super) fn is_by(&self, certname: &Certname) -> bool {
        self.origin.as_ref() == Some(certname)
    }
}

/// The answers that are known, for one request of one actor.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    fired: BTreeMap<EventId, Option<Fired>>,
    parts: BTreeMap<(EventId, u32), Option<Part>>,
    involved: BTreeMap<EventId, bool>,
    outcomes: BTreeMap<(EventId, Certname), bool>,
    offered: BTreeMap<(EventId, u32), Part>,
}

impl Facts {
    /// Takes in a part that the same request is to store: what it says counts for the rest of the request, unless the
    /// store says otherwise.
    pub fn offer(&mut self, event: EventId, index: u32, part: Part) {
        self.offered.insert((event, index), part);
    }

    /// Forgets what the store has said, because that may have changed.
    pub fn forget_stored(&mut self) {
        *self = Self { offered: std::mem::take(&mut self.offered), ..Self::default() };
    }

    /// Takes in who fired an event; `None` if nothing is stored of it.
    pub fn origin_is(&mut self, event: EventId, fired: Option<Fired>) {
        self.fired.insert(event, fired);
    }

    /// Takes in a stored part; `None` if it is not stored.
    pub fn part_is(&mut self, event: EventId, index: u32, part: Option<Part>) {
        self.parts.insert((event, index), part);
    }

    /// Takes in whether the asking node has a delivery or an outcome of an event.
    pub fn involved_is(&mut self, event: EventId, is_involved: bool) {
        self.involved.insert(event, is_involved);
    }

    /// Takes in whether a node has an outcome of an event.
    pub fn outcome_is(&mut self, event: EventId, certname: Certname, is_stored: bool) {
        self.outcomes.insert((event, certname), is_stored);
    }

    /// Who fired an event, by what is stored; else by what this request is to store.
    pub(super) fn fired(&self, event: EventId) -> Result<Option<Fired>, Question> {
        let stored = self.fired.get(&event).ok_or(Question::Origin(event))?;
        let offered = || {
            let parts = self.offered.range((event, 0)..=(event, u32::MAX));
            parts.map(|(_, part)| Fired::of(part)).next()
        };
        Ok(stored.clone().or_else(offered))
    }

    pub(super) fn stored_part(&self, event: EventId, index: u32) -> Result<Option<&Part>, Question> {
        self.parts.get(&(event, index)).map(Option::as_ref).ok_or(Question::Part(event, index))
    }

    /// A part, by what is stored; else by what this request is to store.
    pub(super) fn part(&self, event: EventId, index: u32) -> Result<Option<&Part>, Question> {
        Ok(self.stored_part(event, index)?.or_else(|| self.offered.get(&(event, index))))
    }

    pub(super) fn is_involved(&self, event: EventId) -> Result<bool, Question> {
        self.involved.get(&event).copied().ok_or(Question::Involved(event))
    }

    pub(super) fn has_outcome(&self, event: EventId, certname: &Certname) -> Result<bool, Question> {
        let key = (event, certname.clone());
        self.outcomes.get(&key).copied().ok_or(Question::HasOutcome(event, key.1))
    }
}
