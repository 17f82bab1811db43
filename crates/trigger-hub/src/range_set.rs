//! A set of ranges, which tells quickly whether a key is in one of them.

use std::collections::HashSet;

use trigger_store::store::KeyRange;

/// Ranges of keys. A look-up costs as much as the key is deep, however many ranges there are.
#[derive(Debug, Default)]
pub(crate) struct RangeSet {
    keys: HashSet<String>,
    prefixes: HashSet<String>,
}

impl RangeSet {
    pub(crate) fn insert(&mut self, range: &KeyRange) {
        match range {
            KeyRange::Key(key) => self.keys.insert(key.clone()),
            KeyRange::Prefix(prefix) => self.prefixes.insert(prefix.clone()),
        };
    }

    /// Whether one of the ranges has this key.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.keys.contains(key) || self.has_prefix_of(key)
    }

    /// Whether one of the ranges has all that is in `range`.
    fn covers(&self, range: &KeyRange) -> bool {
        match range {
            KeyRange::Key(key) => self.contains(key),
            KeyRange::Prefix(prefix) => self.has_prefix_of(prefix),
        }
    }

    fn has_prefix_of(&self, text: &str) -> bool {
        text.match_indices('/').any(|(at, _)| self.prefixes.contains(&text[..=at]))
    }
}

/// Leaves out each range that an earlier one has whole: it adds nothing.
pub(crate) fn without_repeated(ranges: Vec<KeyRange>) -> Vec<KeyRange> {
    let mut earlier = RangeSet::default();
    let is_new = |range: &KeyRange| {
        let is_new = !earlier.covers(range);
        earlier.insert(range);
        is_new
    };
    ranges.into_iter().filter(is_new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_adds_nothing_is_left_out() {
        let key = |text: &str| KeyRange::Key(text.to_owned());
        let prefix = |text: &str| KeyRange::Prefix(text.to_owned());
        let ranges = vec![
            prefix("/a/b/"),
            key("/a/b/c"),
            prefix("/a/b/"),
            key("/a/x"),
            key("/a/x"),
            prefix("/a/b/d/"),
            key("/c/"),
            prefix("/c/"),
            prefix("/a/"),
            key("/a/y"),
        ];
        let expected = [prefix("/a/b/"), key("/a/x"), key("/c/"), prefix("/c/"), prefix("/a/")];
        assert_eq!(without_repeated(ranges), expected);
    }
}
