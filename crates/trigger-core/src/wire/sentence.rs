//! Sentences that another node wrote for people. Nothing in them is a command to their terminals (C8).

use serde::Deserialize;
use serde::de::Deserializer;

/// Reads a sentence that another node wrote, without the control characters that could command a terminal.
pub(super) fn sentence<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(harmless)
}

/// Like [`sentence`], for one that may be absent.
pub(super) fn optional_sentence<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(harmless))
}

fn harmless(mut text: String) -> String {
    let is_command = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_command) {
        text = text.replace(is_command, "\u{fffd}");
    }
    text
}
