//! The checks of each request by the certname of its client (C13), before anything is stored.
//!
//! [`trigger_core::authorization`] decides. This module finds out what it has to know of the store, holds the decision
//! true until the write is stored, and logs and counts what was denied. A plain hub, which only its own machine reaches,
//! knows no certnames and checks nothing.

mod audit;
mod clients;
mod event_locks;
mod look_up;
mod origins;
mod parsing;

use std::collections::{BTreeMap, BTreeSet};

use trigger_core::authorization::{
    Action, Cost, Denial, Facts, Operators, Progress, Scope, Value, authorize, check_size,
};
use trigger_core::event::Part;
use trigger_core::identity::Revision;
use trigger_core::keyspace::{Key, Keyspace};
use trigger_store::store::KeyRange;

use self::clients::Clients;
use self::event_locks::EventLocks;
pub(super) use self::event_locks::Guards;
use self::look_up::{Lookup, look_up};
use self::origins::Origins;
use super::caller::Caller;
use super::clock::now;
use super::metrics::Metrics;
use super::refusal::Refusal;
use crate::served_store::ServedStore;

/// What a hub that knows its clients serves, and who may read all of it.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    /// The one fleet whose keys are served.
    pub keyspace: Keyspace,
    /// By what an operator is recognised.
    pub operators: Operators,
}

/// The checks of a hub that knows its clients.
#[derive(Debug)]
pub(super) struct Authorization {
    rights: Rights,
    origins: Origins,
    clients: Clients,
    locks: EventLocks,
}

/// A put that is allowed.
pub(super) struct AdmittedPut {
    /// What is to be written.
    pub(super) entries: Vec<(String, String)>,
    /// By its place in the request, the revision of what is stored already and stays.
    kept: BTreeMap<usize, Revision>,
    fired: Vec<Part>,
    _guards: Guards,
}

impl AdmittedPut {
    /// The revisions of the whole request, from those of what was written.
    pub(super) fn revisions(&self, written: Vec<Revision>) -> Vec<Revision> {
        let (count, mut written) = (written.len() + self.kept.len(), written.into_iter());
        let revision = |index| self.kept.get(&index).copied().or_else(|| written.next());
        (0..count).filter_map(revision).collect()
    }
}

/// The checks of one request.
pub(super) struct Check<'a> {
    authorization: &'a Authorization,
    store: &'a dyn ServedStore,
    metrics: &'a Metrics,
    caller: &'a Caller,
    kind: &'static str,
}

impl Authorization {
    pub(super) fn new(rights: Rights) -> Self {
        Self {
            rights,
            origins: Origins::default(),
            clients: Clients::default(),
            locks: EventLocks::default(),
        }
    }

    /// By what an operator is recognised.
    pub(super) fn operators(&self) -> &Operators {
        &self.rights.operators
    }

    /// The checks of a request of `caller`, whose kind is named in metrics and logs.
    pub(super) fn check<'a>(
        &'a self,
        store: &'a dyn ServedStore,
        metrics: &'a Metrics,
        caller: &'a Caller,
        kind: &'static str,
    ) -> Check<'a> {
        Check { authorization: self, store, metrics, caller, kind }
    }
}

impl<'a> Check<'a> {
    /// The keys that are served.
    pub(super) fn keyspace(&self) -> &'a Keyspace {
        &self.authorization.rights.keyspace
    }

    /// The client.
    pub(super) fn caller(&self) -> &'a Caller {
        self.caller
    }

    /// Checks the entries of a put.
    pub(super) async fn put(&self, entries: Vec<(String, String)>) -> Result<AdmittedPut, Refusal> {
        let keys = entries.iter().map(|(key, _)| self.key(key, "write")).collect::<Result<Vec<_>, _>>()?;
        let (mut actions, mut facts, mut fired) = (Vec::new(), Facts::default(), Vec::new());
        for (key, (_, text)) in keys.iter().zip(&entries) {
            self.size(key, text)?;
            let value = parsing::value(&self.caller.actor, key, text);
            if let (Key::Part { event, index }, Value::Part(part)) = (key, &value) {
                facts.offer(*event, *index, (**part).clone());
                fired.push((**part).clone());
            }
            actions.push(Action::Put { key: key.clone(), value });
        }
        let guards = self.authorization.locks.acquire(&self.caller.actor.certname, &keys).await;
        let mut lookup = Lookup { facts, outcomes: BTreeMap::new() };
        let verdicts = match self.decide(&actions, &mut lookup).await {
            Ok(verdicts) => verdicts,
            Err(refusal) => {
                fired.iter().for_each(|part| audit::refused(self.caller, part, &refusal.sentence));
                return Err(refusal);
            }
        };
        let sizes = entries.iter().map(|(key, value)| key.len() + value.len());
        if let Err(refusal) = self.charge(Cost::of(keys.iter().zip(sizes))) {
            fired.iter().for_each(|part| audit::refused(self.caller, part, &refusal.sentence));
            return Err(refusal);
        }
        let mut admitted = AdmittedPut { entries: Vec::new(), kept: BTreeMap::new(), fired, _guards: guards };
        for (index, ((entry, key), verdict)) in entries.into_iter().zip(keys).zip(verdicts).enumerate() {
            match (verdict, lookup.outcome(&key)) {
                (Progress::KeepsStored, Some(revision)) => drop(admitted.kept.insert(index, revision)),
                _ => admitted.entries.push(entry),
            }
        }
        Ok(admitted)
    }

    /// Reports the events that a put has fired.
    pub(super) fn stored(&self, put: &AdmittedPut) {
        put.fired.iter().for_each(|part| audit::accepted(self.caller, part));
    }

    /// Checks a compare-and-swap. What is returned has to be held until it is done.
    pub(super) async fn compare_and_swap(&self, key: &str, value: &str) -> Result<Guards, Refusal> {
        let size = key.len() + value.len();
        let key = self.key(key, "write")?;
        self.size(&key, value)?;
        let guards =
            self.authorization.locks.acquire(&self.caller.actor.certname, std::slice::from_ref(&key)).await;
        self.decide(&[Action::CompareAndSwap { key: key.clone() }], &mut Lookup::default()).await?;
        self.charge(Cost::of([(&key, size)]))?;
        Ok(guards)
    }

    /// Checks a delete.
    pub(super) async fn delete(&self, keys: &[String]) -> Result<(), Refusal> {
        let action = |key: &String| Ok(Action::Delete { key: self.key(key, "delete")? });
        let actions = keys.iter().map(action).collect::<Result<Vec<_>, Refusal>>()?;
        self.decide(&actions, &mut Lookup::default()).await.map(drop)
    }

    /// Checks a read.
    pub(super) async fn read(&self, ranges: &[KeyRange]) -> Result<(), Refusal> {
        let action = |range| Ok(Action::Read(self.scope(range)?));
        let actions = ranges.iter().map(action).collect::<Result<Vec<_>, Refusal>>()?;
        self.decide(&actions, &mut Lookup::default()).await.map(drop)
    }

    /// Checks a watch.
    pub(super) async fn watch(&self, ranges: &[KeyRange]) -> Result<(), Refusal> {
        let action = |range| Ok(Action::Watch(self.scope(range)?));
        let actions = ranges.iter().map(action).collect::<Result<Vec<_>, Refusal>>()?;
        self.decide(&actions, &mut Lookup::default()).await.map(drop)
    }

    /// Whether the client may read each of these scopes.
    pub(super) async fn may_read(&self, scopes: Vec<Scope>) -> Result<Vec<bool>, Refusal> {
        let actions: Vec<Action> = scopes.into_iter().map(Action::Read).collect();
        let decided = self.try_decide(&actions, &mut Lookup::default()).await?;
        Ok(decided.into_iter().map(|verdict| verdict.is_ok()).collect())
    }

    /// The refusal of a request that asks for what the client may not do.
    pub(super) fn forbid(&self, what: &str, rule: &str) -> Refusal {
        let sentence = format!("{} may not {what}: {rule}", self.caller.actor);
        self.refuse(Refusal::denied(sentence))
    }

    async fn decide(&self, actions: &[Action], lookup: &mut Lookup) -> Result<Vec<Progress>, Refusal> {
        let decided = self.try_decide(actions, lookup).await?;
        decided.into_iter().collect::<Result<_, Denial>>().map_err(|denial| self.refuse(denial.into()))
    }

    /// Decides each action, and looks up what that needs, all that is known to be needed at a time.
    async fn try_decide(
        &self,
        actions: &[Action],
        lookup: &mut Lookup,
    ) -> Result<Vec<Result<Progress, Denial>>, Refusal> {
        let (actor, now) = (&self.caller.actor, now());
        loop {
            let mut questions = BTreeSet::new();
            let mut verdicts = Vec::new();
            for action in actions {
                match authorize(actor, action, &lookup.facts, now) {
                    Ok(Progress::LookUp(question)) => drop(questions.insert(question)),
                    verdict => verdicts.push(verdict),
                }
            }
            if questions.is_empty() {
                return Ok(verdicts);
            }
            let keyspace = &self.authorization.rights.keyspace;
            look_up(self.store, keyspace, &self.authorization.origins, actor, questions, lookup).await?;
        }
    }

    fn size(&self, key: &Key, value: &str) -> Result<(), Refusal> {
        check_size(&self.caller.actor, key, value.len()).map_err(|denial| self.refuse(denial.into()))
    }

    fn charge(&self, cost: Cost) -> Result<(), Refusal> {
        self.authorization.clients.charge(&self.caller.actor, cost).map_err(|refusal| self.refuse(refusal))
    }

    /// The key that a text names, below the prefix that is served.
    fn key(&self, text: &str, verb: &str) -> Result<Key, Refusal> {
        self.authorization.rights.keyspace.parse(text).ok_or_else(|| self.foreign(text, verb))
    }

    fn scope(&self, range: &KeyRange) -> Result<Scope, Refusal> {
        let keyspace = &self.authorization.rights.keyspace;
        match range {
            KeyRange::Key(text) => Ok(Scope::Key(self.key(text, "read")?)),
            KeyRange::Prefix(text) => match keyspace.parse_range(text) {
                Some(range) => Ok(Scope::Range(range)),
                None if parsing::is_within(keyspace, text) => Ok(Scope::All),
                None => Err(self.foreign(text, "read")),
            },
        }
    }

    /// The refusal of a key that is not one of the fleet's.
    fn foreign(&self, text: &str, verb: &str) -> Refusal {
        let prefix = self.authorization.rights.keyspace.prefix();
        let rule = format!("this hub serves the keys of Trigger below {prefix} only");
        self.forbid(&format!("{verb} '{}'", parsing::quoted(text)), &rule)
    }

    /// Logs and counts a refusal.
    fn refuse(&self, refusal: Refusal) -> Refusal {
        self.metrics.denied(self.kind, refusal.reason());
        if let Some(unlogged) = self.authorization.clients.may_log(&self.caller.actor) {
            tracing::warn!(
                certname = %self.caller.actor,
                peer = self.caller.address,
                kind = self.kind,
                reason = refusal.sentence,
                unlogged,
                "a request is denied"
            );
            audit::denied(self.caller, self.kind, &refusal.sentence);
        }
        refusal
    }
}
