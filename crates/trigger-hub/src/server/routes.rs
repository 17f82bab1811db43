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
use axum::{Extension, Json, Router};
use tracing::Instrument;
use trigger_core::identity::Revision;
use trigger_store::hub_protocol::{
    COMPARE_AND_SWAP, CasReply, CasRequest, DELETE, DeleteReply, DeleteRequest, EntryForm, PUT, PutReply,
    PutRequest, READ, ReadReply, ReadRequest, STATUS, TAKES_REQUESTS, WATCH, WHY,
};
use trigger_store::store::StoreError;

use super::body::Body;
use super::caller::MaybeCaller;
use super::connections::Standing;
use super::fairness;
use super::identification;
use super::inquiries;
use super::limits::{check_count, check_key, check_ranges};
use super::origin_check::OriginCheck;
use super::peer::Peer;
use super::refusal::Refusal;
use super::session;
use super::shares::MAX_CONNECTIONS;
use super::socket_requests::{self, PageBytes, SocketRoutes};
use super::state::ServerState;
use crate::served_store::PageRequest;

const HEALTH: &str = "/healthz";
const METRICS: &str = "/metrics";
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
    let over_socket = Extension(socket_routes(Arc::clone(&state)));
    let router = store_routes()
        .route(WHY, post(inquiries::why))
        .route(STATUS, post(inquiries::status))
        .route(WATCH, get(watch).layer(over_socket))
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
    let router = admit(router, &state).layer(middleware::from_fn(keep_reserve));
    count(router, &state).with_state(state)
}

/// What a client may ask over the WebSocket of a watch, which its origin and its place were checked for.
fn socket_routes(state: Arc<ServerState>) -> SocketRoutes {
    let router = store_routes().fallback(socket_requests::not_served);
    SocketRoutes(count(admit(router, &state), &state).with_state(state))
}

/// The requests that read and write the store.
fn store_routes() -> Router<Arc<ServerState>> {
    Router::new()
        .route(PUT, post(put))
        .route(DELETE, post(delete))
        .route(COMPARE_AND_SWAP, post(compare_and_swap))
        .route(READ, post(read))
}

/// Finds out who sends a request, after its rate was limited.
fn admit(router: Router<Arc<ServerState>>, state: &Arc<ServerState>) -> Router<Arc<ServerState>> {
    router
        .layer(middleware::from_fn_with_state(Arc::clone(state), identification::identify))
        .layer(middleware::from_fn_with_state(Arc::clone(&state.metrics), fairness::admit))
}

/// Counts and logs what is answered.
fn count(router: Router<Arc<ServerState>>, state: &Arc<ServerState>) -> Router<Arc<ServerState>> {
    let metrics = Arc::clone(&state.metrics);
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let (metrics, kind) = (Arc::clone(&metrics), kind(request.uri().path()));
        let span = tracing::info_span!("request", kind, peer = %Peer::of(request.extensions()));
        let answered = async move {
            let response = next.run(request).await;
            metrics.answered(kind, result(response.status()));
            tracing::debug!(status = response.status().as_u16(), "request answered");
            response
        };
        answered.instrument(span)
    }))
}

async fn put(
    State(state): State<Arc<ServerState>>,
    caller: MaybeCaller,
    body: Body<PutRequest>,
) -> Result<Json<PutReply>, Refusal> {
    check_count(body.0.entries.len())?;
    body.0.entries.iter().try_for_each(|entry| check_key(&entry.key))?;
    to_its_end(async move {
        let Body(PutRequest { entries }, _held) = body;
        let entries: Vec<_> = entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
        let revisions = match state.check(caller.0.as_ref(), "put")? {
            None => put_all(&state, entries).await?,
            Some(check) => {
                let mut put = check.put(entries).await?;
                let written = put_all(&state, std::mem::take(&mut put.entries)).await?;
                check.stored(&put);
                put.revisions(written)
            }
        };
        Ok(Json(PutReply { revisions: revisions.into_iter().map(|revision| revision.0).collect() }))
    })
    .await
}

/// Completes a write although its client may go meanwhile: what was decided about it holds until it is stored, and the audit
/// names it.
async fn to_its_end<T: Send + 'static>(
    write: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(write.in_current_span()).await.unwrap_or_else(|error| {
        let (backend, detail) =
            (String::new(), format!("the hub could not complete the write: {error}").into());
        Err(StoreError::Ambiguous { backend, detail }.into())
    })
}

async fn put_all(state: &ServerState, entries: Vec<(String, String)>) -> Result<Vec<Revision>, Refusal> {
    let results = state.store.put_many(entries).await;
    if results.iter().any(Result::is_err) {
        return Err(partial_put(results));
    }
    Ok(results.into_iter().flatten().collect())
}

/// Returns the refusal of a write of which a store without transactions may have stored a part. It says that the result
/// is unknown, because the client would take any other refusal to mean that nothing was stored.
fn partial_put(results: Vec<Result<Revision, StoreError>>) -> Refusal {
    let is_partial = results.iter().any(|result| matches!(result, Ok(_) | Err(StoreError::Ambiguous { .. })));
    let Some(error) = results.into_iter().find_map(Result::err) else {
        return Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "nothing was refused");
    };
    match error {
        error @ StoreError::Ambiguous { .. } => error.into(),
        error if !is_partial => error.into(),
        StoreError::Unreachable { backend, detail }
        | StoreError::Full { backend, detail }
        | StoreError::Denied { backend, detail }
        | StoreError::Refused { backend, detail } => StoreError::Ambiguous { backend, detail }.into(),
    }
}

async fn delete(
    State(state): State<Arc<ServerState>>,
    caller: MaybeCaller,
    body: Body<DeleteRequest>,
) -> Result<Json<DeleteReply>, Refusal> {
    let keys = body.0.keys;
    check_count(keys.len())?;
    if let Some(check) = state.check(caller.0.as_ref(), "delete")? {
        check.delete(&keys).await?;
    }
    let deleted = state.store.delete_counted(keys).await?;
    Ok(Json(DeleteReply { deleted }))
}

async fn compare_and_swap(
    State(state): State<Arc<ServerState>>,
    caller: MaybeCaller,
    body: Body<CasRequest>,
) -> Result<Json<CasReply>, Refusal> {
    check_key(&body.0.key)?;
    to_its_end(async move {
        let Body(CasRequest { key, value, expected }, _held) = body;
        let _guards = match state.check(caller.0.as_ref(), "compare_and_swap")? {
            Some(check) => check.compare_and_swap(&key, &value).await?,
            None => Vec::new(),
        };
        let outcome = state.store.compare_and_swap(&key, &value, expected.map(Revision)).await?;
        Ok(Json(outcome.into()))
    })
    .await
}

async fn read(
    State(state): State<Arc<ServerState>>,
    caller: MaybeCaller,
    PageBytes(max_bytes): PageBytes,
    body: Body<ReadRequest>,
) -> Result<Json<ReadReply>, Refusal> {
    let ReadRequest { ranges, from, keys_only } = body.0;
    let mut ranges = check_ranges(ranges)?;
    if let Some(check) = state.check(caller.0.as_ref(), "read")? {
        ranges = check.read(ranges).await?;
    }
    let page = state.store.read_page(PageRequest { ranges, from, keys_only, max_bytes }).await?;
    let entries = page.entries.into_iter().map(EntryForm::from).collect();
    Ok(Json(ReadReply { entries, next: page.next }))
}

async fn watch(
    State(state): State<Arc<ServerState>>,
    peer: Peer,
    caller: MaybeCaller,
    Extension(over_socket): Extension<SocketRoutes>,
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
            tokio::spawn(session::serve(socket, state, peer, caller.0, over_socket));
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

fn kind(path: &str) -> &'static str {
    match path {
        PUT => "put",
        DELETE => "delete",
        COMPARE_AND_SWAP => "compare_and_swap",
        READ => "read",
        WHY => "why",
        STATUS => "status",
        WATCH => "watch",
        HEALTH => "healthz",
        METRICS => "metrics",
        _ => "other",
    }
}

fn result(status: StatusCode) -> &'static str {
    if status.is_server_error() {
        "failed"
    } else if status.is_client_error() {
        "refused"
    } else {
        "ok"
    }
}
