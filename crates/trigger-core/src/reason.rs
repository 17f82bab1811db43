//! Reasons: sentences that travel with an outcome or a record and say why something happened.

/// The longest reason that is repeated in a record of bounded size, in characters.
const MAX_REASON_CHARS: usize = 200;

/// The text in one line without control characters, cut to at most `max_chars` characters.
pub(crate) fn cleaned(text: &str, max_chars: usize) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut kept: String = chars.by_ref().take(max_chars).collect();
    if chars.next().is_some() {
        kept.push('…');
    }
    kept
}

/// A reason cut to a length with which it can be repeated in a record of bounded size.
pub(crate) fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(MAX_REASON_CHARS) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}
