//! A limit on what is done at the same time, for which clients wait in turn: a greedy one waits behind its own requests.

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use trigger_core::fair_queue::FairQueue;

/// A number of places, which are given to the waiting clients in turn. Clones share the places.
pub(super) struct Turns<K: Clone + Eq + Hash>(Arc<Mutex<State<K>>>);

struct State<K: Clone + Eq + Hash> {
    free: usize,
    is_newest_first: bool,
    waiting: FairQueue<K, oneshot::Sender<Turn<K>>>,
}

impl<K: Clone + Eq + Hash> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A place, for as long as it lives.
pub(super) struct Turn<K: Clone + Eq + Hash> {
    /// Absent when the place was handed on.
    turns: Option<Turns<K>>,
}

impl<K: Clone + Eq + Hash> Turns<K> {
    pub(super) fn new(places: usize) -> Self {
        Self::of(places, false)
    }

    /// Of what one client waits for, the newest comes first. For clients that give up after a time: where there are more than can
    /// be served by then, in their order each would come to its turn when it is about to go.
    pub(super) fn newest_first(places: usize) -> Self {
        Self::of(places, true)
    }

    fn of(places: usize, is_newest_first: bool) -> Self {
        Self(Arc::new(Mutex::new(State { free: places, is_newest_first, waiting: FairQueue::default() })))
    }

    /// Waits for a place. Safe to cancel.
    pub(super) async fn next(&self, client: K) -> Turn<K> {
        let given = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return self.turn();
            }
            let (give, given) = oneshot::channel();
            if state.is_newest_first {
                state.waiting.push_first(client.clone(), give);
                // Those that have given up would wait behind the newest for as long as these keep coming.
                state.waiting.drop_last(&client, |give| !give.is_closed());
            } else {
                state.waiting.push(client, give);
            }
            given
        };
        match given.await {
            Ok(turn) => turn,
            // The queue keeps each sender until it has given a place.
            Err(_) => std::future::pending().await,
        }
    }

    fn turn(&self) -> Turn<K> {
        Turn { turns: Some(self.clone()) }
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place that has become free to the next client that still waits.
    fn hand_on(&self) {
        loop {
            let next = {
                let mut state = self.state();
                let next = state.waiting.pop();
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(self.turn()) {
                Ok(()) => return,
                // The client has gone. Its turn must not hand the place on by itself: many may have gone.
                Err(mut turn) => turn.turns = None,
            }
        }
    }
}

impl<K: Clone + Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.hand_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn clients_wait_in_turn_and_those_that_have_gone_are_passed_over() {
        let turns = Turns::new(1);
        let held = turns.next("a").await;
        let mut waiting: Vec<_> =
            ["a", "a", "b", "c"].iter().map(|client| Box::pin(turns.next(*client))).collect();
        assert!(waiting.iter_mut().all(|next| next.now_or_never().is_none()));
        let (mut c, mut b, mut second, first) =
            (waiting.remove(3), waiting.remove(2), waiting.remove(1), waiting.remove(0));
        drop(first);
        drop(held);
        assert!(second.as_mut().now_or_never().is_none(), "another client's turn comes first");
        let turn = b.as_mut().now_or_never().unwrap();
        assert!(c.as_mut().now_or_never().is_none());
        drop(turn);
        drop(c.as_mut().now_or_never().unwrap());
        drop(second.as_mut().now_or_never().unwrap());
        assert_eq!(turns.state().free, 1);
    }

    #[tokio::test]
    async fn of_one_client_the_newest_can_come_first() {
        let turns = Turns::newest_first(1);
        let held = turns.next("a").await;
        let mut older = Box::pin(turns.next("a"));
        assert!(older.as_mut().now_or_never().is_none());
        let mut newer = Box::pin(turns.next("a"));
        assert!(newer.as_mut().now_or_never().is_none());
        drop(held);
        assert!(older.as_mut().now_or_never().is_none());
        drop(newer.now_or_never().unwrap());
        drop(older.now_or_never().unwrap());
    }

    #[tokio::test]
    async fn those_that_have_given_up_are_not_kept() {
        let turns = Turns::newest_first(1);
        let _held = turns.next(1).await;
        for _ in 0..100 {
            assert!(Box::pin(turns.next(1)).now_or_never().is_none());
        }
        let mut last = Box::pin(turns.next(1));
        assert!(last.as_mut().now_or_never().is_none());
        let mut kept = 0;
        while turns.state().waiting.pop().is_some() {
            kept += 1;
        }
        assert_eq!(kept, 1);
    }

    #[tokio::test]
    async fn a_place_that_was_given_to_a_client_that_has_gone_is_free_again() {
        let turns = Turns::new(1);
        let held = turns.next(1).await;
        let mut gone = Box::pin(turns.next(2));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(held);
        assert_eq!(turns.state().free, 0, "it was given");
        drop(gone);
        assert_eq!(turns.state().free, 1);
        assert!(turns.next(3).now_or_never().is_some());
    }
}
