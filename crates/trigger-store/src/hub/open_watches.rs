//! The open watches of a client that carry its requests too: an agent that is idle has one connection, and pays for no
//! handshake when an event comes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::hub_protocol::{
    COMPARE_AND_SWAP, DELETE, MAX_SOCKET_REQUEST_BYTES, MAX_SOCKET_REQUESTS, PUT, READ, SocketAnswer,
};

/// The watches that take requests.
#[derive(Debug, Default)]
pub(super) struct OpenWatches(Mutex<Vec<OpenWatch>>);

/// One of them, as those see it who send requests.
#[derive(Debug, Clone)]
struct OpenWatch {
    requests: mpsc::Sender<OutgoingRequest>,
    places: Arc<Semaphore>,
    hub: Responsiveness,
}

/// Whether the hub at the other end of a watch can be expected to answer soon. If not, requests take connections of their
/// own.
#[derive(Debug, Clone)]
pub(super) struct Responsiveness(Arc<AtomicBool>);

/// The end of an open watch at which its requests arrive.
#[derive(Debug)]
pub(super) struct IncomingRequests {
    pub(super) requests: mpsc::Receiver<OutgoingRequest>,
    pub(super) hub: Responsiveness,
}

/// A request on its way to the watch that carries it.
#[derive(Debug)]
pub(super) struct OutgoingRequest {
    pub(super) path: &'static str,
    pub(super) body: Box<RawValue>,
    pub(super) answer: oneshot::Sender<Exchange>,
    /// Kept until the answer is there, also if its client has given up.
    pub(super) place: OwnedSemaphorePermit,
}

/// A place for one request on an open watch.
#[derive(Debug)]
pub(super) struct Place {
    watch: OpenWatch,
    permit: OwnedSemaphorePermit,
}

/// The result of a request over a watch.
#[derive(Debug)]
pub(super) enum Exchange {
    Answered(SocketAnswer),
    /// The watch had ended before it was sent.
    NotSent,
    /// The watch has ended since.
    Unanswered,
}

impl OpenWatches {
    /// Adds a watch that takes requests from now on. Returns their other end; without it, the watch takes none.
    pub(super) fn add(&self) -> IncomingRequests {
        let (sender, requests) = mpsc::channel(MAX_SOCKET_REQUESTS);
        let hub = Responsiveness(Arc::new(AtomicBool::new(true)));
        let places = Arc::new(Semaphore::new(MAX_SOCKET_REQUESTS));
        let watch = OpenWatch { requests: sender, places, hub: hub.clone() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(watch);
        IncomingRequests { requests, hub }
    }

    /// A place for a request that an open watch may carry, as soon as one is free. Nothing if none may.
    pub(super) async fn place(&self, path: &str, body: &RawValue) -> Option<Place> {
        let is_taken = matches!(path, PUT | DELETE | COMPARE_AND_SWAP | READ);
        if !is_taken || body.get().len() > MAX_SOCKET_REQUEST_BYTES {
            return None;
        }
        let watch = match self.free_place() {
            Ok(place) => return Some(place),
            Err(busy) => busy?,
        };
        let permit = Arc::clone(&watch.places).acquire_owned().await.ok()?;
        watch.hub.is_good().then_some(Place { watch, permit })
    }

    /// A place that is free, or a watch that has none at the moment.
    fn free_place(&self) -> Result<Place, Option<OpenWatch>> {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|watch| !watch.requests.is_closed());
        let mut busy = None;
        for watch in watches.iter().filter(|watch| watch.hub.is_good()) {
            match Arc::clone(&watch.places).try_acquire_owned() {
                Ok(permit) => return Ok(Place { watch: watch.clone(), permit }),
                Err(_) => busy = Some(watch.clone()),
            }
        }
        Err(busy)
    }
}

impl IncomingRequests {
    /// Takes no more requests. Returns those that were not sent yet.
    pub(super) async fn close(mut self) -> Vec<OutgoingRequest> {
        self.requests.close();
        let mut unsent = Vec::new();
        while let Some(request) = self.requests.recv().await {
            unsent.push(request);
        }
        unsent
    }
}

impl Responsiveness {
    fn is_good(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, is_good: bool) {
        self.0.store(is_good, Ordering::Relaxed);
    }
}

impl Place {
    /// What is known of the hub behind it.
    pub(super) fn hub(&self) -> &Responsiveness {
        &self.watch.hub
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn exchange(self, path: &'static str, body: Box<RawValue>) -> Exchange {
        let (answer, answered) = oneshot::channel();
        let request = OutgoingRequest { path, body, answer, place: self.permit };
        if self.watch.requests.send(request).await.is_err() {
            return Exchange::NotSent;
        }
        answered.await.unwrap_or(Exchange::Unanswered)
    }
}
