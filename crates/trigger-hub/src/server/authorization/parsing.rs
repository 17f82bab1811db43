//! Reads of a request what decides who may do it.

use trigger_core::authorization::{Actor, Value};
use trigger_core::delivery::Members;
use trigger_core::keyspace::{Key, Keyspace, SEPARATOR};
use trigger_core::run_log::LogRequest;
use trigger_core::wire::{Stored, WireError};

use crate::server::tls::Tls;

/// The value that `text` is, where the value decides who may write it. Signatures are for its readers: a hub is no
/// authority on what a node has said, only on who may store it.
pub(super) fn value(actor: &Actor, ca: Option<&Tls>, key: &Key, text: &str) -> Value {
    match key {
        Key::Members { .. } => parsed(text, |Members(members)| Value::Members(members.len())),
        Key::Certificate { certname, .. } if *certname == actor.certname => {
            let node = |stored| ca.and_then(|ca| ca.node_of(&stored));
            parsed(text, |stored| node(stored).map_or(Value::Other, Value::Certificate))
        }
        Key::Part { .. } => parsed(text, |part| Value::Part(Box::new(part))),
        Key::Delivery { .. } | Key::GroupDelivery { .. } => parsed(text, Value::Delivery),
        Key::LogRequest { .. } => {
            parsed(text, |request: LogRequest| Value::LogRequest { as_operator: request.as_operator })
        }
        Key::Cancellation { .. } | Key::GroupCancellation { .. } => {
            parsed(text, |cancellation| Value::Cancellation(Box::new(cancellation)))
        }
        Key::Hold { .. } => parsed(text, |order| Value::Hold(Box::new(order))),
        // A node may say of itself what it wants, also in words that are newer than this hub.
        Key::Outcome { certname, .. } if *certname != actor.certname => {
            parsed(text, |outcome| Value::Outcome(Box::new(outcome)))
        }
        _ => Value::Other,
    }
}

fn parsed<T: Stored>(text: &str, value: impl FnOnce(T) -> Value) -> Value {
    match T::from_wire(text) {
        Ok(stored) => value(stored),
        Err(WireError::TooNew { what, version }) => Value::Unreadable(format!(
            "the hub does not know {what} of version {version}: update trigger there"
        )),
        Err(WireError::Unreadable { .. }) => Value::Other,
    }
}

/// Whether all that begins with `text` is below the prefix of `keyspace`.
pub(super) fn is_within(keyspace: &Keyspace, text: &str) -> bool {
    text.strip_prefix(keyspace.prefix().as_str()).is_some_and(|rest| rest.starts_with(SEPARATOR))
}
