//! Sentences that travel with an outcome or a record: why something happened, for people to read.

/// Of a sentence that is told once more, in characters.
const MAX_REASON_CHARS: usize = 200;

/// A sentence as it is told once more, in a place that must not grow with it.
pub(crate) fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(MAX_REASON_CHARS) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}
