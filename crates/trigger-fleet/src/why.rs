//! Explains why a node ran: reads the entries that [`trigger_core::why`] asks for, one level of the chain at a time.

use std::collections::HashMap;

use trigger_core::event::Part;
use trigger_core::keyspace::Key;
use trigger_core::why::{self, ExplainError, Explanation, Facts, Progress, Question, Wanted};
use trigger_store::store::{Entry, KeyRange, StoreError};

use crate::fleet::{Fleet, Record};

/// How many keys are read at once. Every backend takes that many in one request.
const KEYS_PER_READ: usize = 512;

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
    pub async fn explain(
        &self,
        question: &Question,
    ) -> Result<Result<Explanation, ExplainError>, StoreError> {
        let mut facts = Facts::default();
        let source = self.source(question).await?;
        loop {
            match why::explain(question, &facts) {
                Ok(Progress::Read(wanted)) => self.read_facts(&source, wanted, &mut facts).await?,
                Ok(Progress::Done(explanation)) => return Ok(Ok(explanation)),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    async fn read_facts(&self, source: &Source, wanted: Wanted, facts: &mut Facts) -> Result<(), StoreError> {
        let nodes = wanted.nodes.iter().flat_map(|certname| {
            [Key::Node { certname: certname.clone() }, Key::RunHistory { certname: certname.clone() }]
        });
        // Every part has all of the event but its other targets.
        let events = wanted.events.iter().map(|event| Key::Part { event: *event, index: 0 });
        let ends = wanted.outcomes.iter();
        let ends = ends.map(|(event, certname)| Key::Outcome { event: *event, certname: certname.clone() });
        let keys: Vec<KeyRange> = nodes.chain(events).chain(ends).map(|key| self.one(&key)).collect();

        // An absent entry is a fact too, and is not read again.
        facts.nodes.extend(wanted.nodes.into_iter().map(|node| (node, Default::default())));
        facts.events.extend(wanted.events.into_iter().map(|event| (event, None)));
        facts.outcomes.extend(wanted.outcomes.into_iter().map(|key| (key, None)));
        for keys in keys.chunks(KEYS_PER_READ) {
            for record in self.read_from(source, keys).await? {
                self.take_in(record, facts);
            }
        }
        Ok(())
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

    /// Adds a record to the facts. One that cannot be decoded, corrupt or of a newer version, counts as absent.
    fn take_in(&self, Record { key, text, .. }: Record, facts: &mut Facts) {
        match key {
            Key::Node { certname } => {
                facts.nodes.entry(certname).or_default().record = self.decode(&text).ok();
            }
            Key::RunHistory { certname } => {
                facts.nodes.entry(certname).or_default().history = self.decode(&text).unwrap_or_default();
            }
            Key::Part { event, .. } => {
                facts.events.insert(event, self.decode(&text).ok().map(|part: Part| part.event));
            }
            Key::Outcome { event, certname } => {
                facts.outcomes.insert((event, certname), self.decode(&text).ok());
            }
            _ => {}
        }
    }
}
