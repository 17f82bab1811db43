//! The connections of a client beside its open watches. Requests share one, one after the other, and so does the watch that is
//! opened next: a fleet that comes back at once costs its hub one handshake for each node. Only where that connection is
//! busy for long is there a second one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::limits::{CONNECTION_PATIENCE, LONGEST_LIMIT};
use crate::connector::Connector;

/// Requests in flight at once that no watch carries, each on a connection of its own. A hub takes sixteen connections from one
/// node, of which its watch, its commands, and those that are being closed or opened need some.
pub(super) const MAX_CONNECTIONS: usize = 2;
/// How long a connection that is being made is waited for: as long as a hub lets a handshake take. Its packets may be lost.
const CONNECTING_PATIENCE: Duration = Duration::from_secs(10);

/// Gives turns to use a connection.
#[derive(Debug)]
pub(super) struct Connections {
    connector: Connector,
    first: Arc<Semaphore>,
    further: Arc<Semaphore>,
}

/// The use of a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl Connections {
    /// None yet. The connector is the one that makes them.
    pub(super) fn new(connector: Connector) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { connector, first: places(1), further: places(MAX_CONNECTIONS - 1) }
    }

    /// Waits for the turn of a request. Nothing if others take too long.
    pub(super) async fn turn(&self) -> Option<Turn> {
        let waiting = async {
            if let Some(turn) = self.turn_on_first().await {
                return Some(turn);
            }
            tokio::select! {
                turn = acquire(&self.first) => turn,
                turn = acquire(&self.further) => turn,
            }
        };
        timeout(LONGEST_LIMIT, waiting).await.ok().flatten()
    }

    /// Waits for a turn on the first connection. Nothing if it is busy for long: then there may be one more.
    pub(super) async fn turn_on_first(&self) -> Option<Turn> {
        tokio::select! {
            biased;
            turn = acquire(&self.first) => turn,
            () = self.first_is_busy_for_long() => None,
        }
    }

    /// While a connection is made, little is gained by making another.
    async fn first_is_busy_for_long(&self) {
        let mut connecting = self.connector.connecting();
        let (mut for_busy, mut for_connecting) = (CONNECTION_PATIENCE, CONNECTING_PATIENCE);
        loop {
            let is_connecting = *connecting.borrow_and_update() > 0;
            let left = if is_connecting { &mut for_connecting } else { &mut for_busy };
            let begun = Instant::now();
            let changed = connecting.wait_for(|count| (*count > 0) != is_connecting);
            if timeout(*left, changed).await.is_err() {
                return;
            }
            *left = left.saturating_sub(begun.elapsed());
        }
    }
}

async fn acquire(places: &Arc<Semaphore>) -> Option<Turn> {
    let was_free = places.available_permits() > 0;
    let permit = Arc::clone(places).acquire_owned().await.ok()?;
    if !was_free {
        // The task of the connection has to have its end first, or this request would not find it idle.
        yield_now().await;
    }
    Some(Turn(permit))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::sleep;

    use super::*;
    use crate::credentials::Credentials;

    fn connections() -> Connections {
        let url = "hub+http://127.0.0.1:1".parse().unwrap();
        Connections::new(Connector::new(&url, &Credentials::default(), b"http/1.1").unwrap())
    }

    /// Waits for a turn, and returns it with the milliseconds that it took.
    async fn timed(turn: impl Future<Output = Option<Turn>>) -> (Option<Turn>, u128) {
        let since = Instant::now();
        (turn.await, since.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_second_connection_once_the_first_is_busy_for_long_and_no_third() {
        let connections = connections();
        let first = connections.turn().now_or_never().flatten().expect("it is free");
        let (second, waited) = timed(connections.turn()).await;
        assert!(second.is_some());
        assert_eq!(waited, CONNECTION_PATIENCE.as_millis());
        assert!(waited < 4_000, "a `trigger fire` waits for 4 s");
        let (third, waited) = timed(connections.turn()).await;
        assert!(third.is_none());
        assert_eq!(waited, LONGEST_LIMIT.as_millis());
        drop(first);
        assert!(connections.turn().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_turn_comes_as_soon_as_the_first_connection_is_free() {
        let connections = connections();
        let first = connections.turn().await;
        let free = async {
            sleep(Duration::from_millis(150)).await;
            drop(first);
        };
        let ((turn, waited), ()) = tokio::join!(timed(connections.turn_on_first()), free);
        assert!(turn.is_some());
        assert_eq!(waited, 150);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_being_made_is_waited_for_longer() {
        let connections = connections();
        let _first = connections.turn().await;
        let _connecting = connections.connector.count_connecting();
        let (turn, waited) = timed(connections.turn_on_first()).await;
        assert!(turn.is_none());
        assert_eq!(waited, CONNECTING_PATIENCE.as_millis());
    }
}
