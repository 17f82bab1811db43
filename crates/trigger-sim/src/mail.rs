//! Requests and answers between the clients and the backend.

use std::collections::BTreeMap;
use std::task::{Poll, Waker};
use std::time::Duration;

use trigger_core::identity::Revision;
use trigger_store::store::{CasOutcome, Entry, KeyRange, StoreError};

use crate::server::{ambiguous, unreachable};
use crate::tasks::ProcessId;

/// The clients' own timeouts.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A request to the backend.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    PutMany(Vec<(String, String)>),
    DeleteMany(Vec<String>),
    /// Writes entries in the place of keys, at once.
    Replace {
        keys: Vec<String>,
        entries: Vec<(String, String)>,
    },
    PutIfUnchanged {
        key: String,
        value: String,
        expected: Option<Revision>,
    },
    Read(Vec<KeyRange>),
    Watch(Vec<KeyRange>),
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) enum Reply {
    PutMany(Vec<Result<Revision, StoreError>>),
    DeleteMany(Result<(), StoreError>),
    Replace(Result<Vec<Revision>, StoreError>),
    PutIfUnchanged(Result<CasOutcome, StoreError>),
    Read(Result<Vec<Entry>, StoreError>),
    Watch(Result<u64, StoreError>),
}

impl Request {
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self, Self::Read(_) | Self::Watch(_))
    }

    /// Returns the answer that reports an error.
    pub(crate) fn failed(&self, error: impl Fn() -> StoreError) -> Reply {
        match self {
            Self::PutMany(entries) => Reply::PutMany(entries.iter().map(|_| Err(error())).collect()),
            Self::DeleteMany(_) => Reply::DeleteMany(Err(error())),
            Self::Replace { .. } => Reply::Replace(Err(error())),
            Self::PutIfUnchanged { .. } => Reply::PutIfUnchanged(Err(error())),
            Self::Read(_) => Reply::Read(Err(error())),
            Self::Watch(_) => Reply::Watch(Err(error())),
        }
    }

    /// Returns the answer to a request that timed out: a write may or may not have happened, a read has simply
    /// failed.
    pub(crate) fn unanswered(&self) -> Reply {
        if self.is_write() { self.failed(ambiguous) } else { self.failed(unreachable) }
    }

    pub(crate) fn timeout(&self) -> Duration {
        if self.is_write() { WRITE_TIMEOUT } else { READ_TIMEOUT }
    }
}

/// The process that sends a request, with its machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) process: ProcessId,
    pub(crate) machine: usize,
}

/// Answers on their way to the tasks that wait for them.
#[derive(Default)]
pub(crate) struct Mail {
    pub(crate) waiting: BTreeMap<u64, (Option<Reply>, Option<Waker>)>,
    pub(crate) next: u64,
}

impl Mail {
    pub(crate) fn poll(&mut self, id: u64, waker: &Waker) -> Poll<Reply> {
        match self.waiting.get_mut(&id) {
            Some((reply @ Some(_), _)) => match reply.take() {
                Some(reply) => Poll::Ready(reply),
                None => Poll::Pending,
            },
            Some((None, known)) => {
                *known = Some(waker.clone());
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }

    pub(crate) fn forget(&mut self, id: u64) {
        self.waiting.remove(&id);
    }
}
