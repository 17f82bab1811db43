//! Who is there: each agent's registration, which is also its claim on its certname (contract 11).
//!
//! A claim is a record whose holder renews a counter. A contender may take it over after seeing no change
//! for [`LEASE`] on its own clock; no clocks are compared, and no lease of the backend is needed.

use std::collections::BTreeMap;
use std::time::Duration;

use trigger_core::identity::{Certname, Revision};
use trigger_core::layout::{Layout, Place};
use trigger_core::status::NodeRecord;
use trigger_core::wire::Stored;

use crate::store::{Entry, KeyRange, Store, StoreError, Swap};

/// How often a holder renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(60);
/// How long a contender waits without seeing a renewal.
pub const LEASE: Duration = Duration::from_secs(180);
/// How long a holder that cannot renew still trusts its claim: well before a contender may take it.
pub const TRUST_FOR: Duration = Duration::from_secs(120);

/// What came of an attempt to take or renew a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Ours, written at this revision.
    Held(Revision),
    /// Another instance's, as far as we know alive.
    HeldBy {
        /// What it says of itself.
        record: Box<NodeRecord>,
        /// Its latest renewal.
        revision: Revision,
    },
}

/// Watches somebody else's claim for signs of life.
#[derive(Debug, Clone, Default)]
pub struct Contender {
    last_sign: Option<(Revision, Duration)>,
}

impl Contender {
    /// Whether the claim renewed last at `revision` may be taken over, `elapsed` being a clock that only
    /// goes forward.
    pub fn may_take_over(&mut self, revision: Revision, elapsed: Duration) -> bool {
        match self.last_sign {
            Some((known, since)) if known == revision => elapsed.saturating_sub(since) >= LEASE,
            _ => {
                self.last_sign = Some((revision, elapsed));
                false
            }
        }
    }
}

/// Tries to take or renew the claim on `certname` with `record`.
///
/// `previous` are the instances that ran from this state folder before: their claims are ours to continue.
pub async fn claim(
    store: &dyn Store,
    layout: &Layout,
    certname: &Certname,
    record: &NodeRecord,
    previous: &[String],
    contender: &mut Contender,
    elapsed: Duration,
) -> Result<Claim, StoreError> {
    let key = layout.node(certname);
    let value = record.to_wire();
    // One repetition: what we read may be stale, and the answer to the swap says what is there.
    let mut present = store.read(&[KeyRange::Key(key.clone())]).await?.into_iter().next();
    for _ in 0..2 {
        if let Some(holder) = present.as_ref().and_then(live_holder) {
            let ours = holder.instance == record.instance || previous.contains(&holder.instance);
            let revision = present.as_ref().map_or(Revision::default(), |entry| entry.revision);
            if !ours && !contender.may_take_over(revision, elapsed) {
                return Ok(Claim::HeldBy { record: Box::new(holder), revision });
            }
        }
        let expected = present.as_ref().map(|entry| entry.revision);
        match store.put_if_unchanged(&key, &value, expected).await? {
            Swap::Written(revision) => return Ok(Claim::Held(revision)),
            Swap::Changed(entry) => present = entry,
        }
    }
    Err(StoreError::Ambiguous {
        backend: store.address().to_owned(),
        detail: format!("the registration of {certname} changes under our hands"),
    })
}

/// The record in an entry; garbage under a node's key is nobody's claim and is overwritten.
fn live_holder(entry: &Entry) -> Option<NodeRecord> {
    NodeRecord::from_wire(&entry.value).ok()
}

/// Every registration that can be read.
pub async fn read_all(
    store: &dyn Store,
    layout: &Layout,
) -> Result<BTreeMap<Certname, NodeRecord>, StoreError> {
    let entries = store.read(&[KeyRange::Folder(layout.nodes())]).await?;
    Ok(records(layout, entries))
}

/// The registrations of some nodes. Reads them one by one while they are few, else all there are.
pub async fn read(
    store: &dyn Store,
    layout: &Layout,
    certnames: &[Certname],
) -> Result<BTreeMap<Certname, NodeRecord>, StoreError> {
    if certnames.len() > crate::store::ORDERED_AT_MOST {
        return read_all(store, layout).await;
    }
    let keys: Vec<KeyRange> = certnames.iter().map(|certname| KeyRange::Key(layout.node(certname))).collect();
    Ok(records(layout, store.read(&keys).await?))
}

fn records(layout: &Layout, entries: Vec<Entry>) -> BTreeMap<Certname, NodeRecord> {
    let record = |entry: Entry| match layout.place(&entry.key)? {
        Place::Node { certname } => Some((certname, NodeRecord::from_wire(&entry.value).ok()?)),
        _ => None,
    };
    entries.into_iter().filter_map(record).collect()
}
