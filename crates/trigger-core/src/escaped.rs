//! Texts from outside, as errors repeat them.

/// The most characters of a text that an error repeats.
const MAX_CHARS: usize = 80;

/// The text with control characters escaped, and shortened. Quotation marks stay.
pub fn escaped(text: &str) -> String {
    let shown: String = text.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(MAX_CHARS).is_some() { "…" } else { "" };
    format!("{}{more}", shown.replace("\\'", "'").replace("\\\"", "\""))
}
