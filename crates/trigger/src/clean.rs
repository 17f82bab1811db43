//! Makes text from outside safe to show: what other machines, Puppet, files and the environment have put into names,
//! reasons and errors must neither control a terminal nor look like another line of the output or of the log.
//!
//! This is the only place that decides which characters are shown. Everything that reaches a terminal or a line of the
//! log goes through it (C8: [`crate::output`], [`crate::logging`]). JSON documents keep the exact text: there [`json`] only
//! chooses the spelling.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns the text on one line: each line break, with the blanks around it, becomes one blank, and what a terminal
/// would interpret or hide is written as an escape (`\u{1b}`). Other blanks stay as they are.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_line_break) {
        return visible(text, false);
    }
    let parts: Vec<&str> = text.split(is_line_break).collect();
    let last = parts.len() - 1;
    let trimmed = parts.into_iter().enumerate().map(|(index, part)| match (index == 0, index == last) {
        (true, _) => part.trim_end(),
        (_, true) => part.trim_start(),
        _ => part.trim(),
    });
    let joined: Vec<&str> = trimmed.filter(|part| !part.is_empty()).collect();
    Cow::Owned(visible(&joined.join(" "), false).into_owned())
}

/// Returns a text of several lines, such as a page that this program has laid out, with everything escaped that is
/// neither printable nor the end of a line.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    visible(text, true)
}

/// Returns a JSON text in which what a terminal would interpret or hide is written in JSON's own escapes. It has the
/// same meaning: outside of strings a document of [`crate::documents`] holds no such character.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if is_hidden(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(char);
        }
    }
    Cow::Owned(escaped)
}

fn visible(text: &str, keeps_line_ends: bool) -> Cow<'_, str> {
    let is_kept = |char: char| !is_hidden(char) || (keeps_line_ends && char == '\n');
    if text.chars().all(is_kept) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            char if is_kept(char) => shown.push(char),
            '\t' => shown.push(' '),
            char => shown.extend(char.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

/// Returns whether a reader may take the character for the end of a line.
fn is_line_break(char: char) -> bool {
    matches!(char, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Returns whether a terminal interprets the character, or shows nothing for it: control characters (both ranges, and DEL),
/// separators of lines, marks and overrides of the direction of writing, and characters without a shape that are no
/// part of a script. Joiners stay, because several scripts need them.
fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{ad}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_outside_stays_on_its_line_and_controls_nothing() {
        let check = |text: &str, expected: &str| assert_eq!(line(text), expected, "{text:?}");
        check("disks, on purpose", "disks, on purpose");
        check("größe → 🙂 नमस्ते क्‍ष", "größe → 🙂 नमस्ते क्‍ष");
        check("  │ two  blanks stay", "  │ two  blanks stay");
        check("one\ntwo \r\n three\n", "one two three");
        check("a\u{b}b\u{c}c\u{85}d\u{2028}e\u{2029}f", "a b c d e f");
        check("tab\there", "tab here");
        check("\u{1b}[2J\u{7}\u{7f}\u{9b}31m\0", "\\u{1b}[2J\\u{7}\\u{7f}\\u{9b}31m\\u{0}");
        check("lb\u{202e}10\u{2066}x\u{2069}", "lb\\u{202e}10\\u{2066}x\\u{2069}");
        check("soft\u{ad}\u{200b}\u{feff}\u{e0041}", "soft\\u{ad}\\u{200b}\\u{feff}\\u{e0041}");
        check("\r\n", "");
    }

    #[test]
    fn a_page_keeps_its_lines() {
        assert_eq!(lines("one\n  two\n"), "one\n  two\n");
        assert_eq!(lines("one\r\ntwo\u{2028}\u{1b}c"), "one\\u{d}\ntwo\\u{2028}\\u{1b}c");
    }

    #[test]
    fn json_has_the_same_meaning_and_nothing_that_a_terminal_interprets() {
        let text = "ok \u{7f}\u{9b}31m \u{202e} \u{e0041} \u{1b} \n größe";
        let document = serde_json::to_string(text).unwrap();
        let cleaned = json(&document);
        assert!(!cleaned.contains(is_hidden), "{cleaned}");
        assert_eq!(serde_json::from_str::<String>(&cleaned).unwrap(), text);
        assert_eq!(json(r#"{"a":"größe"}"#), r#"{"a":"größe"}"#);
    }
}
