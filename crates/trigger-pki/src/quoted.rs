//! Names from other machines' certificates, as errors show them.

/// The most characters of a name that an error repeats.
const MAX_CHARS: usize = 100;

/// The text with control characters escaped, and shortened.
pub(crate) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(MAX_CHARS).is_some() { "…" } else { "" };
    format!("{}{more}", shown.replace("\\'", "'").replace("\\\"", "\""))
}
