//! How deliveries ended: stored by their target, in the place of the deliveries.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::event::Target;
use trigger_core::identity::{EventId, Revision};
use trigger_core::keyspace::Key;
use trigger_core::run::history::RunHistory;
use trigger_core::signature::Authors;
use trigger_core::wire::WireError;
use trigger_store::store::{CasOutcome, Entry, KeyRange, MAX_ORDERED_ENTRIES, StoreError, check_kept};

use crate::certificates::Certificates;
use crate::codec::{Opened, SigningKey};
use crate::fleet::Fleet;

/// Outcomes that are stored at the same time where each depends on what is there.
const MAX_SWAPS_IN_FLIGHT: usize = 16;

impl Fleet {
    /// Stores how deliveries to this node ended, and deletes them, at once or then: the last two steps of the order at a
    /// run's end (C4). Idempotent. A group's delivery belongs to all its members and stays.
    ///
    /// # Errors
    /// When the backend does not answer, or has lost an outcome that it had taken: the same call is to be repeated.
    pub async fn finish(&self, completions: &[Completion]) -> Result<(), StoreError> {
        self.finish_runs(completions, None).await
    }

    /// The same at the end of runs, with the history of this node's runs. That is stored first, so that the run of
    /// every outcome can be found; it explains and decides nothing, so a backend that refuses it holds up no outcome.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub async fn finish_runs(
        &self,
        completions: &[Completion],
        history: Option<&RunHistory>,
    ) -> Result<(), StoreError> {
        let signing_key = self.own_signing_key().await?;
        let history_key = Key::RunHistory { certname: self.own().clone() };
        let mut past = match history {
            Some(history) => Some(self.own_signed_entry(&signing_key, &history_key, history).await?),
            None => None,
        };
        let (done, others): (Vec<&Completion>, Vec<&Completion>) =
            completions.iter().partition(|completion| matches!(completion.outcome, DeliveryOutcome::Done(_)));
        let mut newest = None;
        if !others.is_empty() {
            match self.put_all(past.take().into_iter().collect()).await {
                Err(error) if !error.is_transient() => {}
                put => put?,
            }
            newest = self.store_unless_done(&signing_key, others).await?;
        }
        let mut outcomes = Vec::new();
        for completion in done {
            let key = self.own_outcome(completion.event);
            outcomes.push(self.own_signed_entry(&signing_key, &key, &completion.outcome).await?);
        }
        let mut ended = self.own_deliveries(completions.iter().map(ended));
        ended.extend(self.ended_cancellations(completions));
        let has_ended = !ended.is_empty();
        if let Some(past) = past {
            let entries = std::iter::once(past).chain(outcomes.iter().cloned()).collect();
            match self.replace(ended.clone(), entries).await {
                // It may be the history.
                Err(error) if !error.is_transient() => {}
                replaced => return replaced,
            }
        }
        self.replace(ended, outcomes).await?;
        match newest {
            Some(key) if has_ended => check_kept(self.store(), key).await,
            _ => Ok(()),
        }
    }

    /// Stores outcomes that say less than `done`. Written blindly they could come late, from an agent that was killed
    /// while it asked or that lost its claim in the middle of its run, and undo what its successor has stored. So one
    /// that needed no run is stored only where none is, and a failed run's never in the place of a `done` (C6: a later
    /// `done` wins). Returns the key whose outcome is the newest now.
    async fn store_unless_done(
        &self,
        signing_key: &SigningKey,
        completions: Vec<&Completion>,
    ) -> Result<Option<String>, StoreError> {
        let stored: Vec<_> = completions
            .into_iter()
            .map(|completion| self.store_one_unless_done(signing_key, completion))
            .collect();
        let stored: Vec<(Revision, String)> =
            stream::iter(stored).buffer_unordered(MAX_SWAPS_IN_FLIGHT).try_collect().await?;
        Ok(stored.into_iter().max().map(|(_, key)| key))
    }

    /// Returns what is stored then, which may be of an earlier call that was not answered.
    async fn store_one_unless_done(
        &self,
        signing_key: &SigningKey,
        completion: &Completion,
    ) -> Result<(Revision, String), StoreError> {
        let outcome_key = self.own_outcome(completion.event);
        let (key, text) = self.own_signed_entry(signing_key, &outcome_key, &completion.outcome).await?;
        let mut expected = None;
        loop {
            match self.store().compare_and_swap(&key, &text, expected).await? {
                CasOutcome::Written(revision) => return Ok((revision, key)),
                CasOutcome::Changed(Some(known)) => {
                    let certificates = self.read_certificates([known.value.as_str()]).await?;
                    if !self.gives_way(&outcome_key, &known, &certificates, completion) {
                        return Ok((known.revision, key));
                    }
                    expected = Some(known.revision);
                }
                CasOutcome::Changed(None) => expected = None,
            }
        }
    }

    /// Whether a stored outcome of this node may be replaced by that of `completion`. One that does not count always may,
    /// whoever has written it.
    fn gives_way(
        &self,
        key: &Key,
        known: &Entry,
        certificates: &Certificates,
        completion: &Completion,
    ) -> bool {
        let authors = |outcome: &DeliveryOutcome| match outcome {
            // The origin is not known here: for all that is, its signature is as good as this node's.
            DeliveryOutcome::Suppressed(_) => Authors::Any,
            outcome => Authors::of_outcome(outcome, self.own(), None),
        };
        match self.open(key, &known.value, certificates, authors) {
            Ok(Opened::Accepted { value: DeliveryOutcome::Done(_), .. }) => false,
            // What cannot be verified now is not this node's own, whose certificate it has stored itself; and of one with
            // its former certificate it is not certain.
            Ok(Opened::Refused(_) | Opened::Waits(_) | Opened::Outdated { .. }) => true,
            Err(WireError::Unreadable { .. }) if self.codec().requires_signatures() => true,
            Ok(Opened::Accepted { .. }) | Err(_) => {
                matches!(completion.outcome, DeliveryOutcome::Failed(_))
            }
        }
    }

    /// The requests that have ended deliveries to this node, which go with these. Those to end a group's stay with its delivery, and
    /// those that came too late, until a sweep removes the event.
    fn ended_cancellations(&self, completions: &[Completion]) -> impl Iterator<Item = String> {
        let is_ended_by_one = |completion: &&Completion| {
            matches!(completion.outcome, DeliveryOutcome::Cancelled { .. })
                && completion.addressed_as.iter().any(Target::is_node)
        };
        completions.iter().filter(is_ended_by_one).map(|completion| {
            self.key(&Key::Cancellation { certname: self.own().clone(), event: completion.event })
        })
    }

    /// Deletes this node's own deliveries of events that ended.
    ///
    /// # Errors
    /// When the backend does not answer; deleting again does no harm.
    pub async fn delete_deliveries<'a>(
        &self,
        ended: impl IntoIterator<Item = (EventId, &'a BTreeSet<Target>)>,
    ) -> Result<(), StoreError> {
        let keys = self.own_deliveries(ended);
        if keys.is_empty() { Ok(()) } else { self.store().delete_many(keys).await }
    }

    /// The keys of this node's own deliveries of events. A group's is not its own.
    fn own_deliveries<'a>(
        &self,
        ended: impl IntoIterator<Item = (EventId, &'a BTreeSet<Target>)>,
    ) -> Vec<String> {
        let own = ended.into_iter().filter(|(_, addressed_as)| addressed_as.iter().any(Target::is_node));
        own.map(|(event, _)| self.key(&Key::Delivery { certname: self.own().clone(), event })).collect()
    }

    /// The same, of those events alone whose outcome is stored now: a backend that did not answer may have come back
    /// from a backup without them, and their deliveries are all that is left then.
    ///
    /// # Errors
    /// When the backend does not answer; deleting again does no harm.
    pub async fn delete_deliveries_with_outcome(
        &self,
        ended: &[(EventId, BTreeSet<Target>)],
    ) -> Result<(), StoreError> {
        let mut stored = BTreeSet::new();
        for chunk in ended.chunks(MAX_ORDERED_ENTRIES) {
            let keys: Vec<KeyRange> =
                chunk.iter().map(|(event, _)| self.one(&self.own_outcome(*event))).collect();
            stored.extend(self.list(&keys).await?.into_iter().filter_map(|(key, _)| match key {
                Key::Outcome { event, .. } => Some(event),
                _ => None,
            }));
        }
        let has_outcome = ended.iter().filter(|(event, _)| stored.contains(event));
        self.delete_deliveries(has_outcome.map(|(event, addressed_as)| (*event, addressed_as))).await
    }

    fn own_outcome(&self, event: EventId) -> Key {
        Key::Outcome { event, certname: self.own().clone() }
    }
}

/// The event of a completion, and to what it was delivered.
fn ended(completion: &Completion) -> (EventId, &BTreeSet<Target>) {
    (completion.event, &completion.addressed_as)
}
