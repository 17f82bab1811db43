//! The limits of requests.

use trigger_store::hub_protocol::{MAX_KEY_BYTES, MAX_RANGES, RangeForm};
use trigger_store::store::KeyRange;

use super::refusal::Refusal;
use crate::range_set::without_repeated;

/// The size of one page of a read, in bytes of keys and values.
pub(super) const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// The same of a read over a WebSocket: small, since the buffer of an idle session is as large as the largest message that it has
/// sent.
pub(super) const MAX_SOCKET_PAGE_BYTES: usize = 4 * 1024;
/// How much of a wrong key or prefix a refusal quotes, in characters.
const MAX_QUOTED: usize = 80;
/// The most keys in one put or delete. Clients send at most 1 MiB of keys and values at once, and a key of Trigger's has
/// more than 40 bytes.
const MAX_WRITTEN: usize = 32_768;

/// Refuses a text that cannot be a key.
pub(super) fn check_key(key: &str) -> Result<(), Refusal> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) && !key.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Refusal::bad_request(format!(
        "'{}' cannot be a key: it has 1 to {MAX_KEY_BYTES} bytes and no control characters",
        quoted(key)
    )))
}

/// Parses and checks the ranges of a read or a watch, and leaves out those that add nothing.
pub(super) fn check_ranges(ranges: Vec<RangeForm>) -> Result<Vec<KeyRange>, Refusal> {
    if ranges.len() > MAX_RANGES {
        let count = ranges.len();
        return Err(Refusal::bad_request(format!("{count} ranges are more than a hub takes ({MAX_RANGES})")));
    }
    let ranges: Vec<KeyRange> = ranges.into_iter().map(KeyRange::from).collect();
    for range in &ranges {
        if let KeyRange::Prefix(prefix) = range
            && !prefix.ends_with('/')
        {
            let sentence = format!("'{}' is not a prefix: it ends with '/'", quoted(prefix));
            return Err(Refusal::bad_request(sentence));
        }
    }
    // The same on every page of a read, so that a position keeps its meaning.
    Ok(without_repeated(ranges))
}

/// Refuses a write of more entries than a hub takes at once.
pub(super) fn check_count(count: usize) -> Result<(), Refusal> {
    if count <= MAX_WRITTEN {
        return Ok(());
    }
    Err(Refusal::bad_request(format!("{count} keys are more than a hub writes at once ({MAX_WRITTEN})")))
}

/// The beginning of a text from a client, for a refusal.
pub(super) fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTED).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict<T>(checked: Result<T, Refusal>) -> String {
        checked.map_or_else(|refusal| refusal.sentence, |_| "accepted".to_owned())
    }

    #[test]
    fn a_key_has_1024_bytes_at_most_and_a_refusal_quotes_its_beginning() {
        for (key, is_accepted) in [
            ("k".repeat(1024), true),
            ("k".repeat(1025), false),
            ("é".repeat(512), true),
            ("é".repeat(513), false),
            ("k".to_owned(), true),
            (String::new(), false),
            ("a\nb".to_owned(), false),
        ] {
            assert_eq!(check_key(&key).is_ok(), is_accepted, "{key:?}");
        }
        assert_eq!(
            verdict(check_key(&"k".repeat(1025))),
            format!("'{}' cannot be a key: it has 1 to 1024 bytes and no control characters", "k".repeat(80))
        );
    }

    #[test]
    fn a_read_has_1024_ranges_and_a_write_32768_keys_at_most() {
        let ranges = |count: usize| (0..count).map(|n| RangeForm::Key(format!("/{n}"))).collect();
        assert_eq!(check_ranges(ranges(1024)).unwrap().len(), 1024);
        assert_eq!(verdict(check_ranges(ranges(1025))), "1025 ranges are more than a hub takes (1024)");
        // They count before those that add nothing are removed.
        let repeated = vec![RangeForm::Key("/a".to_owned()); 1025];
        assert_eq!(verdict(check_ranges(repeated)), "1025 ranges are more than a hub takes (1024)");
        assert_eq!(verdict(check_count(32_768)), "accepted");
        assert_eq!(verdict(check_count(32_769)), "32769 keys are more than a hub writes at once (32768)");
    }
}
