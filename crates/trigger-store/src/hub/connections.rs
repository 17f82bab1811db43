//! The connections of a client beside its open watches. Requests share one, one after the other, and so does the watch that is
//! opened next: a fleet that comes back at once costs its hub one handshake for each node. Only where that connection is
//! busy for long is there a second one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::limits::{CONNECTION_PATIENCE, LONGEST_LIMIT};
use crate::connector::Connector;

/// Requests in flight at once that no watch carries, each on a connection of its own. A hub takes sixteen connections from one
/// node, of which its watch, its commands, and those that are being closed or opened need some.
pub(super) const MAX_CONNECTIONS: usize = 2;
const POLL_INTERVAL: Duration = Duration::from_millis(100);

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
            if let Some(turn) = self.turn_of_first().await {
                return Some(turn);
            }
            tokio::select! {
                turn = acquire(&self.first) => turn,
                turn = acquire(&self.further) => turn,
            }
        };
        timeout(LONGEST_LIMIT, waiting).await.ok().flatten()
    }

    /// Waits for the turn of a watch that is opened. Nothing if the first connection is busy for long: a watch waits for no request.
    pub(super) async fn turn_of_first(&self) -> Option<Turn> {
        tokio::select! {
            biased;
            turn = acquire(&self.first) => turn,
            () = self.first_is_busy_for_long() => None,
        }
    }

    /// While a connection is made, nothing is gained by making another.
    async fn first_is_busy_for_long(&self) {
        let mut busy = Duration::ZERO;
        while busy < CONNECTION_PATIENCE {
            sleep(POLL_INTERVAL).await;
            if !self.connector.is_connecting() {
                busy += POLL_INTERVAL;
            }
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
