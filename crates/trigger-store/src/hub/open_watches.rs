//! The open watches of a client that carry its requests too: an agent that is idle has one connection, and pays for no
//! handshake when an event comes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::hub_protocol::{
    COMPARE_AND_SWAP, DELETE, MAX_SOCKET_BODY_BYTES, MAX_SOCKET_REQUESTS, PUT, READ, SocketAnswer,
};

/// The watches that take requests.
#[derive(Debug, Default)]
pub(super) struct OpenWatches {
    watches: Mutex<Vec<OpenWatch>>,
    added: Notify,
}

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
pub(super) struct Responsiveness(Arc<watch::Sender<bool>>);

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
        let hub = Responsiveness(Arc::new(watch::Sender::new(true)));
        let places = Arc::new(Semaphore::new(MAX_SOCKET_REQUESTS));
        let watch = OpenWatch { requests: sender, places, hub: hub.clone() };
        self.lock().push(watch);
        self.added.notify_waiters();
        IncomingRequests { requests, hub }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OpenWatch>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a watch carries such a request.
    pub(super) fn may_carry(path: &str, body: &RawValue) -> bool {
        matches!(path, PUT | DELETE | COMPARE_AND_SWAP | READ) && body.get().len() <= MAX_SOCKET_BODY_BYTES
    }

    /// Completes when a watch is added after this call.
    pub(super) fn added(&self) -> Notified<'_> {
        self.added.notified()
    }

    /// Whether a watch takes requests now, be its places free or not.
    pub(super) fn is_any_open(&self) -> bool {
        !matches!(self.free_place(), Err(None))
    }

    /// A place on an open watch, as soon as one is free. Nothing if there is no watch, or none on which the hub can be expected to
    /// answer soon.
    pub(super) async fn place(&self) -> Option<Place> {
        let watch = match self.free_place() {
            Ok(place) => return Some(place),
            Err(busy) => busy?,
        };
        let permit = tokio::select! {
            permit = Arc::clone(&watch.places).acquire_owned() => permit.ok()?,
            () = watch.hub.is_bad() => return None,
        };
        watch.hub.is_good().then_some(Place { watch, permit })
    }

    /// A place that is free, or a watch that has none at the moment.
    fn free_place(&self) -> Result<Place, Option<OpenWatch>> {
        let mut watches = self.lock();
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
        *self.0.borrow()
    }

    /// Completes once it is so.
    async fn is_bad(&self) {
        // The sender is this value's own.
        let _ = self.0.subscribe().wait_for(|is_good| !is_good).await;
    }

    pub(super) fn set(&self, is_good: bool) {
        self.0.send_if_modified(|known| std::mem::replace(known, is_good) != is_good);
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
