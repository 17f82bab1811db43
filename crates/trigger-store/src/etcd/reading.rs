//! Reads: any number of ranges and keys, all of them as they were at one revision.

use etcd_client::{GetOptions, GetResponse, KeyValue, KvClient, ResponseHeader, Txn, TxnOp, TxnOpResponse};
use trigger_core::identity::Revision;

use super::connection::{Connections, RequestKind};
use super::failure::EtcdFailure;
use crate::store::{Entry, KeyRange, retain_first_of_each_key};

/// etcd's default `--max-txn-ops`.
pub(super) const MAX_TRANSACTION_OPERATIONS: usize = 128;
/// How many keys are read at a time; fewer when their values are too large for one answer.
const MAX_ANSWER_KEYS: usize = 1024;
/// By which factor the number of keys is then reduced.
const SHRINK_FACTOR: usize = 8;
/// How often a read is begun again because a compaction came between its pages.
const MAX_COMPACTED_READS: usize = 3;

/// Entries as they were at one revision.
pub(super) struct Snapshot {
    pub(super) entries: Vec<Entry>,
    pub(super) revision: i64,
}

/// Reads `ranges`, linearizably, at one revision; the values are empty where only keys are asked for.
pub(super) async fn read(
    connections: &Connections,
    ranges: &[KeyRange],
    keys_only: bool,
) -> Result<Snapshot, EtcdFailure> {
    let mut max_keys = MAX_ANSWER_KEYS;
    let mut compactions = 0;
    loop {
        match read_at_once(connections, ranges, keys_only, max_keys).await {
            Err(EtcdFailure::TooLarge) if max_keys > 1 => max_keys /= SHRINK_FACTOR.min(max_keys),
            Err(EtcdFailure::Compacted) if compactions < MAX_COMPACTED_READS => compactions += 1,
            result => return result,
        }
    }
}

async fn read_at_once(
    connections: &Connections,
    ranges: &[KeyRange],
    keys_only: bool,
    max_keys: usize,
) -> Result<Snapshot, EtcdFailure> {
    let mut snapshot = Snapshot { entries: Vec::new(), revision: 0 };
    for ranges in ranges.chunks(MAX_TRANSACTION_OPERATIONS.min(max_keys)) {
        let limit = max_keys / ranges.len();
        let bounds: Vec<Bounds> =
            ranges.iter().map(|range| Bounds { keys_only, ..Bounds::of(range) }).collect();
        let (revision, pages) = first_pages(connections, &bounds, limit, snapshot.revision).await?;
        snapshot.revision = revision;
        for (mut bounds, mut page) in bounds.into_iter().zip(pages) {
            loop {
                snapshot.entries.extend(page.kvs().iter().map(entry));
                let Some(last) = page.kvs().last().filter(|_| page.more()) else { break };
                bounds.begin_after(last.key());
                page = next_page(connections, &bounds, max_keys, revision).await?;
            }
        }
    }
    if ranges.len() > 1 {
        retain_first_of_each_key(&mut snapshot.entries);
    }
    Ok(snapshot)
}

/// The beginning of each range, at `revision` or (when that is zero) now; and the revision it was read at.
async fn first_pages(
    connections: &Connections,
    ranges: &[Bounds],
    limit: usize,
    revision: i64,
) -> Result<(i64, Vec<GetResponse>), EtcdFailure> {
    // One range needs no transaction, whose answers the client library copies.
    if let [range] = ranges {
        let page = next_page(connections, range, limit, revision).await?;
        let read_at = page.header().map_or(0, ResponseHeader::revision);
        return Ok((if revision == 0 { read_at } else { revision }, vec![page]));
    }
    let request = |mut client: KvClient| {
        let get = |range: &Bounds| TxnOp::get(range.begin.clone(), Some(range.options(limit, revision)));
        let transaction = Txn::new().and_then(ranges.iter().map(get).collect::<Vec<_>>());
        async move { client.txn(transaction).await }
    };
    let answer = connections.ask(RequestKind::Read, request).await?;
    let read_at = answer.header().map_or(0, ResponseHeader::revision);
    let pages = answer.op_responses().into_iter().filter_map(|response| match response {
        TxnOpResponse::Get(page) => Some(page),
        _ => None,
    });
    Ok((if revision == 0 { read_at } else { revision }, pages.collect()))
}

async fn next_page(
    connections: &Connections,
    range: &Bounds,
    limit: usize,
    revision: i64,
) -> Result<GetResponse, EtcdFailure> {
    let request = |mut client: KvClient| {
        let (begin, options) = (range.begin.clone(), range.options(limit, revision));
        async move { client.get(begin, Some(options)).await }
    };
    connections.ask(RequestKind::Read, request).await
}

/// A range as etcd writes it: from `begin` to before `end`, or only `begin` where `end` is empty.
pub(super) struct Bounds {
    pub(super) begin: Vec<u8>,
    pub(super) end: Vec<u8>,
    keys_only: bool,
}

impl Bounds {
    pub(super) fn of(range: &KeyRange) -> Self {
        match range {
            KeyRange::Key(key) => Self::new(key.clone().into_bytes(), Vec::new()),
            KeyRange::Prefix(prefix) => {
                let begin = prefix.clone().into_bytes();
                let mut end = begin.clone();
                // UTF-8 has no byte 255, so the last one can be followed. The empty prefix is everything,
                // which etcd writes as two zero bytes.
                match end.last_mut() {
                    Some(last) => *last += 1,
                    None => return Self::new(vec![0], vec![0]),
                }
                Self::new(begin, end)
            }
        }
    }

    fn new(begin: Vec<u8>, end: Vec<u8>) -> Self {
        Self { begin, end, keys_only: false }
    }

    fn begin_after(&mut self, key: &[u8]) {
        self.begin = [key, &[0]].concat();
    }

    fn options(&self, limit: usize, revision: i64) -> GetOptions {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let options =
            GetOptions::new().with_range(self.end.clone()).with_limit(limit).with_revision(revision);
        if self.keys_only { options.with_keys_only() } else { options }
    }
}

/// A pair as the store hands it over.
pub(super) fn entry(pair: &KeyValue) -> Entry {
    Entry {
        key: String::from_utf8_lossy(pair.key()).into_owned(),
        value: String::from_utf8_lossy(pair.value()).into_owned(),
        revision: revision(pair.mod_revision()),
    }
}

/// etcd's revisions are signed and never negative.
pub(super) fn revision(revision: i64) -> Revision {
    Revision(revision.unsigned_abs())
}
