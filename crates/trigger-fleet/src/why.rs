//! Why a node ran: reads what the core asks for, a level of the chain at a time.

use trigger_core::delivery::DeliveryOutcome;
use trigger_core::event::Part;
use trigger_core::keyspace::{Key, Keyspace};
use trigger_core::node::NodeRecord;
use trigger_core::run::history::RunHistory;
use trigger_core::why::{self, ExplainError, Explanation, Facts, Progress, Question, Wanted};
use trigger_core::wire::Stored;

use trigger_store::store::{Entry, KeyRange, Store, StoreError};

/// Keys read at once: what every backend takes in one request.
const KEYS_PER_READ: usize = 512;

/// Explains a run or an event, from anywhere in the fleet. Reads single keys only: neither the size of the
/// fleet nor that of an event matters.
pub async fn explain(
    store: &dyn Store,
    keyspace: &Keyspace,
    question: &Question,
) -> Result<Result<Explanation, ExplainError>, StoreError> {
    let mut facts = Facts::default();
    loop {
        match why::explain(question, &facts) {
            Ok(Progress::Read(wanted)) => read(store, keyspace, wanted, &mut facts).await?,
            Ok(Progress::Done(explanation)) => return Ok(Ok(explanation)),
            Err(not_told) => return Ok(Err(not_told)),
        }
    }
}

async fn read(
    store: &dyn Store,
    keyspace: &Keyspace,
    wanted: Wanted,
    facts: &mut Facts,
) -> Result<(), StoreError> {
    let nodes = wanted.nodes.iter().flat_map(|node| [keyspace.node(node), keyspace.runs(node)]);
    // Every part tells of the event; only its targets differ.
    let events = wanted.events.iter().map(|event| keyspace.part(*event, 0));
    let ends = wanted.ends.iter().map(|(event, node)| keyspace.outcome(*event, node));
    let keys: Vec<KeyRange> = nodes.chain(events).chain(ends).map(KeyRange::Key).collect();

    // What is not there is known too, and not asked for again.
    facts.nodes.extend(wanted.nodes.into_iter().map(|node| (node, Default::default())));
    facts.events.extend(wanted.events.into_iter().map(|event| (event, None)));
    facts.ends.extend(wanted.ends.into_iter().map(|key| (key, None)));
    for keys in keys.chunks(KEYS_PER_READ) {
        for entry in store.read(keys).await? {
            take_in(keyspace, &entry, facts);
        }
    }
    Ok(())
}

/// What cannot be read, be it garbage or of a newer version, counts as not there.
fn take_in(keyspace: &Keyspace, entry: &Entry, facts: &mut Facts) {
    let text = &entry.value;
    match keyspace.place(&entry.key) {
        Some(Key::Node { certname }) => {
            facts.nodes.entry(certname).or_default().record = NodeRecord::from_wire(text).ok();
        }
        Some(Key::Runs { certname }) => {
            facts.nodes.entry(certname).or_default().history =
                RunHistory::from_wire(text).unwrap_or_default();
        }
        Some(Key::Part { event, .. }) => {
            facts.events.insert(event, Part::from_wire(text).ok().map(|part| part.event));
        }
        Some(Key::Outcome { event, certname }) => {
            facts.ends.insert((event, certname), DeliveryOutcome::from_wire(text).ok());
        }
        _ => {}
    }
}
