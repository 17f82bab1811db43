//! Who is there: each agent's registration. How an agent keeps its own is in [`crate::claim`].

use std::collections::BTreeMap;

use trigger_core::identity::Certname;
use trigger_core::keyspace::{Key, Keyspace};
use trigger_core::node::NodeRecord;
use trigger_core::wire::Stored;

use trigger_store::store::{Entry, KeyRange, Store, StoreError};

/// Every registration that can be read.
pub async fn read_all(
    store: &dyn Store,
    keyspace: &Keyspace,
) -> Result<BTreeMap<Certname, NodeRecord>, StoreError> {
    let entries = store.read(&[KeyRange::Prefix(keyspace.nodes())]).await?;
    Ok(records(keyspace, entries))
}

/// The registrations of some nodes. Reads them one by one while they are few, else all there are.
pub async fn read(
    store: &dyn Store,
    keyspace: &Keyspace,
    certnames: &[Certname],
) -> Result<BTreeMap<Certname, NodeRecord>, StoreError> {
    if certnames.len() > trigger_store::store::MAX_ORDERED_ENTRIES {
        return read_all(store, keyspace).await;
    }
    let keys: Vec<KeyRange> =
        certnames.iter().map(|certname| KeyRange::Key(keyspace.node(certname))).collect();
    Ok(records(keyspace, store.read(&keys).await?))
}

/// What entries tell of nodes; those that cannot be read are left out.
pub(crate) fn records(keyspace: &Keyspace, entries: Vec<Entry>) -> BTreeMap<Certname, NodeRecord> {
    let record = |entry: Entry| match keyspace.place(&entry.key)? {
        Key::Node { certname } => Some((certname, NodeRecord::from_wire(&entry.value).ok()?)),
        _ => None,
    };
    entries.into_iter().filter_map(record).collect()
}
