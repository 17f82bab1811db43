//! Connections to a cluster's members: made when needed, bounded in time, moved to the next member when
//! one fails.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions, KvClient};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tonic::transport::Endpoint;
use trigger_core::duration;

use super::failure::EtcdFailure;
use crate::address::Address;
use crate::backend::OpenError;
use crate::connector::Connector;
use crate::detail::Detail;
use crate::kind::BackendUrl;
use crate::step_limit::StepLimit;
use crate::store::StoreError;

/// The first limit of a handshake, once a member has accepted a connection.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(2);
/// How long to wait for a silent member before the next one is dialled too.
const NEXT_MEMBER_DELAY: Duration = Duration::from_millis(300);
/// The first limit of the answer to a write. With several members, a repeatable write is sent to two.
const WRITE_LIMIT: Duration = Duration::from_secs(2);
/// The first limit of one page of a read, or of the opening of a watch.
const READ_LIMIT: Duration = Duration::from_secs(4);
/// The longest limit of any of these. A cluster that takes longer is of no use.
const LONGEST_LIMIT: Duration = Duration::from_secs(16);
/// How long a connection may be silent before it is probed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the probe may stay unanswered.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the request connection may be idle before the kernel probes it; gRPC must send no pings on it while idle.
const TCP_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// The largest answer accepted in one piece; above etcd's largest value, 1.5 MiB by default.
pub(super) const MAX_ANSWER_BYTES: usize = 16 << 20;
/// How many bytes a member may send ahead on each stream of requests, which is what an unread answer may occupy.
const REQUEST_WINDOW_BYTES: u32 = 1 << 20;
/// The same for a watch, which is nearly always idle and should then occupy little memory.
const WATCH_WINDOW_BYTES: u32 = 128 << 10;
/// The window of its connection, which has that one stream. Of a smaller one, h2 would close the connection once some hundred short
/// messages wait to be read (256 bytes for each, and at most half of this window): etcd sends one for each range of a watch, and
/// one for each change.
const WATCH_CONNECTION_WINDOW_BYTES: u32 = 2 << 20;

/// The kind of change that a request makes, on which the meaning of its failure depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// It changes nothing, so that an unanswered read does no harm.
    Read,
    /// It makes the same change however often it is performed.
    Repeatable,
    /// It would make another change the second time, so it is sent only once.
    Once,
}

/// The purpose of a connection.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Requests,
    Watch,
}

/// How often a request is sent again because a role or a user changed while it was on its way.
const MAX_ROLE_CHANGES: usize = 8;

/// The connections to one cluster.
pub(super) struct Connections {
    url: String,
    connector: Connector,
    members: Vec<Member>,
    /// Which member is dialled first; starts anywhere, so that a fleet spreads over its cluster.
    preferred: AtomicUsize,
    requests: Mutex<Requests>,
    handshakes: StepLimit,
    writes: StepLimit,
    reads: StepLimit,
}

struct Member {
    name: String,
    address: Address,
    endpoint: Endpoint,
}

/// The one connection that requests share.
#[derive(Default)]
struct Requests {
    current: Option<Arc<RequestConnection>>,
    /// When dialling failed last, and why. Requests that waited for it fail with it instead of dialling again.
    failed: Option<(Instant, EtcdFailure)>,
}

struct RequestConnection {
    member: usize,
    client: KvClient,
    /// What makes this connection, and makes it again when it breaks.
    connector: Connector,
}

/// A connection that was made to a member.
struct Dialled {
    member: usize,
    client: Client,
    connector: Connector,
}

/// A connection of its own for one watch: a large read on the same connection can starve it (etcd#15402).
pub(super) struct WatchConnection {
    /// Which member, for [`Connections::avoid`].
    pub(super) member: usize,
    /// Opens the stream.
    pub(super) client: etcd_client::WatchClient,
    /// What makes this connection, and makes it again when it breaks.
    pub(super) connector: Connector,
}

impl Connections {
    pub(super) fn new(url: &BackendUrl, connector: Connector) -> Result<Self, OpenError> {
        let member = |address: &Address| {
            let endpoint = Endpoint::from_shared(format!("{}://{address}", connector.http_scheme()));
            let endpoint = endpoint.map_err(|error| OpenError::BadAddress {
                url: url.to_string(),
                address: address.to_string(),
                source: error.into(),
            })?;
            Ok(Member { name: address.to_string(), address: address.clone(), endpoint })
        };
        let members = url.addresses().iter().map(member).collect::<Result<Vec<_>, _>>()?;
        let anywhere = RandomState::new().hash_one(std::process::id()) as usize % members.len().max(1);
        let preferred = AtomicUsize::new(anywhere);
        Ok(Self {
            url: url.to_string(),
            connector,
            members,
            preferred,
            requests: Mutex::default(),
            handshakes: StepLimit::new(HANDSHAKE_LIMIT, LONGEST_LIMIT),
            writes: StepLimit::new(WRITE_LIMIT, LONGEST_LIMIT),
            reads: StepLimit::new(READ_LIMIT, LONGEST_LIMIT),
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.url
    }

    pub(super) fn member_name(&self, member: usize) -> &str {
        &self.members[member].name
    }

    /// The error that callers of the store see.
    pub(super) fn error(&self, failure: EtcdFailure, kind: RequestKind) -> StoreError {
        let backend = self.url.clone();
        match failure {
            EtcdFailure::Indeterminate(detail) if kind != RequestKind::Read => {
                StoreError::Ambiguous { backend, detail }
            }
            EtcdFailure::RetryOtherMember(detail)
            | EtcdFailure::ClusterBlocked(detail)
            | EtcdFailure::RolesChanged(detail)
            | EtcdFailure::Indeterminate(detail) => StoreError::Unreachable { backend, detail },
            EtcdFailure::Full(detail) => StoreError::Full { backend, detail },
            EtcdFailure::Denied(detail) => StoreError::Denied { backend, detail },
            EtcdFailure::Permanent(detail) => StoreError::Refused { backend, detail },
            EtcdFailure::Compacted => {
                let detail = "it compacts its history faster than it can be read".into();
                StoreError::Unreachable { backend, detail }
            }
            EtcdFailure::TooLarge => {
                let detail = format!("one of its values is larger than {MAX_ANSWER_BYTES} bytes").into();
                StoreError::Refused { backend, detail }
            }
        }
    }

    /// Makes the connection of the next request, which waits for it.
    pub(super) async fn prepare(&self) {
        // A request that waits for this has the same failure; one that comes later tries again.
        let _ = self.request_connection().await;
    }

    /// Sends a request to one member, and to another one if that can help and the request may be repeated.
    pub(super) async fn ask<T, F>(
        &self,
        kind: RequestKind,
        request: impl Fn(KvClient) -> F,
    ) -> Result<T, EtcdFailure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let limit = if kind == RequestKind::Read { &self.reads } else { &self.writes };
        let mut unanswered = None;
        let mut more_tries = self.members.len().min(2);
        let mut role_changes = 0;
        while more_tries > 0 {
            let connection = match self.request_connection().await {
                Ok(connection) => connection,
                Err(failure) => return Err(unanswered.unwrap_or(failure)),
            };
            let name = self.member_name(connection.member);
            let answer = request(connection.client.clone());
            let connector = &connection.connector;
            let failure = match self.await_answer(connection.member, connector, limit, answer).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => EtcdFailure::from_client(name, error, connector.refusal()),
                Err(limit) => EtcdFailure::Indeterminate(
                    format!("{name}: no answer within {}", duration::format_short(limit)).into(),
                ),
            };
            match failure {
                // An operator grants roles one after another, and each change may meet a request.
                EtcdFailure::RolesChanged(_) if role_changes < MAX_ROLE_CHANGES => {
                    role_changes += 1;
                    continue;
                }
                EtcdFailure::RetryOtherMember(_) => self.forget(&connection).await,
                EtcdFailure::Indeterminate(_) => {
                    self.forget(&connection).await;
                    unanswered.get_or_insert_with(|| failure.clone());
                    if kind == RequestKind::Once {
                        return Err(failure);
                    }
                }
                _ => return Err(failure),
            }
            more_tries -= 1;
            if more_tries == 0 {
                return Err(unanswered.unwrap_or(failure));
            }
        }
        Err(EtcdFailure::RetryOtherMember("no endpoint is given".into()))
    }

    /// Waits for a member to open a watch.
    ///
    /// # Errors
    /// The limit, if it ran out.
    pub(super) async fn await_watch<T>(
        &self,
        member: usize,
        connector: &Connector,
        opening: impl Future<Output = T>,
    ) -> Result<T, Duration> {
        self.await_answer(member, connector, &self.reads, opening).await
    }

    async fn await_answer<T>(
        &self,
        member: usize,
        connector: &Connector,
        limit: &StepLimit,
        answer: impl Future<Output = T>,
    ) -> Result<T, Duration> {
        let address = &self.members[member].address;
        connector.connect_and_await_answer(address, limit, answer).await
    }

    /// Dials a connection for one watch.
    pub(super) async fn watch_connection(&self) -> Result<WatchConnection, EtcdFailure> {
        let Dialled { member, client, connector } = self.dial(Purpose::Watch).await?;
        let client = client.watch_client().max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(WatchConnection { member, client, connector })
    }

    /// The version of the first member that answers, over a connection of its own: it is asked for once.
    pub(super) async fn server_version(&self) -> Result<String, EtcdFailure> {
        let Dialled { member, mut client, connector } = self.dial(Purpose::Requests).await?;
        let name = self.member_name(member);
        match self.await_answer(member, &connector, &self.reads, client.status()).await {
            Ok(Ok(status)) => Ok(status.version().to_owned()),
            Ok(Err(error)) => Err(EtcdFailure::from_client(name, error, connector.refusal())),
            Err(limit) => Err(EtcdFailure::Indeterminate(
                format!("{name}: no answer within {}", duration::format_short(limit)).into(),
            )),
        }
    }

    /// Prefers the member after this one from now on.
    pub(super) fn avoid(&self, member: usize) {
        self.preferred.store((member + 1) % self.members.len(), Ordering::Relaxed);
    }

    async fn request_connection(&self) -> Result<Arc<RequestConnection>, EtcdFailure> {
        let asked = Instant::now();
        let mut requests = self.requests.lock().await;
        if let Some(connection) = &requests.current {
            return Ok(Arc::clone(connection));
        }
        if let Some((at, failure)) = &requests.failed
            && *at >= asked
        {
            return Err(failure.clone());
        }
        match self.dial(Purpose::Requests).await {
            Ok(Dialled { member, client, connector }) => {
                let client = client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES);
                let connection = Arc::new(RequestConnection { member, client, connector });
                requests.current = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Err(failure) => {
                requests.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// Drops a connection that failed, unless another request did already.
    async fn forget(&self, failed: &Arc<RequestConnection>) {
        let mut requests = self.requests.lock().await;
        if requests.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            requests.current = None;
            self.avoid(failed.member);
        }
    }

    /// The first member that accepts a connection, beginning with the preferred one. Members that refuse are skipped
    /// at once, silent ones after [`NEXT_MEMBER_DELAY`].
    async fn dial(&self, purpose: Purpose) -> Result<Dialled, EtcdFailure> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut waiting = (0..self.members.len()).map(|n| (first + n) % self.members.len());
        let mut dialled = FuturesUnordered::new();
        let mut met = Vec::new();
        loop {
            if let Some(member) = waiting.next() {
                dialled.push(self.dial_member(member, purpose));
            } else if dialled.is_empty() {
                return Err(EtcdFailure::RetryOtherMember(Detail::join(met)));
            }
            tokio::select! {
                Some(result) = dialled.next() => match result {
                    Ok(connected) => return Ok(connected),
                    Err(detail) => met.push(detail),
                },
                () = sleep(NEXT_MEMBER_DELAY) => {}
            }
        }
    }

    async fn dial_member(&self, member: usize, purpose: Purpose) -> Result<Dialled, Detail> {
        let Member { name, endpoint, .. } = &self.members[member];
        let endpoint = purpose.shape(endpoint.clone());
        let connector = match purpose {
            Purpose::Requests => self.connector.separate().with_keep_alive(TCP_KEEP_ALIVE_INTERVAL),
            Purpose::Watch => self.connector.separate(),
        };
        let connecting = endpoint.connect_with_connector(connector.clone());
        let channel = match self.await_answer(member, &connector, &self.handshakes, connecting).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(Detail::root_cause(error).of(name)),
            Err(limit) => {
                let limit = duration::format_short(limit);
                return Err(format!("{name}: connected, but no handshake within {limit}").into());
            }
        };
        // Without a leader a member answers reads late and watches never; with this option it refuses, and another is asked.
        let options = ConnectOptions::new().with_require_leader(true);
        match Client::from_channel(Channel::Tonic(channel), Some(options)).await {
            Ok(client) => Ok(Dialled { member, client, connector }),
            Err(error) => Err(Detail::new(format!("{name}: {error}"), error)),
        }
    }
}

impl Purpose {
    fn shape(self, endpoint: Endpoint) -> Endpoint {
        let endpoint =
            endpoint.http2_keep_alive_interval(KEEP_ALIVE_INTERVAL).keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        match self {
            // etcd hangs up on a client that pings while it has no stream open ("too many pings"), so an
            // idle request connection leaves it to the kernel.
            Self::Requests => endpoint
                .keep_alive_while_idle(false)
                .initial_stream_window_size(REQUEST_WINDOW_BYTES)
                .initial_connection_window_size(2 * REQUEST_WINDOW_BYTES),
            Self::Watch => endpoint
                .keep_alive_while_idle(true)
                .initial_stream_window_size(WATCH_WINDOW_BYTES)
                .initial_connection_window_size(WATCH_CONNECTION_WINDOW_BYTES),
        }
    }
}
