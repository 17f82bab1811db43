//! What became of a node that was moved over to another certname: `trigger rename`.

use serde::Serialize;
use trigger_core::identity::{Certname, EventId};

use super::text::{Text, texts};

/// What `trigger rename` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Renamed {
    /// The state directory.
    state_dir: String,
    /// The certname that the directory belonged to.
    from: Text<Certname>,
    /// The certname that it belongs to now; the same one if there was nothing to do.
    to: Text<Certname>,
    /// The events whose deliveries to the earlier certname have not ended. They stay in the backend until they expire.
    left: Vec<Text<EventId>>,
    /// What the reader should know besides.
    pub(crate) warnings: Vec<String>,
}

impl Renamed {
    pub(crate) fn new(
        state_dir: String,
        from: &Certname,
        to: &Certname,
        left: Vec<EventId>,
        warnings: Vec<String>,
    ) -> Self {
        Self { state_dir, from: Text(from.clone()), to: Text(to.clone()), left: texts(&left), warnings }
    }

    /// The same for people.
    pub(crate) fn sentence(&self) -> String {
        let Self { state_dir, from, to, left, .. } = self;
        let (from, to) = (from.0.as_str(), to.0.as_str());
        if from == to {
            return format!("{state_dir} belongs to {to} already.");
        }
        let moved = format!("{state_dir} belongs to {to} now; it belonged to {from}.");
        if left.is_empty() {
            return moved;
        }
        let left: Vec<String> = left.iter().map(|event| format!("\n  {}", event.0)).collect();
        format!(
            "{moved}\nThese events wait for {from} and expire there; fire again at {to} what it still needs:{}",
            left.concat()
        )
    }
}
