//! The hub's HTTP side: routes, bodies, refusals. Every answer that is not a success is
//! `{"error": SENTENCE}`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;
use trigger_core::identity::Revision;
use trigger_store::hub_protocol::{
    COMPARE_AND_SWAP, CasReply, CasRequest, DELETE, DeleteReply, DeleteRequest, EntryForm, ErrorReply,
    MAX_BODY_BYTES, MAX_KEY_BYTES, MAX_RANGES, PUT, PutReply, PutRequest, READ, RangeForm, ReadReply,
    ReadRequest, WATCH,
};
use trigger_store::store::KeyRange;

use super::metrics::Metrics;
use super::origin_check::{self, OriginCheck};
use super::reader::{ReadError, ReaderHandle};
use super::session;
use super::watchers::Watchers;
use super::writer::{Write, WriteError, WriterHandle, Written};

/// One page of a read, in bytes of keys and values.
const PAGE_BYTES: usize = 1024 * 1024;
/// A writer that has not answered by then is in trouble.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// A session's buffer for what its client says, which is little. The default would cost each idle watcher
/// more than all else together.
const SOCKET_READ_BUFFER: usize = 1024;
/// The largest message of a client: its ranges.
const MAX_SOCKET_MESSAGE_BYTES: usize = 2 * 1024 * 1024;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) writer: WriterHandle,
    pub(super) reader: ReaderHandle,
    pub(super) watchers: Arc<Watchers>,
    pub(super) metrics: Arc<Metrics>,
    /// Changes once, when the hub stops.
    pub(super) stopping: watch::Receiver<()>,
}

/// The routes of a hub that listens on `address`.
pub(super) fn router(hub: Arc<Hub>, address: SocketAddr) -> Router {
    let origin_check = Arc::new(OriginCheck::new(address));
    let metrics = hub.metrics.clone();
    Router::new()
        .route(PUT, post(put))
        .route(DELETE, post(delete))
        .route(COMPARE_AND_SWAP, post(compare_and_swap))
        .route(READ, post(read))
        .route(WATCH, get(watch))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics_page))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let refused = origin_check.check(request.uri(), request.headers()).err();
            async move {
                match refused {
                    Some(refusal) => refusal.into_response(),
                    None => next.run(request).await,
                }
            }
        }))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let (metrics, kind) = (metrics.clone(), kind(request.uri().path()));
            async move {
                let response = next.run(request).await;
                metrics.answered(kind, result(response.status()));
                response
            }
        }))
        .with_state(hub)
}

/// A refusal: a status for programs and a sentence for people.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) sentence: String,
}

impl Refusal {
    pub(super) fn bad(sentence: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, sentence: sentence.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorReply { error: self.sentence })).into_response()
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        let status = match error {
            WriteError::DiskFull(_) => StatusCode::INSUFFICIENT_STORAGE,
            WriteError::Failed { .. } | WriteError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, sentence: error.to_string() }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, sentence: error.to_string() }
    }
}

async fn put(State(hub): State<Arc<Hub>>, body: Body<PutRequest>) -> Result<Json<PutReply>, Refusal> {
    let entries: Vec<_> = body.0.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    entries.iter().try_for_each(|(key, _)| check_key(key))?;
    match hub.writer.write(Write::Put(entries)).await? {
        Written::Put(revisions) => {
            Ok(Json(PutReply { revisions: revisions.into_iter().map(|revision| revision.0).collect() }))
        }
        other => Err(unexpected(&other)),
    }
}

async fn delete(
    State(hub): State<Arc<Hub>>,
    body: Body<DeleteRequest>,
) -> Result<Json<DeleteReply>, Refusal> {
    match hub.writer.write(Write::Delete(body.0.keys)).await? {
        Written::Delete(keys) => Ok(Json(DeleteReply { deleted: keys.into_iter().flatten().count() as u64 })),
        other => Err(unexpected(&other)),
    }
}

async fn compare_and_swap(
    State(hub): State<Arc<Hub>>,
    body: Body<CasRequest>,
) -> Result<Json<CasReply>, Refusal> {
    let CasRequest { key, value, expected } = body.0;
    check_key(&key)?;
    match hub.writer.write(Write::CasOutcome { key, value, expected: expected.map(Revision) }).await? {
        Written::CasOutcome(swap) => Ok(Json(swap.into())),
        other => Err(unexpected(&other)),
    }
}

async fn read(State(hub): State<Arc<Hub>>, body: Body<ReadRequest>) -> Result<Json<ReadReply>, Refusal> {
    let ReadRequest { ranges, from, keys_only } = body.0;
    let page = hub.reader.read(check_ranges(ranges)?, from, keys_only, PAGE_BYTES).await?;
    let entries = page.entries.into_iter().map(EntryForm::from).collect();
    Ok(Json(ReadReply { entries, next: page.next }))
}

async fn watch(
    State(hub): State<Arc<Hub>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade
        .map_err(|rejection| Refusal::bad(format!("{WATCH} speaks WebSocket: {}", rejection.body_text())))?;
    Ok(upgrade
        .read_buffer_size(SOCKET_READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(MAX_SOCKET_MESSAGE_BYTES)
        .max_frame_size(MAX_SOCKET_MESSAGE_BYTES)
        .on_upgrade(move |socket| session::serve(socket, hub)))
}

async fn health(State(hub): State<Arc<Hub>>) -> Result<Json<serde_json::Value>, Refusal> {
    let unhealthy = |sentence: String| Refusal { status: StatusCode::SERVICE_UNAVAILABLE, sentence };
    match timeout(HEALTH_TIMEOUT, hub.writer.write(Write::Nothing)).await {
        Ok(Ok(_)) => Ok(Json(serde_json::json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            Err(unhealthy(format!("the hub's writer has not answered for {} s", HEALTH_TIMEOUT.as_secs())))
        }
    }
}

async fn metrics_page(State(hub): State<Arc<Hub>>) -> impl IntoResponse {
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, form)], hub.metrics.text())
}

async fn unknown_path(request: Request) -> Refusal {
    let sentence = format!("there is nothing at '{}' on a hub", request.uri().path());
    Refusal { status: StatusCode::NOT_FOUND, sentence }
}

async fn wrong_method(request: Request) -> Refusal {
    let sentence = format!("'{}' does not take {}", request.uri().path(), request.method());
    Refusal { status: StatusCode::METHOD_NOT_ALLOWED, sentence }
}

/// A JSON body; what it is not is refused in the hub's own form.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        origin_check::check_json(request.headers())?;
        // Before it is read, where it says its size; while it is read, where it does not.
        let declared =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if declared.is_some_and(|bytes: u64| bytes > MAX_BODY_BYTES as u64) {
            return Err(too_large());
        }
        let path = request.uri().path().to_owned();
        let body = Bytes::from_request(request, state).await.map_err(|rejection| unread(&rejection))?;
        match serde_json::from_slice(&body) {
            Ok(value) => Ok(Self(value)),
            Err(error) => Err(Refusal::bad(format!("the request is not what {path} takes: {error}"))),
        }
    }
}

fn unread(rejection: &BytesRejection) -> Refusal {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        status => {
            Refusal { status, sentence: format!("the request could not be read: {}", rejection.body_text()) }
        }
    }
}

fn too_large() -> Refusal {
    let sentence = format!("the request is larger than a hub takes ({} MiB)", MAX_BODY_BYTES / 1024 / 1024);
    Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, sentence }
}

fn check_key(key: &str) -> Result<(), Refusal> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) && !key.chars().any(char::is_control) {
        return Ok(());
    }
    let shown: String = key.chars().take(80).flat_map(char::escape_debug).collect();
    Err(Refusal::bad(format!(
        "'{shown}' cannot be a key: it has 1 to {MAX_KEY_BYTES} bytes and no control characters"
    )))
}

/// The ranges of a read or a watch, if they are some.
pub(super) fn check_ranges(ranges: Vec<RangeForm>) -> Result<Vec<KeyRange>, Refusal> {
    if ranges.len() > MAX_RANGES {
        let count = ranges.len();
        return Err(Refusal::bad(format!("{count} ranges are more than a hub takes ({MAX_RANGES})")));
    }
    let ranges: Vec<KeyRange> = ranges.into_iter().map(KeyRange::from).collect();
    for range in &ranges {
        if let KeyRange::Prefix(prefix) = range
            && !prefix.ends_with('/')
        {
            let shown: String = prefix.chars().take(80).flat_map(char::escape_debug).collect();
            return Err(Refusal::bad(format!("'{shown}' is not a prefix: it ends with '/'")));
        }
    }
    Ok(ranges)
}

fn unexpected(written: &Written) -> Refusal {
    let sentence = format!("the hub's writer answered another question: {written:?}");
    Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, sentence }
}

fn kind(path: &str) -> &'static str {
    match path {
        PUT => "put",
        DELETE => "delete",
        COMPARE_AND_SWAP => "compare_and_swap",
        READ => "read",
        WATCH => "watch",
        "/healthz" => "healthz",
        "/metrics" => "metrics",
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
