//! Removes data that no node needs any more. Sweeping is idempotent, so that two sweepers at once do no harm; the note
//! under [`Key::Sweep`] keeps the nodes of a fleet from sweeping all at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use trigger_core::delivery::DeliveryOutcome;
use trigger_core::event::Part;
use trigger_core::identity::{Certname, EventId, GroupName, Revision};
use trigger_core::keyspace::{Key, Range};
use trigger_core::node::NodeRecord;
use trigger_core::sweep::{
    Settled, is_leftover, may_be_due, may_be_removable, may_expire, may_remove, quorum_now,
};
use trigger_core::time::Timestamp;
use trigger_store::store::{CasOutcome, KeyRange, StoreError};

use crate::fleet::{Fleet, Record};
use crate::stored_event::{StoredEnds, StoredEvent};

/// Keys read at a time, each of another event.
const EVENTS_PER_READ: usize = 128;

/// The result of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Deliveries that were given the outcome `expired`.
    pub expired: usize,
    /// Events that were removed with all their entries.
    pub removed: usize,
}

/// The inputs of a sweep, and the notes that it writes at its end.
struct Sweep<'a> {
    /// The time that the sweep uses: see [`Fleet::sweep`].
    now: Timestamp,
    nodes: &'a BTreeMap<Certname, NodeRecord>,
    /// The events of which it has seen that all deliveries have ended.
    settled: Vec<(Key, Settled)>,
}

/// The keys that are stored of an event.
#[derive(Default)]
struct Listed {
    first_part: Option<u32>,
    is_settled: bool,
}

impl Fleet {
    /// Takes the next sweep upon this node, if there was no sweep since `last_seen` was the note's revision. Returns
    /// whether to sweep, and the note's revision now.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn try_acquire_sweep(
        &self,
        last_seen: Option<Revision>,
        is_first_look: bool,
    ) -> Result<(bool, Option<Revision>), StoreError> {
        let key = self.key(&Key::Sweep);
        let note = self.store().read(&[KeyRange::Key(key.clone())]).await?.into_iter().next();
        let present = note.map(|note| note.revision);
        if present != last_seen || (is_first_look && present.is_some()) {
            return Ok((false, present));
        }
        match self.store().compare_and_swap(&key, self.own().as_str(), present).await? {
            CasOutcome::Written(revision) => Ok((true, Some(revision))),
            CasOutcome::Changed(entry) => Ok((false, entry.map(|entry| entry.revision))),
        }
    }

    /// Notes that this node sweeps, whoever did so last: for a backend that sweeps by itself. Returns the note's revision.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn note_sweep(&self) -> Result<Revision, StoreError> {
        let entry = (self.key(&Key::Sweep), self.own().to_string());
        let noted = self.store().put_many(vec![entry]).await.into_iter().next();
        noted.unwrap_or_else(|| Err(self.ambiguous("it did not answer for the note of a sweep".to_owned())))
    }

    /// Sweeps the fleet's keys once. Of an event that cannot be due yet, or has settled and cannot be removed yet, it reads
    /// the keys alone. `now` is the sweeper's own clock; `last` the note's revision before this turn, if
    /// there was one: the nodes that registered since are those whose clocks are asked.
    ///
    /// # Errors
    /// When the backend does not answer; the next sweep does the rest.
    pub async fn sweep(&self, now: Timestamp, last: Option<Revision>) -> Result<Swept, StoreError> {
        let records = self.read(&[self.all(&Range::Nodes)]).await?;
        let is_late = |record: &&Record| last.is_none_or(|last| record.revision > last);
        let lately = self.registrations(records.iter().filter(is_late).cloned());
        let nodes = self.registrations(records);
        let seen = |nodes: &BTreeMap<Certname, NodeRecord>| nodes.values().map(|node| node.seen_at).collect();
        let now = quorum_now(now, seen(&lately), seen(&nodes));
        let mut sweep = Sweep { now, nodes: &nodes, settled: Vec::new() };
        let mut swept = Swept::default();
        // Events are large, so only one at a time is read as a whole.
        for event in self.overdue_events(now).await? {
            self.sweep_event(&mut sweep, event, &mut swept).await?;
        }
        let notes: Vec<_> = sweep.settled.iter().map(|(key, settled)| self.entry(key, settled)).collect();
        self.put_all(notes).await?;
        if let Some(last) = last {
            self.sweep_logs(last).await?;
        }
        Ok(swept)
    }

    /// The events of which anything may be due.
    async fn overdue_events(&self, now: Timestamp) -> Result<Vec<EventId>, StoreError> {
        let mut to_read = Vec::new();
        for (event, Listed { first_part, is_settled }) in self.list_events().await? {
            match first_part {
                Some(_) if is_settled && may_be_removable(event, now) => {
                    to_read.push((event, Key::Settled { event }))
                }
                Some(index) if !is_settled && may_be_due(event, now) => {
                    to_read.push((event, Key::Part { event, index }));
                }
                None if is_leftover(event, now) => self.remove_parts(event).await?,
                _ => {}
            }
        }
        let mut overdue = Vec::new();
        for chunk in to_read.chunks(EVENTS_PER_READ) {
            let keys: Vec<KeyRange> = chunk.iter().map(|(_, key)| self.one(key)).collect();
            let found = self.read(&keys).await?;
            let found: HashMap<&Key, &str> =
                found.iter().map(|record| (&record.key, record.text.as_str())).collect();
            let is_overdue = |key: &Key| found.get(key).is_some_and(|text| self.is_overdue(key, text, now));
            overdue.extend(chunk.iter().filter(|(_, key)| is_overdue(key)).map(|(event, _)| *event));
        }
        Ok(overdue)
    }

    async fn list_events(&self) -> Result<BTreeMap<EventId, Listed>, StoreError> {
        let mut events: BTreeMap<EventId, Listed> = BTreeMap::new();
        for (key, _) in self.list(&[self.all(&Range::Events)]).await? {
            match key {
                Key::Part { event, index } => {
                    let first = &mut events.entry(event).or_default().first_part;
                    *first = Some(first.map_or(index, |first| first.min(index)));
                }
                Key::Settled { event } => events.entry(event).or_default().is_settled = true,
                Key::Members { event, .. } => drop(events.entry(event).or_default()),
                _ => {}
            }
        }
        Ok(events)
    }

    /// Whether an event has to be looked at as a whole, by the note of its end or by one of its parts. What cannot be
    /// decoded is no reason to pass an event over: another part may be readable.
    fn is_overdue(&self, key: &Key, text: &str, now: Timestamp) -> bool {
        match key {
            Key::Settled { .. } => self.decode(text).map_or(true, |note: Settled| note.is_over(now)),
            _ => self.decode(text).map_or(true, |part: Part| may_expire(&part.event, None, now)),
        }
    }

    async fn sweep_event(
        &self,
        sweep: &mut Sweep<'_>,
        id: EventId,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        let records = self.read(&[self.all(&Range::Event(id))]).await?;
        // What does not count is removed like everything else, and no node is said to have missed it.
        let Some(written) = self.stored_event_as_written(&records) else { return Ok(()) };
        let written_targets = written.targets.clone();
        let stored = match self.stored_events(records).await?.remove(&id) {
            Some(stored) if stored.is_verified => stored,
            _ => written.without_targets(),
        };
        if !may_expire(&stored.event, None, sweep.now) {
            return Ok(());
        }
        let StoredEnds { ended, forged } = self.ends_of(id, &stored, sweep.now).await?;
        let open: Vec<&Certname> = stored.targets.difference(&ended).collect();
        let is_overdue =
            |certname: &Certname| may_expire(&stored.event, sweep.nodes.get(certname), sweep.now);
        let overdue: Vec<&Certname> = open.iter().copied().filter(|certname| is_overdue(certname)).collect();
        for certname in &overdue {
            let expected = forged.get(*certname).copied();
            swept.expired += usize::from(self.expire(id, certname, None, expected).await?);
        }
        if open.is_empty() && may_remove(&stored.event, sweep.now) {
            let named: BTreeSet<Certname> =
                ended.into_iter().chain(forged.into_keys()).chain(written_targets).collect();
            self.remove(id, &stored.event.targets.groups, &named).await?;
            swept.removed += 1;
        } else if overdue.len() == open.len() && stored.missing_parts().is_empty() {
            sweep.settled.push((Key::Settled { event: id }, Settled::of(&stored.event)));
        }
        Ok(())
    }

    /// Which targets of an event have ended. The outcomes are read where one that does not count would keep its target from
    /// expiring; an event that may be removed goes whatever they say.
    async fn ends_of(
        &self,
        id: EventId,
        stored: &StoredEvent,
        now: Timestamp,
    ) -> Result<StoredEnds, StoreError> {
        let outcomes = [self.all(&Range::Outcomes(id))];
        if self.codec().requires_signatures() && !may_remove(&stored.event, now) {
            let origin = stored.is_verified.then_some(&stored.event.origin);
            return self.stored_ends(self.read(&outcomes).await?, origin).await;
        }
        // The kind of outcome does not matter here, so an outcome of a newer version counts too.
        let ended = self.list(&outcomes).await?.into_iter().filter_map(|(key, _)| match key {
            Key::Outcome { certname, .. } => Some(certname),
            _ => None,
        });
        Ok(StoredEnds { ended: ended.collect(), ..StoredEnds::default() })
    }

    /// Gives a delivery the outcome `expired`, unless its target has just given it another, and deletes it. `forged` is the
    /// revision of an outcome that is stored and does not count. Returns whether it has expired.
    pub(crate) async fn expire(
        &self,
        event: EventId,
        certname: &Certname,
        reason: Option<&str>,
        forged: Option<Revision>,
    ) -> Result<bool, StoreError> {
        let key = Key::Outcome { event, certname: certname.clone() };
        let outcome = DeliveryOutcome::Expired(reason.map(str::to_owned));
        // A sweeper that acts for no node has nothing to sign with.
        let (key, text) = match self.identity() {
            Some(_) => self.own_signed_entry(&self.own_signing_key().await?, &key, &outcome).await?,
            None => self.entry(&key, &outcome),
        };
        let written = self.store().compare_and_swap(&key, &text, forged).await?;
        self.delete(vec![Key::Delivery { certname: certname.clone(), event }]).await?;
        Ok(matches!(written, CasOutcome::Written(_)))
    }

    /// Removes an event all of whose `targets` have ended: its deliveries first and its parts last, so that a
    /// sweep that is cut off is repeated. `id` is that of its keys; what its parts say of themselves may be anything.
    async fn remove(
        &self,
        id: EventId,
        groups: &BTreeSet<GroupName>,
        targets: &BTreeSet<Certname>,
    ) -> Result<(), StoreError> {
        let cancellations =
            groups.iter().map(|group| self.all(&Range::GroupCancellations(group.clone(), id)));
        let cancellations =
            self.list(&cancellations.collect::<Vec<_>>()).await?.into_iter().map(|(key, _)| key);
        let groups = groups.iter().map(|group| Key::GroupDelivery { group: group.clone(), event: id });
        let groups = groups.chain(cancellations);
        let nodes = targets.iter().flat_map(|certname| {
            [
                Key::Delivery { certname: certname.clone(), event: id },
                Key::Cancellation { certname: certname.clone(), event: id },
                Key::Outcome { event: id, certname: certname.clone() },
            ]
        });
        self.delete(groups.chain(nodes).collect()).await?;
        self.remove_parts(id).await
    }

    /// Removes the parts of an event and the members of its groups.
    async fn remove_parts(&self, event: EventId) -> Result<(), StoreError> {
        let keys = self.store().list(&[self.all(&Range::Event(event))]).await?;
        self.store().delete_many(keys.into_iter().map(|(key, _)| key).collect()).await
    }
}
