//! A queue that serves its clients in turn: a client with many entries waits behind its own, and not in front of others'.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Entries of several clients. Those of one client keep the order in which it put them.
#[derive(Debug)]
pub struct FairQueue<K, T> {
    waiting: HashMap<K, VecDeque<T>>,
    /// Each client that has entries, once.
    turns: VecDeque<K>,
}

impl<K, T> Default for FairQueue<K, T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), turns: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, T> FairQueue<K, T> {
    /// Appends an entry of a client.
    pub fn push(&mut self, client: K, entry: T) {
        self.entries(client).push_back(entry);
    }

    /// Puts an entry before the others of its client.
    pub fn push_first(&mut self, client: K, entry: T) {
        self.entries(client).push_front(entry);
    }

    /// Removes the last entries of a client, up to one that is still wanted.
    pub fn drop_last(&mut self, client: &K, is_wanted: impl Fn(&T) -> bool) {
        let Some(entries) = self.waiting.get_mut(client) else { return };
        while entries.back().is_some_and(|entry| !is_wanted(entry)) {
            entries.pop_back();
        }
        if entries.is_empty() {
            self.waiting.remove(client);
            self.turns.retain(|waiting| waiting != client);
        }
    }

    /// The entries of a client that is going to have one.
    fn entries(&mut self, client: K) -> &mut VecDeque<T> {
        let entries = self.waiting.entry(client.clone()).or_default();
        if entries.is_empty() {
            self.turns.push_back(client);
        }
        entries
    }

    /// Removes the next entry. Its client's next one follows after one of every other client.
    pub fn pop(&mut self) -> Option<T> {
        let client = self.turns.pop_front()?;
        let entries = self.waiting.get_mut(&client)?;
        let entry = entries.pop_front();
        if entries.is_empty() {
            self.waiting.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        entry
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pushes the letters as entries of clients, those after `^` first, takes one out at each `-`, and the rest at the end.
    fn check(steps: &str, expected: &str) {
        let mut queue = FairQueue::default();
        let mut counts = HashMap::new();
        let mut popped = Vec::new();
        let mut is_first = false;
        for step in steps.chars() {
            if step == '-' {
                popped.extend(queue.pop());
                continue;
            }
            if step == '^' {
                is_first = true;
                continue;
            }
            let count = counts.entry(step).or_insert(0);
            *count += 1;
            let entry = format!("{step}{count}");
            if std::mem::take(&mut is_first) {
                queue.push_first(step, entry)
            } else {
                queue.push(step, entry)
            }
        }
        popped.extend(std::iter::from_fn(|| queue.pop()));
        assert_eq!(popped.join(" "), expected, "{steps}");
        assert!(queue.is_empty() && queue.waiting.is_empty(), "nothing is kept of clients without entries");
    }

    #[test]
    fn clients_are_served_in_turn() {
        check("", "");
        check("aaab", "a1 b1 a2 a3");
        check("aaa-b-c", "a1 a2 b1 a3 c1");
        check("aabbcc", "a1 b1 c1 a2 b2 c2");
        check("a-a-b-", "a1 a2 b1");
        check("^a^a^ab", "a3 b1 a2 a1");
        check("aa^a-^b^b", "a3 a1 b2 a2 b1");
    }

    #[test]
    fn last_entries_that_are_no_longer_wanted_go() {
        let mut queue = FairQueue::default();
        for entry in [1, 2, 13, 4, 15, 16] {
            queue.push('a', entry);
        }
        queue.drop_last(&'b', |_| false);
        queue.drop_last(&'a', |entry| *entry < 10);
        assert_eq!(queue.waiting[&'a'], [1, 2, 13, 4]);
        queue.push('b', 5);
        queue.drop_last(&'a', |_| false);
        assert_eq!((queue.pop(), queue.pop()), (Some(5), None));
        assert!(queue.is_empty() && queue.waiting.is_empty());
    }

    proptest! {
        /// An entry waits for at most one of each other client, and for those of its own that came before it.
        #[test]
        fn no_client_waits_for_more_than_one_entry_of_another(pushed in prop::collection::vec(0_u8..5, 1..60)) {
            let mut queue = FairQueue::default();
            for (index, client) in pushed.iter().enumerate() {
                queue.push(*client, (*client, index));
            }
            queue.push(9, (9, pushed.len()));
            let before = std::iter::from_fn(|| queue.pop()).take_while(|(client, _)| *client != 9);
            let mut seen = std::collections::HashSet::new();
            for (client, _) in before {
                prop_assert!(seen.insert(client));
            }
        }
    }
}
