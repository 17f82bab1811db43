//! One queue of all actions that wait for their time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::task::Waker;
use std::time::Duration;

/// The action to perform when its time has come.
pub(crate) enum Action<World> {
    Wake(Waker),
    Do(Box<dyn FnOnce(&mut World) + Send>),
}

/// All actions that wait for their time.
pub(crate) struct Timers<World> {
    order: BinaryHeap<Reverse<(Duration, u64)>>,
    actions: BTreeMap<u64, Action<World>>,
    next: u64,
}

impl<World> Default for Timers<World> {
    fn default() -> Self {
        Self { order: BinaryHeap::new(), actions: BTreeMap::new(), next: 0 }
    }
}

impl<World> Timers<World> {
    pub(crate) fn add(&mut self, at: Duration, action: Action<World>) -> u64 {
        self.next += 1;
        self.order.push(Reverse((at, self.next)));
        self.actions.insert(self.next, action);
        self.next
    }

    pub(crate) fn pop(&mut self) -> Option<(Duration, Action<World>)> {
        while let Some(Reverse((at, id))) = self.order.pop() {
            if let Some(action) = self.actions.remove(&id) {
                return Some((at, action));
            }
        }
        None
    }

    /// Cancels an action and returns it.
    pub(crate) fn cancel(&mut self, id: u64) -> Option<Action<World>> {
        self.actions.remove(&id)
    }
}
