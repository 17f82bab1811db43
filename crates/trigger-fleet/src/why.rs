//! Explains why a node ran: reads the entries that [`trigger_core::why`] asks for, one level of the chain at a time.

use std::collections::HashMap;

use trigger_core::delivery::{DeliveryOutcome, Members};
use trigger_core::event::Part;
use trigger_core::identity::{Certname, EventId};
use trigger_core::keyspace::{Key, Range};
use trigger_core::run::history::RunHistory;
use trigger_core::signature::Authors;
use trigger_core::why::{self, Asker, ExplainError, Explanation, Facts, Progress, Question, Wanted};
use trigger_store::store::{Entry, KeyRange, StoreError};

use crate::certificates::Certificates;
use crate::fleet::{Fleet, Record};
use crate::verifying::Unverified;

/// How many keys are read at once. Every backend takes that many in one request.
const KEYS_PER_READ: usize = 512;
/// How many parts of an event are read at once where all of them are looked at.
const PARTS_PER_READ: usize = 8;

/// Where the records of an explanation come from.
enum Source {
    /// They are read one level of the chain at a time.
    Store,
    /// The backend has found them, and there are no others.
    Given(HashMap<KeyRange, Entry>),
}

impl Fleet {
    /// Explains a run or an event. Reads single keys only: neither the size of the fleet nor that of an event matters.
    ///
    /// # Errors
    /// The outer error when the backend does not answer; the inner one when its entries do not answer the question.
    ///
    /// What was read and does not count, because its node has not signed it, is added to `unverified`.
    pub async fn explain(
        &self,
        question: &Question,
        unverified: &mut Unverified,
    ) -> Result<Result<Explanation, ExplainError>, StoreError> {
        self.explain_to(&Asker::Reader, question, unverified).await
    }

    /// Explains the same to `asker`. That it may ask is for the caller to check.
    ///
    /// # Errors
    /// As [`Self::explain`].
    pub async fn explain_to(
        &self,
        asker: &Asker,
        question: &Question,
        unverified: &mut Unverified,
    ) -> Result<Result<Explanation, ExplainError>, StoreError> {
        let mut facts = Facts::default();
        let source = self.source(question).await?;
        loop {
            match why::explain(question, asker, &facts) {
                Ok(Progress::Read(wanted)) => {
                    self.read_facts(&source, wanted, &mut facts, unverified).await?;
                }
                Ok(Progress::Done(explanation)) => return Ok(Ok(explanation)),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    async fn read_facts(
        &self,
        source: &Source,
        wanted: Wanted,
        facts: &mut Facts,
        unverified: &mut Unverified,
    ) -> Result<(), StoreError> {
        let nodes = wanted.nodes.iter().flat_map(|certname| {
            [Key::Node { certname: certname.clone() }, Key::RunHistory { certname: certname.clone() }]
        });
        // Every part has all of the event but its other targets.
        let events = wanted.events.iter().map(|event| Key::Part { event: *event, index: 0 });
        let ends = wanted.outcomes.iter();
        let ends = ends.map(|(event, certname)| Key::Outcome { event: *event, certname: certname.clone() });
        let keys: Vec<KeyRange> = nodes.chain(events).chain(ends).map(|key| self.one(&key)).collect();

        for (event, certname) in wanted.is_for {
            let is_for = self.is_for(event, &certname).await?;
            facts.is_for.insert((event, certname), is_for);
        }
        // An absent entry is a fact too, and is not read again.
        facts.nodes.extend(wanted.nodes.into_iter().map(|node| (node, Default::default())));
        facts.events.extend(wanted.events.into_iter().map(|event| (event, None)));
        facts.outcomes.extend(wanted.outcomes.into_iter().map(|key| (key, None)));
        for keys in keys.chunks(KEYS_PER_READ) {
            let records = self.read_from(source, keys).await?;
            let texts = records.iter().map(|record| record.text.as_str());
            let certificates = self.read_certificates(texts).await?;
            // The origin of an event says who may have suppressed it at a target.
            let (events, others): (Vec<Record>, Vec<Record>) =
                records.into_iter().partition(|record| matches!(record.key, Key::Part { .. }));
            for record in events.into_iter().chain(others) {
                self.take_in(&record, &certificates, facts, unverified);
            }
        }
        Ok(())
    }

    /// Whether an event is for a node, by what its origin has stored: the node is the origin, a target, or a member of the
    /// event's groups.
    async fn is_for(&self, event: EventId, certname: &Certname) -> Result<bool, StoreError> {
        let keys = self.list(&[self.all(&Range::Event(event))]).await?;
        let keys: Vec<KeyRange> = keys.into_iter().map(|(key, _)| self.one(&key)).collect();
        // A large event is not held whole.
        for keys in keys.chunks(PARTS_PER_READ) {
            let names_it = |record: &Record| match record.key {
                Key::Part { .. } => self.decode(&record.text).is_ok_and(|part: Part| {
                    part.event.origin == *certname || part.event.targets.hosts.contains(certname)
                }),
                Key::Members { .. } => {
                    self.decode(&record.text).is_ok_and(|members: Members| members.0.contains(certname))
                }
                _ => false,
            };
            if self.read(keys).await?.iter().any(names_it) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where the records of an explanation come from: a backend that knows its clients gives those that concern the asker.
    async fn source(&self, question: &Question) -> Result<Source, StoreError> {
        let Some(entries) = self.store().explain(self.prefix(), question).await? else {
            return Ok(Source::Store);
        };
        let entries = entries.into_iter().map(|entry| (KeyRange::Key(entry.key.clone()), entry));
        Ok(Source::Given(entries.collect()))
    }

    async fn read_from(&self, source: &Source, keys: &[KeyRange]) -> Result<Vec<Record>, StoreError> {
        match source {
            Source::Store => self.read(keys).await,
            Source::Given(entries) => {
                Ok(self.records(keys.iter().filter_map(|key| entries.get(key).cloned()).collect()))
            }
        }
    }

    /// Adds a record to the facts. One that cannot be decoded, corrupt or of a newer version, counts as absent, and so does
    /// one that its node has not signed.
    fn take_in(
        &self,
        record: &Record,
        certificates: &Certificates,
        facts: &mut Facts,
        unverified: &mut Unverified,
    ) {
        match &record.key {
            Key::Node { certname } => {
                facts.nodes.entry(certname.clone()).or_default().record = self.decode(&record.text).ok();
            }
            Key::RunHistory { certname } => {
                let authors = |_: &RunHistory| Authors::Node(certname.clone());
                let history = self.open_or_note(record, certificates, authors, unverified);
                let history = history.map(|(history, _)| history);
                facts.nodes.entry(certname.clone()).or_default().history = history.unwrap_or_default();
            }
            Key::Part { event, .. } => {
                let authors = |part: &Part| Authors::Node(part.event.origin.clone());
                let part = self.open_or_note(record, certificates, authors, unverified);
                facts.events.insert(*event, part.map(|(part, _)| part.event));
            }
            Key::Outcome { event, certname } => {
                let origin =
                    facts.events.get(event).and_then(Option::as_ref).map(|event| event.origin.clone());
                let authors =
                    |outcome: &DeliveryOutcome| Authors::of_outcome(outcome, certname, origin.as_ref());
                let outcome = self.open_or_note(record, certificates, authors, unverified);
                let outcome = outcome.map(|(outcome, _)| outcome);
                facts.outcomes.insert((*event, certname.clone()), outcome);
            }
            _ => {}
        }
    }
}
