//! The hub's HTTP routes. Every answer that is not a success is `{"error": SENTENCE}`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tracing::Instrument;
use trigger_store::hub_protocol::{
    COMPARE_AND_SWAP, CasReply, CasRequest, DELETE, DeleteReply, DeleteRequest, HEALTH, PUT, PutReply,
    PutRequest, READ, ReadReply, ReadRequest, STATUS, TAKES_REQUESTS, WATCH, WHY,
};

use super::body::Body;
use super::caller::MaybeCaller;
use super::connections::Standing;
use super::fairness;
use super::identification;
use super::inquiries;
use super::limits::MAX_PAGE_BYTES;
use super::metrics::{METRICS, kind};
use super::origin_check::OriginCheck;
use super::peer::Peer;
use super::refusal::Refusal;
use super::session;
use super::shares::MAX_CONNECTIONS;
use super::state::ServerState;
use super::store_requests;

/// When a node with too many connections should try again: some of them may be idle by then, and give way.
const SURPLUS_RETRY: Duration = Duration::from_secs(1);
/// The size in bytes of a session's read buffer. A client sends a few bytes after its ranges, and the default size would take
/// more memory for each idle watcher than everything else together.
const SOCKET_READ_BUFFER_BYTES: usize = 256;
/// The size in bytes of a client's largest message, which holds its ranges.
const MAX_SOCKET_MESSAGE_BYTES: usize = 2 * 1024 * 1024;

/// The routes of a hub.
pub(super) fn router(state: Arc<ServerState>, origin_check: OriginCheck) -> Router {
    let origin_check = Arc::new(origin_check);
    let router = Router::new()
        .route(PUT, post(put))
        .route(DELETE, post(delete))
        .route(COMPARE_AND_SWAP, post(compare_and_swap))
        .route(READ, post(read))
        .route(WHY, post(inquiries::why))
        .route(STATUS, post(inquiries::status))
        .route(WATCH, get(watch))
        .route(HEALTH, get(health))
        .route(METRICS, get(metrics_page))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let refused = origin_check.check(request.uri(), request.headers()).err();
            async move {
                match refused {
                    Some(refusal) => refusal.into_response(),
                    None => next.run(request).await,
                }
            }
        }));
    // Who sends a request is found out after its rate was limited.
    let router = router
        .layer(middleware::from_fn_with_state(Arc::clone(&state), identification::identify))
        .layer(middleware::from_fn_with_state(Arc::clone(&state.metrics), fairness::admit))
        .layer(middleware::from_fn(keep_reserve));
    count(router, &state).with_state(state)
}

/// Counts and logs what is answered.
fn count(router: Router<Arc<ServerState>>, state: &Arc<ServerState>) -> Router<Arc<ServerState>> {
    let metrics = Arc::clone(&state.metrics);
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let (metrics, kind) = (Arc::clone(&metrics), kind(request.uri().path()));
        let span = tracing::info_span!("request", kind, peer = %Peer::of(request.extensions()));
        let answered = async move {
            let response = next.run(request).await;
            metrics.answered(kind, response.status());
            tracing::debug!(status = response.status().as_u16(), "request answered");
            response
        };
        answered.instrument(span)
    }))
}

async fn put(
    State(state): State<Arc<ServerState>>,
    caller: MaybeCaller,
    Body(request, held): Body<PutRequest>,
) -> Result<Json<PutReply>, Refusal> {
    store_requests::put(state, caller.0, request, held).await.map(Json)
}

async fn delete(
    State(state): State<Arc<ServerState>>,
    caller: MaybeCaller,
    Body(request, _held): Body<DeleteRequest>,
) -> Result<Json<DeleteReply>, Refusal> {
    store_requests::delete(&state, caller.0.as_ref(), request).await.map(Json)
}

async fn compare_and_swap(
    State(state): State<Arc<ServerState>>,
    caller: MaybeCaller,
    Body(request, held): Body<CasRequest>,
) -> Result<Json<CasReply>, Refusal> {
    store_requests::compare_and_swap(state, caller.0, request, held).await.map(Json)
}

async fn read(
    State(state): State<Arc<ServerState>>,
    caller: MaybeCaller,
    Body(request, _held): Body<ReadRequest>,
) -> Result<Json<ReadReply>, Refusal> {
    store_requests::read(&state, caller.0.as_ref(), request, MAX_PAGE_BYTES).await.map(Json)
}

async fn watch(
    State(state): State<Arc<ServerState>>,
    peer: Peer,
    caller: MaybeCaller,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade.map_err(|rejection| {
        Refusal::bad_request(format!("{WATCH} speaks WebSocket: {}", rejection.body_text()))
    })?;
    let mut response = upgrade
        .read_buffer_size(SOCKET_READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(MAX_SOCKET_MESSAGE_BYTES)
        .max_frame_size(MAX_SOCKET_MESSAGE_BYTES)
        // A task of its own: that of the upgrade would keep its own state for as long as a watch is idle. It has no span, which
        // would take memory too: what is logged names the peer.
        .on_upgrade(move |socket| {
            tokio::spawn(session::serve(socket, state, peer, caller.0));
            std::future::ready(())
        });
    response.headers_mut().insert(TAKES_REQUESTS, HeaderValue::from_static("1"));
    Ok(response)
}

async fn health(State(state): State<Arc<ServerState>>) -> Result<Json<serde_json::Value>, Refusal> {
    match state.health.check(&*state.store).await {
        Ok(()) => Ok(Json(serde_json::json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))),
        Err(sentence) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, sentence)),
    }
}

/// Keeps the reserve of connections for questions about the hub itself, and tells a node that has too many: one of these
/// answers one question and is closed.
async fn keep_reserve(request: Request, next: Next) -> Response {
    let peer = Peer::of(request.extensions());
    let mut response = match (peer.standing(), request.uri().path()) {
        (Standing::Ordinary, _) => return next.run(request).await,
        (Standing::Reserve, HEALTH | METRICS) => next.run(request).await,
        (Standing::Reserve, _) => {
            let sentence = "the hub has as many connections as its limit of open files allows";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, sentence).into_response()
        }
        (Standing::Surplus, _) => {
            let sentence = format!(
                "{peer} has {MAX_CONNECTIONS} connections open, as many as a hub takes from one node: look for what \
                 opens them there"
            );
            let refusal = Refusal::too_many(sentence, SURPLUS_RETRY);
            if let Some(share) = peer.share() {
                fairness::report(&peer, share, &refusal);
            }
            refusal.into_response()
        }
    };
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn metrics_page(State(state): State<Arc<ServerState>>) -> impl IntoResponse {
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, form)], state.metrics.text())
}

/// The routes for health checks on this machine.
pub(super) fn health_router(state: Arc<ServerState>) -> Router {
    Router::new()
        .route(HEALTH, get(health))
        .route(METRICS, get(metrics_page))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(state)
}

async fn unknown_path(request: Request) -> Refusal {
    let sentence = format!("there is nothing at '{}' on a hub", request.uri().path());
    Refusal::new(StatusCode::NOT_FOUND, sentence)
}

async fn wrong_method(request: Request) -> Refusal {
    let sentence = format!("'{}' does not take {}", request.uri().path(), request.method());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, sentence)
}
