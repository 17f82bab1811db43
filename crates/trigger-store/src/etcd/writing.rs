//! Writes: in transactions of as many operations as etcd takes, several in flight.

use std::collections::HashSet;
use std::sync::OnceLock;

use etcd_client::{Compare, CompareOp, KvClient, ResponseHeader, Txn, TxnOp, TxnOpResponse};
use futures_util::{StreamExt, stream};
use trigger_core::identity::Revision;

use super::connection::{Connections, RequestKind};
use super::failure::EtcdFailure;
use super::reading::{self, MAX_TRANSACTION_OPERATIONS};
use crate::store::{CasOutcome, StoreError};

/// Below etcd's default `--max-request-bytes`, 1.5 MiB, with room for what protobuf and raft add.
const MAX_TRANSACTION_BYTES: usize = 1 << 20;
/// An upper bound of what an operation occupies beyond its key and value.
const OPERATION_OVERHEAD_BYTES: usize = 32;
/// How many transactions are sent before the first is answered. More would only delay each answer, since the server
/// commits them in batches.
const MAX_TRANSACTIONS_IN_FLIGHT: usize = 8;

enum Write {
    Put(String, String),
    Delete(String),
}

impl Write {
    fn key(&self) -> &str {
        let (Self::Put(key, _) | Self::Delete(key)) = self;
        key
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len() + OPERATION_OVERHEAD_BYTES,
            Self::Delete(key) => key.len() + OPERATION_OVERHEAD_BYTES,
        }
    }

    fn operation(&self) -> TxnOp {
        match self {
            Self::Put(key, value) => TxnOp::put(key.as_str(), value.as_str(), None),
            Self::Delete(key) => TxnOp::delete(key.as_str(), None),
        }
    }
}

pub(super) async fn put_many(
    connections: &Connections,
    entries: Vec<(String, String)>,
) -> Vec<Result<Revision, StoreError>> {
    let writes = entries.into_iter().map(|(key, value)| Write::Put(key, value)).collect();
    let results = write_many(connections, writes).await.into_iter();
    results
        .map(|result| result.map_err(|failure| connections.error(failure, RequestKind::Repeatable)))
        .collect()
}

pub(super) async fn delete_many(connections: &Connections, keys: Vec<String>) -> Result<(), StoreError> {
    let results = write_many(connections, keys.into_iter().map(Write::Delete).collect()).await;
    let result: Result<Vec<_>, _> = results.into_iter().collect();
    result.map(drop).map_err(|failure| connections.error(failure, RequestKind::Repeatable))
}

/// Writes entries and deletes keys in one transaction, if one takes all of it.
pub(super) async fn replace_at_once(
    connections: &Connections,
    keys: &[String],
    entries: &[(String, String)],
) -> Option<Result<Vec<Revision>, StoreError>> {
    let puts = entries.iter().map(|(key, value)| Write::Put(key.clone(), value.clone()));
    let mut chunks = chunks(puts.chain(keys.iter().cloned().map(Write::Delete)).collect());
    let transaction = chunks.pop().filter(|_| chunks.is_empty())?;
    let written = write(connections, &transaction).await;
    let error = |failure| connections.error(failure, RequestKind::Repeatable);
    Some(written.map(|revision| vec![revision; entries.len()]).map_err(error))
}

pub(super) async fn compare_and_swap(
    connections: &Connections,
    key: &str,
    value: &str,
    expected: Option<Revision>,
) -> Result<CasOutcome, StoreError> {
    // An absent key's revision is zero to etcd; a revision it cannot hold equals none.
    let expected = expected.map_or(0, |revision| i64::try_from(revision.0).unwrap_or(i64::MAX));
    let swap = || {
        Txn::new()
            .when([Compare::mod_revision(key, CompareOp::Equal, expected)])
            .and_then([TxnOp::put(key, value, None)])
            .or_else([TxnOp::get(key, None)])
    };
    let answer =
        connections.ask(RequestKind::Once, |mut client| async move { client.txn(swap()).await }).await;
    let answer = answer.map_err(|failure| connections.error(failure, RequestKind::Once))?;
    if answer.succeeded() {
        return Ok(CasOutcome::Written(committed_at(answer.header())));
    }
    let present = answer.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Get(mut range) => range.take_kvs().pop(),
        _ => None,
    });
    Ok(CasOutcome::Changed(present.as_ref().map(reading::entry)))
}

/// One answer for each, in order.
async fn write_many(connections: &Connections, writes: Vec<Write>) -> Vec<Result<Revision, EtcdFailure>> {
    let gave_up = OnceLock::new();
    let chunks = stream::iter(chunks(writes));
    let results = chunks.map(|chunk| write_chunk(connections, chunk, &gave_up));
    results.buffered(MAX_TRANSACTIONS_IN_FLIGHT).collect::<Vec<_>>().await.concat()
}

async fn write_chunk(
    connections: &Connections,
    chunk: Vec<Write>,
    gave_up: &OnceLock<EtcdFailure>,
) -> Vec<Result<Revision, EtcdFailure>> {
    // Ten thousand keys must not wait for one time-out each.
    if let Some(why) = gave_up.get() {
        return vec![Err(why.clone()); chunk.len()];
    }
    let give_up = |failure: &EtcdFailure| {
        if let EtcdFailure::RetryOtherMember(detail)
        | EtcdFailure::Indeterminate(detail)
        | EtcdFailure::ClusterBlocked(detail) = failure
        {
            let _ = gave_up.set(EtcdFailure::ClusterBlocked(detail.clone()));
        }
        if let EtcdFailure::Full(_) = failure {
            let _ = gave_up.set(failure.clone());
        }
    };
    let singly = |failure: &EtcdFailure| match failure {
        // One operation is refused; the others are written on their own.
        EtcdFailure::Denied(_) | EtcdFailure::Permanent(_) => true,
        // A full etcd refuses every transaction, even one that only deletes, but accepts a plain delete.
        EtcdFailure::Full(_) => matches!(chunk[0], Write::Delete(_)),
        _ => false,
    };
    match write(connections, &chunk).await {
        Ok(revision) => vec![Ok(revision); chunk.len()],
        Err(failure) if chunk.len() > 1 && singly(&failure) => {
            let mut results = Vec::with_capacity(chunk.len());
            for single in chunk.chunks(1) {
                results.push(match gave_up.get() {
                    Some(why) => Err(why.clone()),
                    None => write(connections, single).await.inspect_err(give_up),
                });
            }
            results
        }
        Err(failure) => {
            give_up(&failure);
            vec![Err(failure); chunk.len()]
        }
    }
}

/// One transaction, or one plain delete.
async fn write(connections: &Connections, chunk: &[Write]) -> Result<Revision, EtcdFailure> {
    if let [Write::Delete(key)] = chunk {
        let request = |mut client: KvClient| async move { client.delete(key.as_str(), None).await };
        let answer = connections.ask(RequestKind::Repeatable, request).await?;
        return Ok(committed_at(answer.header()));
    }
    let request = |mut client: KvClient| {
        let transaction = Txn::new().and_then(chunk.iter().map(Write::operation).collect::<Vec<_>>());
        async move { client.txn(transaction).await }
    };
    let answer = connections.ask(RequestKind::Repeatable, request).await?;
    Ok(committed_at(answer.header()))
}

fn committed_at(header: Option<&ResponseHeader>) -> Revision {
    reading::revision(header.map_or(0, ResponseHeader::revision))
}

/// Cuts writes into portions that etcd accepts as one transaction each, in which no key may be written twice.
fn chunks(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut chunks = Vec::new();
    let mut chunk: Vec<Write> = Vec::new();
    let mut keys = HashSet::new();
    let mut bytes = 0;
    for write in writes {
        let fits = chunk.len() < MAX_TRANSACTION_OPERATIONS
            && bytes + write.bytes() <= MAX_TRANSACTION_BYTES
            && !keys.contains(write.key());
        if !fits && !chunk.is_empty() {
            chunks.push(std::mem::take(&mut chunk));
            keys.clear();
            bytes = 0;
        }
        bytes += write.bytes();
        keys.insert(write.key().to_owned());
        chunk.push(write);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(writes: Vec<Write>, expected: &[usize]) {
        let sizes: Vec<_> = chunks(writes).iter().map(Vec::len).collect();
        assert_eq!(sizes, expected);
    }

    fn puts(count: usize, bytes: usize) -> Vec<Write> {
        (0..count).map(|n| Write::Put(n.to_string(), "x".repeat(bytes))).collect()
    }

    #[test]
    fn a_chunk_is_what_one_transaction_takes() {
        check(puts(0, 1), &[]);
        check(puts(128, 1), &[128]);
        check(puts(300, 1), &[128, 128, 44]);
        check(puts(5, 400 << 10), &[2, 2, 1]);
        check(puts(2, 3 << 20), &[1, 1]);
        check(["a", "b", "a"].map(|key| Write::Delete(key.to_owned())).into(), &[2, 1]);
    }
}
