//! Who is there: each agent's registration. How an agent keeps its own is in [`crate::claim`].

use std::collections::BTreeMap;

use trigger_core::identity::Certname;
use trigger_core::layout::{Layout, Place};
use trigger_core::status::NodeRecord;
use trigger_core::wire::Stored;

use trigger_store::store::{Entry, KeyRange, Store, StoreError};

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
    if certnames.len() > trigger_store::store::ORDERED_AT_MOST {
        return read_all(store, layout).await;
    }
    let keys: Vec<KeyRange> = certnames.iter().map(|certname| KeyRange::Key(layout.node(certname))).collect();
    Ok(records(layout, store.read(&keys).await?))
}

/// What entries tell of nodes; those that cannot be read are left out.
pub(crate) fn records(layout: &Layout, entries: Vec<Entry>) -> BTreeMap<Certname, NodeRecord> {
    let record = |entry: Entry| match layout.place(&entry.key)? {
        Place::Node { certname } => Some((certname, NodeRecord::from_wire(&entry.value).ok()?)),
        _ => None,
    };
    entries.into_iter().filter_map(record).collect()
}
