//! How deliveries ended: stored by their target, then the deliveries are deleted.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::event::Target;
use trigger_core::identity::{EventId, Revision};
use trigger_core::keyspace::Key;
use trigger_core::run::history::RunHistory;
use trigger_core::signature::Authors;
use trigger_core::wire::WireError;
use trigger_store::store::{CasOutcome, Entry, KeyRange, MAX_ORDERED_ENTRIES, StoreError};

use crate::certificates::Certificates;
use crate::codec::{Opened, SigningKey};
use crate::fleet::Fleet;

/// Outcomes that are stored at the same time where each depends on what is there.
const MAX_SWAPS_IN_FLIGHT: usize = 16;

impl Fleet {
    /// Stores how deliveries to this node ended, then deletes them: the last two steps of the order at a run's end
    /// (C4). Idempotent. A group's delivery belongs to all its members and stays.
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
        let history_key = Key::RunHistory { certname: self.own().clone() };
        let signing_key = self.own_signing_key().await?;
        let mut entries = Vec::new();
        if let Some(history) = history {
            entries.push(self.own_signed_entry(&signing_key, &history_key, history).await?);
        }
        let history_entries = entries.len();
        let (done, others): (Vec<&Completion>, Vec<&Completion>) =
            completions.iter().partition(|completion| matches!(completion.outcome, DeliveryOutcome::Done(_)));
        for completion in done {
            let key = self.own_outcome(completion.event);
            entries.push(self.own_signed_entry(&signing_key, &key, &completion.outcome).await?);
        }
        let keys: Vec<String> = entries.iter().map(|(key, _)| key.clone()).collect();
        let mut newest: Option<(Revision, String)> = None;
        for (index, (key, result)) in keys.into_iter().zip(self.store().put_many(entries).await).enumerate() {
            match result {
                Err(error) if index < history_entries && !error.is_transient() => {}
                result => newest = newest.max(Some((result?, key))),
            }
        }
        let stored = others.into_iter().map(|completion| self.store_unless_done(&signing_key, completion));
        let stored: Vec<_> = stored.collect();
        let stored: Vec<Option<(Revision, String)>> =
            stream::iter(stored).buffer_unordered(MAX_SWAPS_IN_FLIGHT).try_collect().await?;
        newest = newest.max(stored.into_iter().max().flatten());
        let addressed_as = completions.iter().map(|completion| (completion.event, &completion.addressed_as));
        self.delete_deliveries(addressed_as).await?;
        self.delete_cancellations(completions).await?;
        let has_deleted =
            completions.iter().any(|completion| completion.addressed_as.iter().any(Target::is_node));
        match newest {
            Some((_, key)) if has_deleted => self.check_kept(key).await,
            _ => Ok(()),
        }
    }

    /// A backend that was restored from a backup between the outcomes and the deletions has lost the former, and
    /// nothing would ever store them again: so this fails and the caller repeats it. What was written last is lost
    /// first, so one look is enough.
    async fn check_kept(&self, newest: String) -> Result<(), StoreError> {
        if !self.store().list(&[KeyRange::Key(newest)]).await?.is_empty() {
            return Ok(());
        }
        Err(self.ambiguous("it has lost an outcome that it had taken".to_owned()))
    }

    /// Stores an outcome that says less than `done`. Written blindly it could come late, from an agent that was killed
    /// while it asked or that lost its claim in the middle of its run, and undo what its successor has stored. So one
    /// that needed no run is stored only where none is, and a failed run's never in the place of a `done` (C6: a later
    /// `done` wins). Returns what it has written, if anything.
    async fn store_unless_done(
        &self,
        signing_key: &SigningKey,
        completion: &Completion,
    ) -> Result<Option<(Revision, String)>, StoreError> {
        let outcome_key = self.own_outcome(completion.event);
        let (key, text) = self.own_signed_entry(signing_key, &outcome_key, &completion.outcome).await?;
        let mut expected = None;
        loop {
            match self.store().compare_and_swap(&key, &text, expected).await? {
                CasOutcome::Written(revision) => return Ok(Some((revision, key))),
                CasOutcome::Changed(Some(known)) => {
                    let certificates = self.read_certificates([known.value.as_str()]).await?;
                    if !self.gives_way(&outcome_key, &known, &certificates, completion) {
                        return Ok(None);
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

    /// Deletes the requests that have ended deliveries to this node. Those to end a group's stay with its delivery, and those
    /// that came too late, until a sweep removes the event.
    async fn delete_cancellations(&self, completions: &[Completion]) -> Result<(), StoreError> {
        let is_ended_by_one = |completion: &&Completion| {
            matches!(completion.outcome, DeliveryOutcome::Cancelled { .. })
                && completion.addressed_as.iter().any(Target::is_node)
        };
        let key = |completion: &Completion| Key::Cancellation {
            certname: self.own().clone(),
            event: completion.event,
        };
        self.delete(completions.iter().filter(is_ended_by_one).map(key).collect()).await
    }

    /// Deletes this node's own deliveries of events that ended.
    ///
    /// # Errors
    /// When the backend does not answer; deleting again does no harm.
    pub async fn delete_deliveries<'a>(
        &self,
        ended: impl IntoIterator<Item = (EventId, &'a BTreeSet<Target>)>,
    ) -> Result<(), StoreError> {
        let own = ended.into_iter().filter(|(_, addressed_as)| addressed_as.iter().any(Target::is_node));
        let keys = own.map(|(event, _)| Key::Delivery { certname: self.own().clone(), event }).collect();
        self.delete(keys).await
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
