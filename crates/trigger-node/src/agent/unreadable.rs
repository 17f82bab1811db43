//! What lies where deliveries are and cannot be used, for the log and for `trigger queue`.

use std::collections::{BTreeMap, HashSet};

use trigger_core::queue::MAX_LISTED;

/// Keys with what is wrong with each. It is bounded: anyone who can write to the backend can put as many there as it takes.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    keys: BTreeMap<String, String>,
}

impl Unreadable {
    /// Notes a key, and logs it if it is new.
    pub(super) fn note(&mut self, key: String, detail: String) {
        if self.keys.len() >= MAX_LISTED && !self.keys.contains_key(&key) {
            return;
        }
        if !self.keys.contains_key(&key) {
            tracing::error!(key, error = detail, "cannot read a delivery; it stays in the backend");
        }
        self.keys.insert(key, detail);
    }

    /// Forgets a key whose delivery could be read, which is made only if there is any to forget.
    pub(super) fn forget(&mut self, key: impl FnOnce() -> String) {
        if !self.keys.is_empty() {
            self.keys.remove(&key());
        }
    }

    /// Forgets all keys but these.
    pub(super) fn keep(&mut self, present: &HashSet<&str>) {
        self.keys.retain(|key, _| present.contains(key.as_str()));
    }

    /// The keys, each with what is wrong.
    pub(super) fn keys(&self) -> &BTreeMap<String, String> {
        &self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_has_what_is_there() {
        let mut unreadable = Unreadable::default();
        for n in 0..100_000 {
            unreadable.note(format!("/k/{n}"), "garbage".to_owned());
        }
        assert_eq!(unreadable.keys().len(), MAX_LISTED);
        unreadable.note("/k/7".to_owned(), "other garbage".to_owned());
        assert_eq!(unreadable.keys()["/k/7"], "other garbage");
        unreadable.keep(&["/k/7", "/k/8", "/k/99999"].into());
        unreadable.forget(|| "/k/8".to_owned());
        assert_eq!(unreadable.keys().keys().collect::<Vec<_>>(), ["/k/7"]);
    }
}
