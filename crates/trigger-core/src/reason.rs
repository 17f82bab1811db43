//! Reasons: sentences that travel with an outcome or a record and say why something happened.

/// The longest reason that is repeated in a record of bounded size, in characters.
const MAX_REASON_CHARS: usize = 200;

/// The text in one line without control characters, cut to at most `max_chars` characters.
pub(crate) fn cleaned(text: &str, max_chars: usize) -> String {
    cut(&text.replace(char::is_control, " "), max_chars)
}

/// The words of an operator in one line without control characters, of bounded length; absent where nothing is said.
pub(crate) fn one_line(text: Option<&str>, max_chars: usize) -> Option<String> {
    let line = text.map(|text| text.replace(char::is_control, " "));
    let line = line.as_deref().map(str::trim).filter(|line| !line.is_empty());
    line.map(|line| cut(line, max_chars))
}

/// A reason cut to a length with which it can be repeated in a record of bounded size.
pub(crate) fn shortened(reason: &str) -> String {
    cut(reason, MAX_REASON_CHARS)
}

/// The text, of which at most `max_chars` characters are kept.
pub(crate) fn cut(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
