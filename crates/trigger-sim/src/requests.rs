//! The clients' requests to the backend, on their way there and back: they may be delayed, lost, answered without
//! being performed, performed without being answered, performed in part, or performed late.

use std::time::Duration;

use trigger_core::identity::Revision;
use trigger_store::store::{CasOutcome, MAX_ORDERED_ENTRIES, StoreError};

use crate::mail::{Client, Reply, Request};
use crate::server::{ambiguous, unreachable};
use crate::world::World;

impl World {
    /// Sends a request. Its answer arrives under the number that is returned.
    pub(crate) fn submit(&mut self, client: Client, request: Request) -> u64 {
        if matches!(request, Request::PutMany(_) | Request::Replace { .. }) {
            self.may_rewind_amid();
        }
        self.mail.next += 1;
        let id = self.mail.next;
        self.mail.waiting.insert(id, (None, None));
        let (there, back) = (self.latency(), self.latency());
        if !self.is_reachable(client.machine) {
            // The client gets an error at once, or waits for its timeout.
            let wait = if self.rng.bool() { there } else { request.timeout() };
            self.answer(client, id, wait, request.failed(unreachable));
            return id;
        }
        let chance = self.plan.bad_request;
        let sent_to = self.server.restores;
        if !self.strikes(chance) {
            self.after(there, move |world| {
                if world.server.restores == sent_to {
                    world.arrive_at_server(client, id, request, back);
                } else {
                    world.answer(client, id, back, request.failed(unreachable));
                }
            });
            return id;
        }
        let note = |world: &mut Self, what| world.fault(what, format_args!("r{id} of p{}", client.process.0));
        match (request.is_write(), self.rng.u8(..5)) {
            (true, 0) => {
                note(self, "write lost on its way");
                self.answer(client, id, request.timeout(), request.unanswered());
            }
            (true, 1) => {
                note(self, "write done and not answered");
                self.answer(client, id, request.timeout(), request.unanswered());
                self.after(there, move |world| world.perform_late(sent_to, client, &request));
            }
            (true, 2) => {
                note(self, "write done after its time was over");
                self.answer(client, id, request.timeout(), request.unanswered());
                let late = request.timeout() + Duration::from_millis(self.rng.u64(..20_000));
                self.after(late, move |world| world.perform_late(sent_to, client, &request));
            }
            (true, 3) if matches!(request, Request::PutMany(_) | Request::DeleteMany(_)) => {
                note(self, "write done by halves");
                self.after(there, move |world| {
                    let reply = world.perform_by_halves(client, &request);
                    world.answer(client, id, back, reply);
                });
            }
            _ => {
                note(self, "request refused for now");
                self.answer(client, id, there, request.failed(unreachable));
            }
        }
        id
    }

    /// Performs a request that has timed out at its client, if the backend has not been restored since: a connection
    /// does not survive a restore.
    fn perform_late(&mut self, sent_to: u32, client: Client, request: &Request) {
        if self.server.restores == sent_to {
            let _ = self.perform(client, request);
        }
    }

    fn arrive_at_server(&mut self, client: Client, id: u64, request: Request, back: Duration) {
        let patience = request.timeout();
        // The client died while its request was on its way: the request may arrive or not.
        let is_lost =
            !self.is_reachable(client.machine) || (!self.is_alive(client.process) && self.rng.bool());
        if is_lost {
            self.answer(client, id, patience, request.unanswered());
            return;
        }
        let count = match &request {
            Request::PutMany(entries) => entries.len(),
            _ => 0,
        };
        if (2..=MAX_ORDERED_ENTRIES).contains(&count) && self.faults_happen && self.rng.u8(..4) == 0 {
            // The writes become visible in their order, but not all at once.
            let Request::PutMany(mut entries) = request else { return };
            let rest = entries.split_off(self.rng.usize(1..count));
            let mut results = self.put_all(client, &entries);
            let pause = Duration::from_micros(self.rng.u64(..20_000));
            let sent_to = self.server.restores;
            self.after(pause, move |world| {
                if world.server.restores == sent_to {
                    results.extend(world.put_all(client, &rest));
                } else {
                    results.extend(rest.iter().map(|_| Err(ambiguous())));
                }
                world.answer(client, id, back, Reply::PutMany(results));
            });
            return;
        }
        let reply = self.perform(client, &request);
        if self.is_reachable(client.machine) {
            self.answer(client, id, back, reply);
        } else {
            self.answer(client, id, patience, request.unanswered());
        }
    }

    fn answer(&mut self, client: Client, id: u64, wait: Duration, reply: Reply) {
        self.after(wait, move |world| {
            let _ = client;
            if let Some((place, waker)) = world.mail.waiting.get_mut(&id) {
                *place = Some(reply);
                if let Some(waker) = waker.take() {
                    waker.wake();
                }
            }
        });
    }

    fn put_all(&mut self, client: Client, entries: &[(String, String)]) -> Vec<Result<Revision, StoreError>> {
        entries.iter().map(|(key, value)| Ok(self.put(client, key, value))).collect()
    }

    fn put(&mut self, client: Client, key: &str, value: &str) -> Revision {
        self.check_put(client, key, value);
        let revision = self.commit(key, Some(value));
        self.check_committed(key, value, revision);
        self.server.wrote(client.process, revision);
        Revision(revision)
    }

    fn remove(&mut self, client: Client, key: &str) {
        if self.server.entry(key).is_some() {
            self.check_delete(client, key);
        }
        let revision = self.delete(key);
        self.server.wrote(client.process, revision);
    }

    fn perform(&mut self, client: Client, request: &Request) -> Reply {
        if self.server.is_down {
            return request.unanswered();
        }
        match request {
            Request::PutMany(entries) if entries.len() > MAX_ORDERED_ENTRIES => {
                // The entries are written in portions, in any order.
                let mut portions: Vec<_> = entries.chunks(MAX_ORDERED_ENTRIES).enumerate().collect();
                self.rng.shuffle(&mut portions);
                let mut results: Vec<(usize, Vec<_>)> = portions
                    .into_iter()
                    .map(|(index, portion)| (index, self.put_all(client, portion)))
                    .collect();
                results.sort_by_key(|(index, _)| *index);
                Reply::PutMany(results.into_iter().flat_map(|(_, results)| results).collect())
            }
            Request::PutMany(entries) => Reply::PutMany(self.put_all(client, entries)),
            Request::DeleteMany(keys) => {
                keys.iter().for_each(|key| self.remove(client, key));
                Reply::DeleteMany(Ok(()))
            }
            Request::Replace { keys, entries } => {
                let revisions = self.put_all(client, entries).into_iter().collect();
                keys.iter().for_each(|key| self.remove(client, key));
                Reply::Replace(revisions)
            }
            Request::PutIfUnchanged { key, value, expected } => {
                Reply::PutIfUnchanged(Ok(match self.server.is_unchanged(key, *expected) {
                    Ok(()) => {
                        self.swapping = true;
                        let revision = self.put(client, key, value);
                        self.swapping = false;
                        CasOutcome::Written(revision)
                    }
                    Err(changed) => changed,
                }))
            }
            Request::Read(ranges) => {
                let revision = self.revision_to_read(client.process);
                Reply::Read(Ok(self.server.read_at(ranges, revision)))
            }
            Request::Watch(ranges) => {
                Reply::Watch(Ok(self.open_watch(client.process, client.machine, ranges.clone())))
            }
        }
    }

    /// Performs a write in part. Of up to [`MAX_ORDERED_ENTRIES`] entries it writes the first few; of more, any of
    /// them.
    fn perform_by_halves(&mut self, client: Client, request: &Request) -> Reply {
        if self.server.is_down {
            return request.unanswered();
        }
        match request {
            Request::PutMany(entries) => {
                let (ordered, first) =
                    (entries.len() <= MAX_ORDERED_ENTRIES, self.rng.usize(..=entries.len()));
                let mut results = Vec::new();
                for (index, (key, value)) in entries.iter().enumerate() {
                    let is_done = if ordered { index < first } else { self.rng.bool() };
                    let is_known = self.rng.bool();
                    if is_done {
                        let revision = self.put(client, key, value);
                        results.push(if is_known { Ok(revision) } else { Err(ambiguous()) });
                    } else {
                        results.push(Err(if is_known { unreachable() } else { ambiguous() }));
                    }
                }
                Reply::PutMany(results)
            }
            Request::DeleteMany(keys) => {
                for key in keys {
                    if self.rng.bool() {
                        self.remove(client, key);
                    }
                }
                Reply::DeleteMany(Err(ambiguous()))
            }
            _ => request.unanswered(),
        }
    }
}
