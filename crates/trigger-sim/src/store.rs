//! The simulated backend as its clients see it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_util::Stream;
use trigger_core::identity::Revision;
use trigger_store::store::{
    CasOutcome, Entry, KeyRange, MAX_ORDERED_ENTRIES, Store, StoreError, Watch, WatchEvent, replace_in_steps,
};

use crate::executor::Sim;
use crate::mail::{Client, Reply, Request};
use crate::process::Proc;
use crate::server::BACKEND;

/// One process's connection.
#[derive(Clone)]
pub(crate) struct SimStore {
    own: Proc,
}

impl SimStore {
    pub(crate) fn new(own: Proc) -> Self {
        Self { own }
    }

    /// Sends a request and returns its answer. Like any other effect, the process may die before it, and also once
    /// the answer has arrived.
    async fn ask(&self, request: Request) -> Reply {
        self.own.step("store: asked").await;
        let client = Client { process: self.own.id, machine: self.own.machine };
        let id = self.own.sim.with(|world| world.submit(client, request));
        let reply = Asked { sim: self.own.sim.clone(), id }.await;
        self.own.step("store: answered").await;
        reply
    }
}

impl Proc {
    /// Opens this process's connection to the backend.
    pub(crate) fn connect(&self) -> Arc<dyn Store> {
        Arc::new(SimStore::new(self.clone()))
    }
}

/// A request whose answer is on its way.
struct Asked {
    sim: Sim,
    id: u64,
}

impl Future for Asked {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        self.sim.with(|world| world.mail.poll(self.id, context.waker()))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.sim.with(|world| world.mail.forget(self.id));
    }
}

#[async_trait]
impl Store for SimStore {
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        match self.ask(Request::PutMany(entries)).await {
            Reply::PutMany(results) => results,
            other => unreachable!("{other:?} answers no put"),
        }
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        match self.ask(Request::DeleteMany(keys)).await {
            Reply::DeleteMany(result) => result,
            other => unreachable!("{other:?} answers no deletion"),
        }
    }

    async fn replace(
        &self,
        keys: Vec<String>,
        entries: Vec<(String, String)>,
    ) -> Result<Vec<Revision>, StoreError> {
        let fits = keys.len() + entries.len() <= MAX_ORDERED_ENTRIES;
        if !fits || !self.own.sim.with(|world| world.plan.has_transactions) {
            return replace_in_steps(self, keys, entries).await;
        }
        match self.ask(Request::Replace { keys, entries }).await {
            Reply::Replace(result) => result,
            other => unreachable!("{other:?} answers no replacement"),
        }
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        let request = Request::PutIfUnchanged { key: key.to_owned(), value: value.to_owned(), expected };
        match self.ask(request).await {
            Reply::PutIfUnchanged(result) => result,
            other => unreachable!("{other:?} answers no swap"),
        }
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        let has_prefix = |range: &KeyRange| matches!(range, KeyRange::Prefix(_));
        if ranges.len() > 1 && ranges.iter().any(has_prefix) {
            self.own.sim.with(|world| world.count("read again"));
        }
        match self.ask(Request::Read(ranges.to_vec())).await {
            Reply::Read(result) => result,
            other => unreachable!("{other:?} answers no read"),
        }
    }

    async fn watch(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
        match self.ask(Request::Watch(ranges)).await {
            Reply::Watch(result) => {
                result.map(|id| Box::pin(Watched { sim: self.own.sim.clone(), id }) as Watch)
            }
            other => unreachable!("{other:?} answers no watch"),
        }
    }

    fn address(&self) -> &str {
        BACKEND
    }
}

/// A watch in progress.
struct Watched {
    sim: Sim,
    id: u64,
}

impl Stream for Watched {
    type Item = Result<WatchEvent, StoreError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.sim.with(|world| world.server.take_watched(self.id, context.waker())) {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.sim.with(|world| world.server.drop_watch(self.id));
    }
}
