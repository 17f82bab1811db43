//! The checks of each request by the certname of its client (C13), before anything is stored.
//!
//! [`trigger_core::authorization`] decides. This module finds out what it has to know of the store, holds the decision
//! true until the write is stored, and logs and counts what was denied. A plain hub, which only its own machine reaches,
//! knows no certnames and checks nothing.

mod clients;
mod event_locks;
mod latest;
mod look_up;
mod parsing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trigger_core::authorization::{
    Action, Cost, Denial, Operators, Progress, Scope, Value, authorize, check_size,
};
use trigger_core::event::Part;
use trigger_core::holds::HoldOrder;
use trigger_core::identity::{Certname, Revision};
use trigger_core::keyspace::{Key, Keyspace};
use trigger_store::store::KeyRange;

use self::clients::Clients;
use self::event_locks::EventLocks;
pub(super) use self::event_locks::Guards;
use self::look_up::{KnownEvents, Lookup, look_up};
use super::audit;
use super::caller::Caller;
use super::clock::now;
use super::limits::quoted;
use super::metrics::Metrics;
use super::refusal::Refusal;
use super::tls::Tls;
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
pub(super) struct Authorization {
    rights: Rights,
    /// By whose word a certificate is a node's; absent in tests that need none.
    ca: Option<Arc<Tls>>,
    known: KnownEvents,
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
    ordered: Vec<(Certname, HoldOrder)>,
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

/// What a client may see of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// It may read it.
    Whole,
    /// It may ask, and nothing was stored.
    Nothing,
    /// It may not ask.
    Denied,
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
    pub(super) fn new(rights: Rights, ca: Option<Arc<Tls>>) -> Self {
        Self {
            rights,
            ca,
            known: KnownEvents::default(),
            clients: Clients::default(),
            locks: EventLocks::default(),
        }
    }

    /// By what an operator is recognised.
    pub(super) fn operators(&self) -> &Operators {
        &self.rights.operators
    }

    /// Forgets what is remembered of events, because a sweep has removed some.
    pub(super) fn forget_events(&self) {
        self.known.forget();
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
        let (mut actions, mut lookup, mut fired) = (Vec::new(), Lookup::default(), Vec::new());
        let mut ordered = Vec::new();
        let mut costs = Vec::new();
        for (key, (text_of_key, text)) in keys.iter().zip(&entries) {
            self.size(key, text)?;
            let value = parsing::value(&self.caller.actor, self.authorization.ca.as_deref(), key, text);
            costs.push((key, text_of_key.len() + text.len(), value.targets()));
            if let (Key::Part { event, index }, Value::Part(part)) = (key, &value) {
                lookup.facts.offer(*event, *index, (**part).clone());
                fired.push((**part).clone());
            }
            if let (Key::Hold { certname }, Value::Hold(order)) = (key, &value) {
                ordered.push((certname.clone(), (**order).clone()));
            }
            actions.push(Action::Put { key: key.clone(), value });
        }
        let (verdicts, guards) = match self.admit(&keys, &actions, &mut lookup, Cost::of(costs)).await {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.audit_refused(&fired, &refusal);
                return Err(refusal);
            }
        };
        let mut admitted =
            AdmittedPut { entries: Vec::new(), kept: BTreeMap::new(), fired, ordered, _guards: guards };
        for (index, ((entry, key), verdict)) in entries.into_iter().zip(keys).zip(verdicts).enumerate() {
            match (verdict, lookup.outcome(&key)) {
                (Progress::KeepsStored, Some(revision)) => drop(admitted.kept.insert(index, revision)),
                _ => admitted.entries.push(entry),
            }
        }
        Ok(admitted)
    }

    /// Decides about writes and charges them. The locks are taken only for what would be allowed without them, so that no
    /// client delays others by asking for what it may not do.
    async fn admit(
        &self,
        keys: &[Key],
        actions: &[Action],
        lookup: &mut Lookup,
        cost: Cost,
    ) -> Result<(Vec<Progress>, Guards), Refusal> {
        let mut verdicts = self.decide(actions, lookup).await?;
        let guards = self.authorization.locks.acquire(&self.caller.actor.certname, keys).await;
        if !guards.is_empty() {
            lookup.forget_stored();
            verdicts = self.decide(actions, lookup).await?;
        }
        self.charge(cost)?;
        Ok((verdicts, guards))
    }

    /// Reports the parts of events that were not stored, as far as denials of this client are logged.
    fn audit_refused(&self, fired: &[Part], refusal: &Refusal) {
        for part in fired {
            if let Some(unlogged) = self.authorization.clients.may_log(&self.caller.actor) {
                audit::refused(self.caller, part, &refusal.sentence, unlogged);
            }
        }
    }

    /// Reports the events that a put has fired, and the orders to nodes.
    pub(super) fn stored(&self, put: &AdmittedPut) {
        put.fired.iter().for_each(|part| audit::accepted(self.caller, part));
        put.ordered.iter().for_each(|(node, order)| audit::ordered(self.caller, node, order));
    }

    /// Checks a compare-and-swap. What is returned has to be held until it is done.
    pub(super) async fn compare_and_swap(&self, key: &str, value: &str) -> Result<Guards, Refusal> {
        let size = key.len() + value.len();
        let key = self.key(key, "write")?;
        self.size(&key, value)?;
        let actions = [Action::CompareAndSwap { key: key.clone() }];
        let cost = Cost::of([(&key, size, 0)]);
        let keys = std::slice::from_ref(&key);
        let (_, guards) = self.admit(keys, &actions, &mut Lookup::default(), cost).await?;
        Ok(guards)
    }

    /// Checks a delete.
    pub(super) async fn delete(&self, keys: &[String]) -> Result<(), Refusal> {
        let action = |key: &String| Ok(Action::Delete { key: self.key(key, "delete")? });
        let actions = keys.iter().map(action).collect::<Result<Vec<_>, Refusal>>()?;
        self.decide(&actions, &mut Lookup::default()).await.map(drop)
    }

    /// Checks a read. Returns what to read: each range is at its place, and one of which nothing may be shown is empty.
    pub(super) async fn read(&self, ranges: Vec<KeyRange>) -> Result<Vec<KeyRange>, Refusal> {
        let action = |range| Ok(Action::Read(self.scope(range)?));
        let actions = ranges.iter().map(action).collect::<Result<Vec<_>, Refusal>>()?;
        let verdicts = self.decide(&actions, &mut Lookup::default()).await?;
        let shown = ranges.into_iter().zip(verdicts).map(|(range, verdict)| match verdict {
            // No key is empty.
            Progress::ShowsNothing => KeyRange::Key(String::new()),
            _ => range,
        });
        Ok(shown.collect())
    }

    /// Checks a watch.
    pub(super) async fn watch(&self, ranges: &[KeyRange]) -> Result<(), Refusal> {
        let action = |range| Ok(Action::Watch(self.scope(range)?));
        let actions = ranges.iter().map(action).collect::<Result<Vec<_>, Refusal>>()?;
        self.decide(&actions, &mut Lookup::default()).await.map(drop)
    }

    /// What the client may read of each of these scopes.
    pub(super) async fn may_read(&self, scopes: Vec<Scope>) -> Result<Vec<Sight>, Refusal> {
        let actions: Vec<Action> = scopes.into_iter().map(Action::Read).collect();
        let decided = self.try_decide(&actions, &mut Lookup::default()).await?;
        let sight = |verdict| match verdict {
            Ok(Progress::ShowsNothing) => Sight::Nothing,
            Ok(_) => Sight::Whole,
            Err(_) => Sight::Denied,
        };
        Ok(decided.into_iter().map(sight).collect())
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
            look_up(self.store, keyspace, &self.authorization.known, actor, questions, lookup).await?;
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
        self.forbid(&format!("{verb} '{}'", quoted(text)), &rule)
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
            audit::denied(self.caller, self.kind, &refusal.sentence, unlogged);
        }
        refusal
    }
}
