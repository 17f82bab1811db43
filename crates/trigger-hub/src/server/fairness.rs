//! What keeps one node from using a hub up: its rate of requests, and its turns at the store. Plain connections, which
//! come from this machine, have neither.

use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use trigger_core::identity::Certname;
use trigger_store::hub_protocol::MAX_BODY_BYTES;

use super::metrics::Metrics;
use super::peer::Peer;
use super::principal::Principal;
use super::refusal::Refusal;
use super::shares::Share;
use super::turns::{Turn, Turns};

/// How many requests of nodes the store works on at the same time. So many share one sync of the disk; the next wait for
/// their certname's turn.
const STORE_PLACES: usize = 64;
/// A body of more bytes is a large one. Those of all nodes together are few, because each is held in memory.
const LARGE_BODY_BYTES: u64 = 1024 * 1024;
/// How many large bodies are received or handled at the same time, one of each certname.
const LARGE_BODIES: usize = 8;

/// How many questions about runs and events are answered at once: each holds up to some megabytes.
const INQUIRIES: usize = 4;

/// The turns of the nodes.
pub(super) struct Fairness {
    store: Turns<Certname>,
    large_bodies: Turns<Certname>,
    /// All plain connections together have one turn.
    inquiries: Turns<Option<Certname>>,
}

/// What a request holds while its body is received and handled.
#[derive(Default)]
pub(super) struct BodyPermit {
    _own: Option<OwnedSemaphorePermit>,
    _turn: Option<Turn<Certname>>,
}

impl Default for Fairness {
    fn default() -> Self {
        Self {
            store: Turns::new(STORE_PLACES),
            large_bodies: Turns::new(LARGE_BODIES),
            inquiries: Turns::new(INQUIRIES),
        }
    }
}

impl Fairness {
    /// Waits until the store may work for a client.
    pub(super) async fn store_turn(&self, peer: &Peer) -> Option<Turn<Certname>> {
        let Principal(node) = peer.principal()?;
        Some(self.store.next(node.certname.clone()).await)
    }

    /// Waits until a question of a client may be answered. It has no turn at the store besides: while it waits, the store
    /// works for others.
    pub(super) async fn inquiry_turn(&self, peer: &Peer) -> Turn<Option<Certname>> {
        self.inquiries.next(peer.principal().map(|Principal(node)| node.certname.clone())).await
    }

    /// Waits until a client may be sent the snapshot of a watch, of which a page is held meanwhile.
    pub(super) async fn snapshot_permit(&self, peer: &Peer) -> Option<OwnedSemaphorePermit> {
        peer.share()?.snapshot().await
    }

    /// Waits until a body may be received. A body of unknown length counts as a large one.
    pub(super) async fn body_permit(&self, peer: &Peer, headers: &HeaderMap) -> BodyPermit {
        let (Some(Principal(node)), Some(share)) = (peer.principal(), peer.share()) else {
            return BodyPermit::default();
        };
        if declared_bytes(headers).unwrap_or(u64::MAX) <= LARGE_BODY_BYTES {
            return BodyPermit::default();
        }
        let own = share.large_body().await;
        BodyPermit { _own: own, _turn: Some(self.large_bodies.next(node.certname.clone()).await) }
    }
}

/// The length that a request declares for its body.
pub(super) fn declared_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Delays or refuses the requests of a node that sends too many, and names the node to what handles its request.
pub(super) async fn admit(State(metrics): State<Arc<Metrics>>, mut request: Request, next: Next) -> Response {
    let peer = Peer::of(request.extensions());
    if let Err(refusal) = take(&metrics, &peer, declared_bytes(request.headers()).unwrap_or_default()).await {
        return refusal.into_response();
    }
    if let Some(principal) = peer.principal() {
        request.extensions_mut().insert(principal.clone());
    }
    let response = next.run(request).await;
    charge(&peer, response.body().size_hint().exact().unwrap_or(MAX_BODY_BYTES as u64));
    response
}

/// Takes what a request costs its node, and waits until the node may send it.
///
/// # Errors
/// When the node sends too many.
pub(super) async fn take(metrics: &Metrics, peer: &Peer, body_bytes: u64) -> Result<(), Refusal> {
    let (Some(principal), Some(share)) = (peer.principal(), peer.share()) else { return Ok(()) };
    match share.take(body_bytes) {
        Ok(Duration::ZERO) => Ok(()),
        Ok(wait) => {
            sleep(wait).await;
            Ok(())
        }
        Err(retry_after) => {
            metrics.limited();
            let refusal = too_many(principal, retry_after);
            report(peer, share, &refusal);
            Err(refusal)
        }
    }
}

/// Takes what an answer of so many bytes costs its node.
pub(super) fn charge(peer: &Peer, bytes: u64) {
    if let Some(share) = peer.share() {
        share.charge(bytes);
    }
}

/// Logs that a node asks for too much.
pub(super) fn report(peer: &Peer, share: &Share, refusal: &Refusal) {
    if share.is_report_due() {
        let certname = peer.principal().map(|Principal(node)| node.certname.as_str());
        tracing::warn!(certname, %peer, "{}", refusal.sentence);
    }
}

fn too_many(Principal(node): &Principal, retry_after: Duration) -> Refusal {
    let sentence = format!(
        "{} sends more requests, or larger ones, than the hub takes from one node: look for what sends them there, or try \
         again in {} s",
        node.certname,
        retry_after.as_secs() + 1
    );
    Refusal::too_many(sentence, retry_after)
}
