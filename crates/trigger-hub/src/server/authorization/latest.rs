//! Remembers the latest answers of the store that stay true for as long as an event is stored. They are forgotten when a sweep has
//! removed events, and for want of memory.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many answers are remembered. Each takes up to 300 bytes.
const MAX_REMEMBERED: usize = 16 * 1024;

/// The latest answers to one kind of question.
#[derive(Debug)]
pub(super) struct Latest<K, V> {
    known: Mutex<Known<K, V>>,
}

#[derive(Debug)]
struct Known<K, V> {
    answers: HashMap<K, V>,
    oldest_first: VecDeque<K>,
}

impl<K, V> Default for Latest<K, V> {
    fn default() -> Self {
        Self { known: Mutex::new(Known { answers: HashMap::new(), oldest_first: VecDeque::new() }) }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Latest<K, V> {
    /// The answer, if it is remembered.
    pub(super) fn get(&self, question: &K) -> Option<V> {
        self.lock().answers.get(question).cloned()
    }

    /// Remembers an answer.
    pub(super) fn remember(&self, question: K, answer: V) {
        let mut known = self.lock();
        if known.answers.insert(question.clone(), answer).is_none() {
            known.oldest_first.push_back(question);
        }
        while known.oldest_first.len() > MAX_REMEMBERED {
            if let Some(oldest) = known.oldest_first.pop_front() {
                known.answers.remove(&oldest);
            }
        }
    }

    /// Forgets all answers.
    pub(super) fn clear(&self) {
        let mut known = self.lock();
        known.answers.clear();
        known.oldest_first.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Known<K, V>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_answers_are_remembered() {
        let latest = Latest::default();
        (0..=MAX_REMEMBERED).for_each(|n| latest.remember(n, n.to_string()));
        latest.remember(1, "again".to_owned());
        assert_eq!(latest.get(&0), None);
        assert_eq!(latest.get(&1).as_deref(), Some("again"));
        assert_eq!(latest.get(&MAX_REMEMBERED), Some(MAX_REMEMBERED.to_string()));
        let known = latest.lock();
        assert_eq!((known.answers.len(), known.oldest_first.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
        drop(known);
        latest.clear();
        assert_eq!(latest.get(&1), None);
    }
}
